"""The number of threads of matrix products with few rows."""

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController

# Training rows from which several threads gain more than they cost.
_ROWS_FOR_THREADS = 2000


def blas_threads(n_rows: int) -> AbstractContextManager:
    """A context for products of ``n_rows`` training rows.

    With a few hundred rows threads mostly wait for each other, ten times longer beside another busy process.
    """
    return _libraries().limit(limits=1 if n_rows < _ROWS_FOR_THREADS else None, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    # The search for loaded libraries takes half as long as a fold.
    return ThreadpoolController()
