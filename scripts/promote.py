"""The same as ``spectro promote``: see ``python scripts/promote.py --help``."""

from spectro.cli.promote import main

if __name__ == "__main__":
    main()
