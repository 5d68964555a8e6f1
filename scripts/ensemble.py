"""The same as ``spectro ensemble``: see ``python scripts/ensemble.py --help``."""

from spectro.cli.ensemble import main

if __name__ == "__main__":
    main()
