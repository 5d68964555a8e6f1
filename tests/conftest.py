"""What tests of several modules share."""

import csv
import gc
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# The tests' models are tiny: several threads would only wait for each other. Numerical libraries read it when loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# Collections of garbage would go over all that imports make again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays: collections pass over it, and are fewer."""
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


# Labels and names that a drawing library trips over.
ODD = ["$x_1$ cost $5", "Землетрясение (слабое)", "a.b [c]\n\ttwo", "\udcff broken \\frac{", "", "l" * 300]

# HOG vectors of 144 values from images of 32 pixels.
SMALL_HOG = ["hog.size_px=32", "hog.cell_px=8", "data.cache_dir=null"]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    """Writes an image of noise, width and height ``size``; the ending says which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_tree(root: Path, counts: Mapping) -> Path:
    """Makes ``{"train": {"a": 3}}`` or, without splits, ``{"a": 3}``: no two images and no two names are alike."""
    made = 0

    def fill(folder: Path, inside: Mapping | int) -> None:
        nonlocal made
        folder.mkdir(parents=True, exist_ok=True)
        for name, deeper in inside.items() if isinstance(inside, Mapping) else []:
            fill(folder / name, deeper)
        for _ in range(inside if isinstance(inside, int) else 0):
            save_image(folder / f"r{made:04d}.png", seed=made)
            made += 1

    fill(root, counts)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping], Path]:
    """A function that makes a tree of images, see `make_tree`, and returns its root."""
    return lambda counts: make_tree(tmp_path / "records", counts)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The field demo data at a tenth of their size, made once."""
    from spectro.demo.generate import make_demo

    return make_demo(tmp_path_factory.mktemp("demo") / "field", "field", scale=0.1)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Callable[..., Path]:
    """A function that gives a finished run of the small demo data under some overrides, made once; do not change it."""

    @cache
    def make(*overrides: str) -> Path:
        from spectro.cli import main as cli
        from spectro.runs.run import run

        folder = tmp_path_factory.mktemp("made") / "outputs" / "runs" / "run"
        folder.mkdir(parents=True)
        words = [f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null", "tracking.uri=null"]
        objective = run(cli.composed([*words, "figures=none", *overrides]), folder)
        assert objective == read_json(folder / "metrics.json")["objective"]
        return folder

    return make


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One migrated database for all tests: migrations take seconds."""
    from spectro.tracking import store

    folder = tmp_path_factory.getbasetemp()
    # One for all workers of pytest-xdist: the store locks it while it is made.
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store" / "mlflow.db"
    with store.settings(store.PROBE):
        store.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    """A fresh store at outputs/mlflow.db."""
    path = tmp_path / "outputs" / "mlflow.db"
    path.parent.mkdir()
    return Path(shutil.copy(template, path))


@pytest.fixture
def run_here(tmp_path: Path) -> Callable[..., Path]:
    """A function that runs overrides in this process, without MLflow and, unless they ask for them, without figures.

    Further arguments are those of `spectro.runs.run.run`, such as ``on_epoch``.
    """

    def run_config(*overrides: str, name: str = "run", **arguments: Any) -> Path:
        from spectro.cli import main as cli
        from spectro.runs import run as experiment

        run_dir = tmp_path / name
        run_dir.mkdir(parents=True, exist_ok=True)
        words = ["tracking.uri=null", "data.cache_dir=null", "figures=none", *overrides]
        experiment.run(cli.composed(words), run_dir, **arguments)
        return run_dir

    return run_config


@pytest.fixture
def spectro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A function that calls the command ``spectro`` in this process and in an empty folder.

    It returns exit code, stdout and stderr, as `subprocess.run` does. A new process would first import for two seconds.
    """

    def call(*arguments: object) -> SimpleNamespace:
        from hydra.core.global_hydra import GlobalHydra

        from spectro import beside
        from spectro.cli import commands

        # Its second process would import MLflow anew for each call.
        monkeypatch.setattr(beside, "stop", lambda: None)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
        monkeypatch.setattr(sys, "argv", ["spectro", *map(str, arguments)])
        handlers, hook, code = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}, sys.unraisablehook, 0
        log_handlers = list(logging.root.handlers)
        GlobalHydra.instance().clear()
        try:
            commands.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
            sys.unraisablehook = hook
            # Hydra's own writes into the run's folder.
            logging.root.handlers[:] = log_handlers
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return call


@pytest.fixture
def texts(monkeypatch):
    """All texts of the figures that are saved, in the order of drawing."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found = []
    save = Figure.savefig

    def spy(self, *args, **kwargs):
        found.extend(text for text in self.findobj(Text) if text.get_text())
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return found
