"""New folders, dotted keys, database addresses."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spectro.paths import flatten, new_folder, sqlite_path


def test_a_new_folder_is_nobody_elses(tmp_path):
    """Two runs of one second must not write into one folder."""
    path = tmp_path / "runs" / "2026-01-01_00-00-00_hog_svm_full"
    with ThreadPoolExecutor(4) as pool:
        names = {folder.name for folder in pool.map(new_folder, [path] * 4)}
    assert names == {path.name, *(f"{path.name}_{number}" for number in (2, 3, 4))}


def test_sections_become_dotted_keys_that_do_not_meet():
    """Two settings of one name would hide each other in a comparison, in MLflow and in a study."""
    nested = {"svm": {"C": 1, "grid": {}}, "a.b": 2, "a": {"b": 3}}
    assert flatten(nested) == {"svm.C": 1, "svm.grid": {}, '"a.b"': 2, "a.b": 3}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///a/b.db", Path("a/b.db").absolute()),
        ("sqlite:////data/b.db?timeout=9", Path("/data/b.db")),
        ("sqlite+pysqlite:///~/b.db", Path.home() / "b.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("http://127.0.0.1:5000", None),
        (None, None),
    ],
)
def test_only_a_sqlite_address_is_a_file(uri, path):
    """A file that is looked for in the wrong place is a second, empty database."""
    assert sqlite_path(uri) == path
