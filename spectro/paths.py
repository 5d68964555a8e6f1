"""Where things lie."""

from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"
