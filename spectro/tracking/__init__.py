"""Copies of run directories in MLflow; the only part of spectro that imports mlflow.

The run directory is the truth and is complete before anything is sent. A live run and a later resend take the same
path, so a store that is away costs one warning and no result. Nothing is written into run directories, and nothing
stays open: no active run, no thread.
"""

from spectro.tracking.sender import MLFLOW_ID, MlflowEntry, is_alive, open_run, page_of, reason_of, send, send_now

__all__ = ["MLFLOW_ID", "MlflowEntry", "is_alive", "open_run", "page_of", "reason_of", "send", "send_now"]
