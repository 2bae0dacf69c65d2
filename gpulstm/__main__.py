"""The program `gpulstm`, also as `python -m gpulstm`: signals are taken care of before anything large is imported."""

from __future__ import annotations

from collections.abc import Sequence

from gpulstm.training import interrupts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status: 0, 2 for a mistake of the user, 128 + n for signal n.

    Args:
        arguments: without the program's name; those of the process if None.
    """
    interrupts.handle(interrupts.leave)
    from gpulstm.cli import main as run  # takes a while

    run(arguments)


if __name__ == "__main__":
    main()
