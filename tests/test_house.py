"""The shape of the house: which module may import what, what is paid for at start-up, and how long a module gets."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectro.paths import CONF

HOME = CONF.parent
MODULES = [HOME / "train.py", *sorted((HOME / "spectro").rglob("*.py"))]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "skimage", "mlflow", "matplotlib", "skops", "optuna", "pandas")

modules = pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(HOME).as_posix())


def name_of(path: Path) -> str:
    """``spectro/data/cache.py`` -> ``spectro.data.cache``."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, source: str | None = None) -> Iterator[str]:
    """Full names of everything that a module imports, at its top or in a function, but not for type checkers."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8") if source is None else source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield ast.unparse(node.args[0]).strip("f'\"").split("{")[0].rstrip(".")
        todo += ast.iter_child_nodes(node)


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@modules
def test_only_tracking_imports_mlflow(path: Path) -> None:
    """MLflow being away, or changed, must be the trouble of one place."""
    if not below(name_of(path), "spectro.tracking"):
        assert [name for name in imports(path) if below(name, "mlflow")] == []


KNOW_HYDRA = [
    *(f"spectro.cli.{n}" for n in ("main", "explain", "train", "learning_curve")),
    *(
        f"spectro.{n}"
        for n in ("cli.multirun", "config.check", "config.groups", "runs.run", "sweeps.space", "sweeps.sweeper")
    ),
]


@modules
def test_only_the_entry_imports_hydra(path: Path) -> None:
    """The rest of the package is usable without Hydra."""
    if name_of(path) not in KNOW_HYDRA:
        assert [name for name in imports(path) if below(name, "hydra", "omegaconf")] == []


# The floors of the house, from the ground up: a package imports from the floors below it only.
FLOORS = [
    ["errors", "files", "paths", "progress", "interrupt", "knobs", "plugins"],
    ["data", "demo"],
    ["evaluation"],
    ["classifiers", "figures"],
    ["config", "tracking"],
    ["runs"],
    ["sweeps", "comparison"],
    ["cli"],
]
FLOOR_OF = {f"spectro.{name}": number for number, names in enumerate(FLOORS) for name in names}


@modules
def test_imports_point_downwards(path: Path) -> None:
    """A step back up ties layers together that are used apart: by a script, by a notebook, by a test."""
    package = ".".join(name_of(path).split(".")[:2])
    floor = FLOOR_OF.get(package, len(FLOORS))
    found = {".".join(name.split(".")[:2]) for name in imports(path) if below(name, "spectro")} - {package, "spectro"}
    assert {name for name in found if FLOOR_OF.get(name, -1) >= floor and floor < len(FLOORS)} <= (
        {"spectro.paths", "spectro.errors", "spectro.progress"} if floor == 0 else set()
    )


@modules
def test_a_comparison_knows_no_run_that_is_under_way(path: Path) -> None:
    """It stands beside a run: it reads what runs left, and only the command that compares uses it."""
    own = name_of(path)
    if below(own, "spectro.comparison"):
        beside = ("cli", "runs.run", "runs.results", "runs.terminal", "sweeps", "runs.crossval")
        assert [name for name in imports(path) if below(name, *(f"spectro.{one}" for one in beside))] == []
    elif own != "spectro.cli.compare":
        assert [name for name in imports(path) if below(name, "spectro.comparison")] == []


def test_cross_validation_knows_no_run() -> None:
    """A search that only wants the score must not get a run directory, a tracker or a terminal with it."""
    runs = ("cli", "runs.run", "runs.results", "runs.terminal", "tracking")
    found = imports(HOME / "spectro" / "runs" / "crossval.py")
    assert [name for name in found if below(name, "hydra", "omegaconf", *(f"spectro.{run}" for run in runs))] == []


@modules
def test_data_and_evaluation_know_no_models(path: Path) -> None:
    """Reading images and scoring predictions must not cost a library of networks."""
    if below(name_of(path), "spectro.data", "spectro.evaluation"):
        assert [name for name in imports(path) if below(name, "torch", "torchvision", "timm")] == []


def test_every_form_of_import_is_seen() -> None:
    """A test of the tests above: an import that they overlook would not be held."""
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    import i\n    from j.k import l\n    importlib.import_module(f'm.{n}')\n"
        "if TYPE_CHECKING:\n    import never\n"
    )
    seen = set(imports(HOME / "spectro" / "data" / "new.py", source))
    assert seen == {
        "a.b",
        "c",
        "c.d",
        "spectro.data",
        "spectro.data.e",
        "spectro.f",
        "spectro.f.g",
        "i",
        "j.k",
        "j.k.l",
        "m",
    }


@modules
def test_modules_are_short_and_say_what_they_are_for(path: Path) -> None:
    """300 lines are about what one can hold in mind."""
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "no docstring"
    assert len(source.splitlines()) <= 300


@pytest.mark.parametrize(
    "code",
    [
        "import spectro",
        "import spectro.cli.help, spectro.errors, spectro.paths",
        "import spectro.classifiers",
        "import sys, runpy; sys.argv = ['train.py', '--help']; runpy.run_path('train.py', run_name='__main__')",
        "from spectro.cli.commands import main; main()",
    ],
    ids=["package", "help", "classifiers", "train --help", "spectro"],
)
def test_what_is_not_used_is_not_paid_for(code: str) -> None:
    """torch, timm and mlflow cost seconds each; help must be there at once."""
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], cwd=HOME, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_a_checked_hog_svm_configuration_loads_no_other_family() -> None:
    """The networks' libraries belong to their runs."""
    heavy = ("torch", "torchvision", "timm", "mlflow", "matplotlib", "optuna")
    compose = "from spectro.cli import main as cli\ncli.composed([])"
    check = f"{compose}\nimport sys\nprint([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=HOME, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
