"""Which of several runs is the best, how sure one can be, and what they cost: ``compare`` and its report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from spectro.comparison.check import check_comparable
from spectro.comparison.gather import gather
from spectro.comparison.references import load_images
from spectro.comparison.result import Result, compare_runs
from spectro.comparison.runs import read_run
from spectro.errors import ConfigError
from spectro.progress import status

__all__ = ["Result", "compare"]

_SPLITS = ("test", "val")


def compare(
    names: Sequence[str | Path],
    *,
    outputs: Path | str = "outputs",
    experiment: str | None = None,
    tracking_uri: str | None = None,
    split: str = "test",
    out: Path | str | None = None,
    seed: int = 0,
) -> tuple[Result, Path]:
    """Compares runs, writes the report and sends it to MLflow.

    Args:
        names: Run directories, folders of several, MLflow run ids.
        outputs: The folder that holds the runs, and gets ``comparison/``.
        experiment: An MLflow experiment: all its runs besides.
        tracking_uri: The MLflow store of ids, experiment and the comparison; by default that of ``outputs`` for the
            first two, and that of the runs for the last.
        split: ``test`` or ``val``.
        out: The folder of the report, new or empty; a new one in ``outputs/comparison`` by default.
        seed: Seed of the bootstraps.

    Returns:
        What was found, and the folder with ``report.html``.

    Raises:
        SpectroError: Something that is not a run, runs that cannot be compared, or a folder that is in use. Nothing
            was written.
    """
    from spectro.comparison.write import check_out, write

    if split not in _SPLITS:
        raise ConfigError(f"--split: got {split!r}; allowed: {', '.join(_SPLITS)}")
    started_at = time.time()
    outputs = Path(outputs)
    check_out(None if out is None else Path(out))
    with tempfile.TemporaryDirectory() as scratch:
        with status("reading runs"):
            got = gather(
                [str(name) for name in names],
                outputs=outputs,
                scratch=Path(scratch),
                experiment=experiment,
                tracking_uri=tracking_uri,
                split=split,
            )
            runs = [read_run(folder, split) for folder in got.folders]
            check_comparable(runs, split)
        with status("reading images"):
            images = load_images(runs[0], outputs)
        with status("comparing"):
            result = compare_runs(runs, images, split, notes=got.notes, seed=seed)
        with status("writing the report"):
            folder = write(
                result,
                images,
                outputs=outputs,
                out=None if out is None else Path(out),
                tracking_uri=tracking_uri,
                started_at=started_at,
                seed=seed,
            )
    return result, folder
