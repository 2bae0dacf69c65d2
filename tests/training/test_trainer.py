"""The training loop: seeds, Ctrl-C, losses that are not finite, the same curve on CPU and GPU."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import TESTS
from runs import SMALL, Call, interrupt, make, network, numbers, windows
from variables import SetVariable

from gpulstm import losses, optimizers, schedules
from gpulstm.arrays import checkpoint
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.data.windows import WindowSet
from gpulstm.engines import reference
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, ShapeError, TrainingError
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.callbacks import Callback, CheckpointEvery, EarlyStopping, Run
from gpulstm.training.history import Row
from gpulstm.training.trainer import Trainer, data_order


@pytest.fixture(autouse=True)
def _terminal() -> Iterator[None]:
    """Ctrl-C as a program in a terminal finds it, also where the runner of the tests has set it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_training_learns(device: str) -> None:
    trainer = make(device, epochs=12 if device == "cpu" else 3)
    first = trainer.evaluate(windows())
    history = trainer.fit(windows(), windows())
    assert history.stopped == "epochs" and len(history) == trainer.epochs
    assert history.columns()["train_loss"][-1] < history.columns()["train_loss"][0]
    assert trainer.evaluate(windows()) == pytest.approx(history.best_loss, rel=1e-12)
    assert history.best_loss < first and history.restored


