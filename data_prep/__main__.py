"""Entry point of `python -m data_prep`."""

import sys

if __name__ == "__main__":
    # Inside, since every worker of a pool imports this file too.
    from data_prep.cli import main

    sys.exit(main())
