"""The same as ``spectro compare``: see ``python scripts/compare.py --help``."""

from spectro.cli.compare import main

if __name__ == "__main__":
    main()
