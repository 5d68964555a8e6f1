"""An interrupt ends the work whenever it comes."""

import subprocess
import sys

LOST = """
import os, signal, time
from spectro import interrupt

class Tidied:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

interrupt.listen()
try:
    Tidied()
    time.sleep(20)
    print("went on")
except KeyboardInterrupt:
    print("interrupted", interrupt.happened())
"""


def test_an_interrupt_while_python_tidies_up_is_not_lost() -> None:
    """Ctrl-C would print a traceback, and the run would go on as if nothing had been typed."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted True\n", "")
