"""The installed package: every command, from an empty folder and an environment that holds the wheel.

``SPECTRO_INSTALLED`` names that environment's folder of programs; ``.ci/run`` builds the wheel and makes it.
"""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

BIN = os.environ.get("SPECTRO_INSTALLED")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BIN is None, reason="SPECTRO_INSTALLED names no environment")]


def run(*command: str | Path, cwd: Path) -> str:
    """What a program of the environment prints; it must succeed, and know nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, and then two runs in it."""
    folder = tmp_path_factory.mktemp("empty")
    for model in ("hog_svm", "pixels"):
        run("spectro", "train", f"model={model}", cwd=folder)
    return folder


def test_the_package_is_the_installed_one(tmp_path: Path) -> None:
    """Otherwise everything below would test the checkout."""
    package = Path(run("python", "-c", "import spectro; print(spectro.__path__[0])", cwd=tmp_path).strip())
    assert "site-packages" in package.parts
    assert (package / "py.typed").is_file()
    assert run("spectro", "--version", cwd=tmp_path).startswith("spectro ")


def test_train_leaves_runs_where_one_stands(folder: Path) -> None:
    """The configuration comes from the wheel, the results stay with the user."""
    statuses = [json.loads(path.read_text())["status"] for path in folder.glob("outputs/runs/*/run.json")]
    assert statuses == ["FINISHED", "FINISHED"]
    assert (folder / "outputs" / "mlflow.db").is_file()


def test_compare_writes_its_report(folder: Path) -> None:
    """The report's template is a file that a wheel may leave out."""
    run("spectro", "compare", *folder.glob("outputs/runs/*"), cwd=folder)
    (report,) = folder.glob("outputs/comparison/*/report.html")
    assert "<html" in report.read_text(encoding="utf-8")


def test_predict_classifies_images(folder: Path) -> None:
    """A model is loaded by name of its family, from the installed package."""
    (run_dir,) = folder.glob("outputs/runs/*_pixels_*")
    images = sorted(folder.glob("outputs/demo/*/test/*/*.png"))[:3]
    table = run("spectro", "predict", run_dir, *images, cwd=folder).splitlines()
    assert len(table) == 1 + len(images)


def test_resend_and_learning_curve(folder: Path) -> None:
    """The remaining commands."""
    run("spectro", "resend", *folder.glob("outputs/runs/*"), cwd=folder)
    run("spectro", "learning-curve", "model=pixels", "--seeds", "1", "--shares", "0.5,1", cwd=folder)
    assert len(list(folder.glob("outputs/learning_curve/*/curve.csv"))) == 1


def test_bash_completes_commands_options_and_knobs(tmp_path: Path) -> None:
    """As README says to install it: what bash itself offers for an unfinished line."""
    script = textwrap.dedent("""
        eval "$(spectro train -sc install=bash)"
        complete -p spectro >/dev/null || exit 1
        offered() {
            COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            hydra_bash_completion
            echo "${COMPREPLY[*]}"
        }
        offered spectro ''
        offered spectro tr
        offered spectro train model=
        offered spectro train model=deit_vpt vpt.var
    """)
    all_commands, train, models, knobs = run("bash", "-c", script, cwd=tmp_path).splitlines()
    assert {"train", "compare", "predict", "resend", "learning-curve"} <= set(all_commands.split())
    assert train == "train"
    assert {"model=hog_svm", "model=resnet18", "model=deit_vpt"} <= set(models.split())
    assert knobs == "vpt.variant="
    assert list(tmp_path.iterdir()) == []
