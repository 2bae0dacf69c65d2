"""Coverage-guided fuzzing of every reader (atheris): any exception but the package's own is a find.

    python tests/fuzz/fuzz.py --seconds 120            all readers, a share of the time each
    python tests/fuzz/fuzz.py --seconds 60 --only onnx

A run starts from `whole` files, the hostile ones and what earlier runs kept in `tests/fuzz/corpus`.  Checkpoints are
fuzzed twice: as bytes, and as metadata that get their right checksum, so that the code behind it is reached.  A find is
left in `--finds` as a file that `read_all.py` repeats, and the status is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
META = "+meta"  # a target's ending: its input is the metadata of a checkpoint
MIB, SECONDS = 2048, 5  # of memory and of processor time that one input may take
HANGS = 120  # seconds after which an input has no end


def targets() -> list[str]:
    """Names of what is fuzzed."""
    from readers import READERS

    return [*READERS, f"forecaster{META}", f"training_run{META}"]


def container(target: str, folder: Path) -> tuple[Path, Callable[[bytes], bytes], list[bytes]]:
    """Where inputs are written for the reader, what they become there, and inputs to start from."""
    import json

    from hostile import HOSTILE
    from readers import ENDS, whole

    from gpulstm.arrays import checkpoint
    from gpulstm.errors import CheckpointError

    name = target.removesuffix(META)
    path, first = folder / f"input{ENDS[name]}", whole(name, folder)
    seeds = [first.read_bytes()]
    if target == name:
        for told, data in HOSTILE[name](folder) if name in HOSTILE else ():
            if len(data) < 2**16 and "without end" not in told:  # which take their time
                seeds.append(data)
        return path, lambda data: data, seeds
    arrays, meta = checkpoint.load(first)

    def with_meta(data: bytes) -> bytes:
        try:
            checkpoint.save(path, arrays, json.loads(data))
        except (ValueError, TypeError, RecursionError, CheckpointError):
            return b""
        return path.read_bytes()

    return path, with_meta, [json.dumps(meta).encode()]


def fuzz(target: str, seconds: int, finds: Path) -> None:
    """Fuzz one reader in this process, which atheris ends."""
    import warnings

    import atheris

    with atheris.instrument_imports(include=["gpulstm"]):
        from readers import READERS, whole

        with tempfile.TemporaryDirectory() as warm:  # imports what the reader imports when it is first called
            READERS[target.removesuffix(META)](whole(target.removesuffix(META), Path(warm)))
    from gpulstm.errors import GpulstmError

    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, contain, seeds = container(target, folder)
        read = READERS[target.removesuffix(META)]
        start = folder / "seeds"
        start.mkdir()
        for number, seed in enumerate(seeds):
            (start / str(number)).write_bytes(seed)
        kept = HERE / "corpus" / target
        kept.mkdir(parents=True, exist_ok=True)

        def once(data: bytes) -> None:
            path.write_bytes(contain(data))
            start = time.process_time()
            try:
                read(path)
            except GpulstmError as error:
                if len(str(error)) > 300 or "\n" in str(error):
                    raise AssertionError(f"a message of {len(str(error))} characters") from error
            if time.process_time() - start > SECONDS:
                raise AssertionError(f"it takes more than {SECONDS} seconds")

        limits = [f"-rss_limit_mb={MIB}", f"-timeout={HANGS}", f"-max_total_time={seconds}", "-max_len=65536"]
        finds.mkdir(parents=True, exist_ok=True)
        prefix = f"-artifact_prefix={finds}/{target}-"
        atheris.Setup([sys.argv[0], *limits, prefix, "-print_final_stats=1", str(kept), str(start)], once)
        atheris.Fuzz()


def main() -> int:
    """Fuzz one target, or each in a process of its own; the number of targets with a find."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--only")
    parser.add_argument("--finds", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    if options.only:
        fuzz(options.only, options.seconds, options.finds)
        return 0
    sys.path.insert(0, str(HERE))
    faults = 0
    names = targets()
    for name in names:
        share = max(1, options.seconds // len(names))
        command = [sys.executable, __file__, "--only", name, "--seconds", str(share), "--finds", str(options.finds)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        count = re.findall(r"stat::number_of_executed_units:\s*(\d+)", run.stderr)
        print(
            f"{name:20s} {count[-1] if count else '?':>9s} inputs  {'find' if run.returncode else 'no find'}",
            flush=True,
        )
        if run.returncode:
            faults += 1
            print("\n".join(run.stderr.splitlines()[-25:]), flush=True)
    return min(faults, 1)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
