"""The same as ``spectro predict``: see ``python scripts/predict.py --help``."""

from spectro.cli.predict import main

if __name__ == "__main__":
    main()
