"""`python -m gpulstm` is `gpulstm`."""

from gpulstm.cli import main

main()
