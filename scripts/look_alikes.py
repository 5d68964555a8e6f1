"""The same as ``spectro look-alikes``: see ``python scripts/look_alikes.py --help``."""

from spectro.cli.look_alikes import main

if __name__ == "__main__":
    main()
