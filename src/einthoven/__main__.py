"""`python -m einthoven`: the command line, also for `torchrun -m einthoven`."""

from einthoven.cli import main

if __name__ == "__main__":
    main()
