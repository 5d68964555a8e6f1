"""The same as ``spectro export``: see ``python scripts/export.py --help``."""

from spectro.cli.export import main

if __name__ == "__main__":
    main()
