"""The same as ``spectro suggest``: see ``python scripts/suggest.py --help``."""

from spectro.cli.suggest import main

if __name__ == "__main__":
    main()
