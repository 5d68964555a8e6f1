"""How many threads matrix products of few rows may take."""

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController

# Training rows from which several threads gain more than they cost.
_ROWS_FOR_THREADS = 2000


def blas_threads(n_rows: int) -> AbstractContextManager:
    """A context for products of ``n_rows`` training rows.

    With a few hundred rows threads mostly wait for each other, and beside another busy process ten times longer.
    """
    return _libraries().limit(limits=1 if n_rows < _ROWS_FOR_THREADS else None, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    # Looking for the loaded libraries takes half as long as a fold.
    return ThreadpoolController()
