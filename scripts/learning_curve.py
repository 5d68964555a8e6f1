"""The same as ``spectro learning-curve``: see ``python scripts/learning_curve.py --help``."""

from spectro.cli.learning_curve import main

if __name__ == "__main__":
    main()
