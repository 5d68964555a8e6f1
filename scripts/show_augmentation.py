"""The same as ``spectro show-augmentation``: see ``python scripts/show_augmentation.py --help``."""

from spectro.cli.show_augmentation import main

if __name__ == "__main__":
    main()
