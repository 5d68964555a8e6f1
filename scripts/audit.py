"""The same as ``spectro audit``: see ``python scripts/audit.py --help``."""

from spectro.cli.audit import main

if __name__ == "__main__":
    main()