def test_rates_of_the_history_are_those_of_the_last_steps() -> None:
    schedule = schedules.Cosine(base=0.1, steps=15)
    history = make(schedule=schedule, epochs=3).fit(windows())
    assert history.columns()["rate"] == [schedule.rate(4), schedule.rate(9), schedule.rate(14)]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    """The literals hold the order for good: another would not go on from old checkpoints."""
    assert data_order(0, 0, 8).tolist() == [4, 1, 3, 6, 0, 7, 2, 5]
    assert data_order(3, 5, 6).tolist() == [2, 0, 5, 3, 1, 4]
    for count in (1, 7, 100):
        assert sorted(data_order(5, 2, count)) == list(range(count))
    assert len({tuple(data_order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("missing", [False, True])
def test_same_seed_same_bits(missing: bool) -> None:
    runs = []
    for seed in (3, 3, 4):
        trainer = make(seed=seed, epochs=2)
        trainer.fit(windows(missing=missing), windows(missing=missing))
        runs.append(numbers(trainer))
    assert runs[0] == runs[1]
    assert runs[0]["weights"] != runs[2]["weights"]


def test_the_host_looks_seldom_and_that_changes_nothing() -> None:
    runs = []
    for every in (1, 3, 1000):
        trainer = make(log_every=every, epochs=2)
        trainer.fit(windows())
        runs.append(numbers(trainer))
    assert runs[0] == runs[1] == runs[2]


def test_the_losses_of_an_epoch_are_averaged_over_all_targets() -> None:
    """With a rate of almost 0 the mean over batches, weighted, is the loss over the whole set."""
    for missing in (False, True):
        net = Network(NetworkConfig(StackSpec("gru", 1, 4, dtype="float64"), horizon=2), device="cpu", seed=1)
        trainer = Trainer(net, losses.MAE(), schedule=1e-15, epochs=1, batch_size=7)
        data = windows(missing=missing)
        history = trainer.fit(data)
        batch = data.gather(np.arange(len(data)), net.backend)
        whole, _ = losses.MAE()(net.forward(batch.x)[0], batch.target, batch.weight)
        assert history.rows[0]["train_loss"] == pytest.approx(float(whole), rel=1e-10)
        assert trainer.evaluate(data) == pytest.approx(float(whole), rel=1e-10)


def test_first_interrupt_waits_for_the_step_and_keeps_the_best() -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make(callbacks=[Call(12, lambda run: interrupt())], schedule=0.01)
    history = trainer.fit(windows(), windows())
    assert history.stopped == "interrupted" and len(history) == 2 and history.restored
    assert trainer.evaluate(windows()) == pytest.approx(history.best_loss, rel=1e-12)
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_ends_at_once_and_the_cut_state_is_refused(tmp_path: Path) -> None:
    class Twice(optimizers.SGD):
        def step(self, *args: Any, **kwargs: Any) -> None:
            super().step(*args, **kwargs)
            if self.steps == 7:
                interrupt()
                interrupt()

    trainer = make(optimizer=Twice())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(windows())
    assert trainer.history.restored and trainer.history.best_epoch == 1
    with pytest.raises(TrainingError, match="cut off in the middle"):
        trainer.save(tmp_path / "run")
    with pytest.raises(TrainingError, match="cut off in the middle"):
        trainer.fit(windows())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_within_a_callback_stops_cleanly() -> None:
    def stop(run: Run) -> None:
        raise KeyboardInterrupt

    trainer = make(callbacks=[Call(3, stop)])
    assert trainer.fit(windows()).stopped == "interrupted"
    assert trainer.step == 3


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """A whole process, a real signal: it ends by itself, with a checkpoint."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from gpulstm.training.callbacks import CheckpointEvery\n"
        "from runs import Call, make, windows\n"
        "saver = CheckpointEvery(sys.argv[2])\n"
        "say = Call(2, lambda run: print('running', flush=True))\n"
        "trainer = make(epochs=10**6, callbacks=[saver, say])\n"
        "print(trainer.fit(windows(), windows()).stopped, trainer.step)\n"
    )
    arguments = [sys.executable, "-c", script, str(TESTS / "helpers"), str(tmp_path / "run")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        stopped, step = child.stdout.read().split()
    assert child.returncode == 0 and stopped == "interrupted"
    trainer = make(epochs=10**6)
    trainer.restore(tmp_path / "run")
    assert trainer.step == int(step)


def test_early_stopping_puts_the_best_weights_back() -> None:
    seen = []

    class Keep(Callback):
        def on_epoch(self, run: Run, row: Row) -> None:
            seen.append(to_host(trainer.network.params.flat).copy())

    trainer = Scripted(network(), losses.MSE(), epochs=8, callbacks=[EarlyStopping(patience=3, min_delta=0.05), Keep()])
    history = trainer.fit(windows(), windows())
    assert history.stopped == "early stopping"
    assert len(history) == 5  # 2.0, then 2.5, 1.99 and 2.2 are no progress of 0.05
    assert (history.best_epoch, history.best_loss) == (4, 1.99)
    np.testing.assert_array_equal(to_host(trainer.network.params.flat), seen[3])


def test_without_restore_best_the_last_weights_stay() -> None:
    runs = {}
    for restore in (True, False):
        trainer = Scripted(network(), losses.MSE(), restore_best=restore, epochs=3)
        history = trainer.fit(windows(), windows())
        runs[restore] = to_host(trainer.network.params.flat).tobytes()
        assert history.restored is restore and history.best_epoch == 2
    assert runs[True] != runs[False]


class Scripted(Trainer):
    """Judges the epochs by a list."""

    script = (3.0, 2.0, 2.5, 1.99, 2.2, 2.1, 2.0, 0.1)

    def _end_epoch(self, judged: float | None, seconds: float) -> None:
        super()._end_epoch(None if judged is None else self.script[self.epoch], seconds)


class Poison(losses.MSE):
    """A loss that goes wrong at one call."""

    def __init__(self, call: int, value: float) -> None:
        object.__setattr__(self, "call", call)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "calls", 0)

    def config(self) -> dict[str, Any]:
        return {"name": "poison"}

    def __call__(self, raw: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
        value, draw = super().__call__(raw, target, weight)
        object.__setattr__(self, "calls", self.calls + 1)
        return (value * self.value, draw * self.value) if self.calls == self.call else (value, draw)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("call", "where"), [(3, "step 3 .epoch 1, batch 3 of 5"), (9, "step 9 .epoch 2, batch 4 of 5")]
)
def test_a_loss_that_is_not_finite_names_its_step(call: int, where: str, value: float, device: str) -> None:
    """The host looks two steps late, and the step is still the right one; the weights are those before it."""
    seen = {}

    class Keep(Callback):
        def on_step(self, run: Run) -> None:
            seen[run.step] = to_host(trainer.network.params.flat).copy()

    net = network(device)
    trainer = Trainer(
        net,
        Poison(call, value),
        schedule=0.01,
        epochs=3,
        batch_size=8,
        log_every=5,
        callbacks=[Keep()],
        restore_best=False,
    )
    with pytest.raises(TrainingError, match=where) as caught:
        trainer.fit(windows())
    assert f"the loss is {value}" in str(caught.value)
    assert trainer.history.stopped == "failed" and trainer.step == net.calls == call - 1
    np.testing.assert_array_equal(to_host(net.params.flat), seen[call - 1])
    assert np.isfinite(to_host(net.params.flat)).all()


def test_what_was_not_finite_is_named() -> None:
    trainer = make(clip_norm=None, schedule=1e200, optimizer=optimizers.SGD())  # far too fast: the weights run away
    with pytest.raises(TrainingError, match=r"training stopped at step \d+ .*no epoch was over yet"):
        trainer.fit(windows())
    assert np.isfinite(trainer.network.params.flat).all()

    data = windows()
    data.values[20] = np.nan
    with pytest.raises(TrainingError, match=r"its windows hold a value in x that is not finite"):
        make().fit(data)
    data = windows(rows=8)
    data.values[7] = np.inf
    with pytest.raises(TrainingError, match=r"step 1 .*hold a value in target that is not finite"):
        make().fit(data)

    trainer = make()
    trainer.network.params["rnn.b_l1"][2] = np.nan
    with pytest.raises(TrainingError, match=r"step 1 .*parameter 'rnn.b_l1' was not finite before it"):
        trainer.fit(windows())

    class Steep(losses.MSE):
        def __call__(self, raw: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
            value, draw = super().__call__(raw, target, weight)
            return value, draw * 1e308 * 1e10

    trainer = Trainer(network(), Steep(), epochs=1)
    with pytest.raises(
        TrainingError, match=r"the norm of the gradients is not finite; .* the gradient of 'rnn\.\w+' is"
    ):
        trainer.fit(windows())


def test_a_failed_run_has_its_best_weights_back() -> None:
    trainer = Trainer(network(), Poison(9, float("nan")), epochs=3, batch_size=8)
    with pytest.raises(TrainingError, match=r"the weights of the best epoch \(1\) are back in the network"):
        trainer.fit(windows())
    assert trainer.history.best_loss == trainer.history.rows[0]["train_loss"]
    assert trainer.history.restored


def test_a_validation_loss_that_is_not_finite_stops_the_run() -> None:
    judge = windows()
    judge.values[20] = np.nan
    with pytest.raises(TrainingError, match=r"validation loss after step 5 \(epoch 1\) is nan: all weights are finite"):
        make().fit(windows(), judge)


def test_a_broken_state_is_not_saved_over_a_good_one(tmp_path: Path) -> None:
    saver = CheckpointEvery(tmp_path / "run", steps=2)
    trainer = Trainer(network(), Poison(3, float("nan")), batch_size=8, log_every=100, callbacks=[saver])
    with pytest.raises(TrainingError, match="step 3 "):
        trainer.fit(windows())
    assert checkpoint.load(tmp_path / "run")[1]["counters"]["batch"] == 2


def test_full_memory_names_the_batch_size() -> None:
    class Hungry(losses.MSE):
        def __call__(self, *args: Any) -> tuple[Any, Any]:
            raise MemoryError

    trainer = Trainer(network(), Hungry(), batch_size=16)
    with pytest.raises(TrainingError, match="memory is full at step 1 with batch_size 16"):
        trainer.fit(windows())
    assert trainer.step == trainer.network.calls == 0
    trainer.state.loss = losses.MSE()
    assert trainer.fit(windows()).stopped == "epochs"  # nothing was lost by it


@pytest.mark.cuda
def test_the_same_seed_trains_the_same_curve_on_cpu_and_cuda() -> None:
    """20 steps in float64 with dropout, clipping and a schedule: losses within 1e-9."""
    curves = {}
    for device in ("cpu", "cuda"):
        seen: list[float] = []

        class Curve(Callback):
            def on_log(self, run: Run, loss: float, seen: list[float] = seen) -> None:
                seen.append(loss)

        trainer = make(device, epochs=5, log_every=1, callbacks=[Curve()])
        trainer.fit(windows(missing=True), windows(missing=True))
        assert trainer.step == 20
        curves[device] = seen
    assert len(curves["cpu"]) == 20
    np.testing.assert_allclose(curves["cuda"], curves["cpu"], rtol=1e-9)


@pytest.mark.cuda
def test_a_step_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the steps, as many transfers to the host; the simulator sees no other wait either."""
    counts, transfers = [], []
    backend = resolve("cuda")
    to_host_of = type(backend).to_host
    monkeypatch.setattr(type(backend), "to_host", lambda self, value: transfers.append(1) or to_host_of(self, value))
    for rows in (40, 72):  # 33 and 65 windows: 5 and 9 steps
        trainer = make("cuda", epochs=1, log_every=1000)
        transfers.clear()
        if "HOSTGPU" in os.environ:
            with importlib.import_module("hostgpu").counting() as counted:
                trainer.fit(windows(rows))
            waits = [counted[name] for name in ("sync_stream", "sync_device", "sync_event", "copies_d2h")]
        else:
            trainer.fit(windows(rows))
            waits = []
        counts.append((len(transfers), *waits))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"clip_norm": 0}, "clip_norm is 0, expected a finite number above 0"),
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"schedule": -0.1}, "base is -0.1"),
        ({"restore_best": "yes"}, "restore_best is 'yes', expected True or False"),
        ({"optimizer": "adam"}, "optimizer is 'adam', expected an object of a class of gpulstm.optimizers"),
        (
            {"callbacks": [print]},
            "callbacks holds <built-in .*>, expected objects of a class of gpulstm.training.callbacks",
        ),
        ({"callbacks": [EarlyStopping(), EarlyStopping()]}, "callbacks has two named 'early_stopping'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_what_does_not_fit_is_refused_before_any_step() -> None:
    with pytest.raises(ConfigError, match=r"loss is 'mse', expected an object of a class of gpulstm.losses"):
        Trainer(network(), "mse")
    with pytest.raises(ConfigError, match="the loss 'pinball' needs 3 outputs per target, the network gives 1"):
        Trainer(network(), losses.Pinball())
    trainer = make()
    wide = WindowSet(np.zeros((40, 2)), np.array([0, 40]), **SMALL, targets=1, past=1)
    long = WindowSet(np.zeros((40, 1)), np.array([0, 40]), context=6, horizon=3)
    with pytest.raises(ShapeError, match="the windows of train have inputs 2, the network was made for 1"):
        trainer.fit(wide)
    with pytest.raises(ShapeError, match="the windows of validation have horizon 3, the network was made for 2"):
        trainer.fit(windows(), long)
    with pytest.raises(ShapeError, match="validation has no windows"):
        trainer.fit(windows(), replace(windows(), origins=np.zeros(0, int)))
    assert trainer.step == 0


def test_a_bound_on_memory_changes_no_bit(monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable) -> None:
    set_variable("GPULSTM_ENGINE", "reference")
    monkeypatch.setattr(reference, "BLOCK_ROWS", 8)  # a step is a block, so that six steps can be cut
    whole, bounded = make(epochs=2), make(epochs=2, memory="sqrt")
    whole.fit(windows(missing=True), windows())
    bounded.fit(windows(missing=True), windows())
    assert numbers(bounded) == numbers(whole)


def test_a_bound_that_cannot_be_kept_is_refused_before_the_first_step() -> None:
    trainer = make(memory="1KiB")
    with pytest.raises(ConfigError, match=r"memory is '1KiB', but a training step of T=6 B=8 needs at least"):
        trainer.fit(windows())
    assert trainer.step == 0
    with pytest.raises(ConfigError, match="memory is 'little', expected a number of bytes"):
        make(memory="little")
