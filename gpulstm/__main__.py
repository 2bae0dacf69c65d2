"""The program `gpulstm`, also as `python -m gpulstm`: signals are taken care of before anything large is imported."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # nothing is imported before `main` but what the interpreter has anyway
if TYPE_CHECKING:
    from collections.abc import Sequence


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
            os.write(2, b"gpulstm: interrupted\n")
        finally:
            os._exit(130)
    from gpulstm.cli import main as run  # takes a while

    run(arguments)


if __name__ == "__main__":
    main()
