"""Trains and evaluates one configuration: ``python train.py --help`` shows every group and knob.

The same as ``spectro train``. Hydra's shell completion takes a script for its own by the text @hydra.main.
"""

from spectro.cli.train import main

if __name__ == "__main__":
    main()
