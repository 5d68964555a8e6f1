"""The same as ``spectro resend``: see ``python scripts/resend.py --help``."""

import sys

from spectro.cli.resend import main

if __name__ == "__main__":
    sys.exit(main())
