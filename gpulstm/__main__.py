"""The program `gpulstm`, also as `python -m gpulstm`: signals are taken care of before anything large is imported."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # nothing is imported before `main` but what the interpreter has anyway
if TYPE_CHECKING:
    from collections.abc import Sequence

NO_ROOM = ("map segment", "allocate memory")  # how the system's linker says that a library found no room


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status: 0, 2 for a mistake of the user, 128 + n for signal n.

    Args:
        arguments: without the program's name; those of the process if None.
    """
    try:
        from gpulstm.training import interrupts

        interrupts.handle(interrupts.leave)
    except KeyboardInterrupt:  # in the milliseconds before
        try:
            _said("interrupted")
        finally:
            os._exit(130)
    try:
        from gpulstm.cli import main as run  # takes a while

        run(arguments)
    except (ImportError, MemoryError) as error:  # of libraries, also of those that are imported when they are needed
        reason = str(error)
        if isinstance(error, ImportError) and not any(part in reason for part in NO_ROOM):
            raise
        sys.exit(_said(f"there is not enough memory for a library that this needs ({reason or 'MemoryError'})"))


def _said(text: str) -> int:
    """Tell the person, if there is one, why the program ends; the status of a mistake."""
    try:
        os.write(2, f"gpulstm: {text}\n".encode())
    except OSError:
        return 2
    return 2


if __name__ == "__main__":
    main()
