// Browsers give no worker to a page that was opened from the disk, and the search runs in one: an iframe stands in for it.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.worker = this;
      document.body.append(this.frame);
      this.ready = new Promise((resolve) => (this.frame.onload = resolve));
      const inner = this.frame.contentDocument;
      inner.open();
      inner.write(`<script>
        const owner = frameElement.worker;
        self.postMessage = (data) => owner.dispatchEvent(new MessageEvent("message", { data }));
        self.importScripts = (...urls) => urls.reduce((done, url) => done.then(() => new Promise((resolve, reject) => {
          const script = document.createElement("script");
          Object.assign(script, { src: url, onload: resolve, onerror: reject });
          document.body.append(script);
        })), Promise.resolve());
      <\/script><script src="${url}"><\/script>`);
      inner.close();
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
