"""The structure of the package: which module may import what, and what is paid for at start-up."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectro.paths import CONF

HOME = CONF.parent
PATHS = [HOME / "train.py", *sorted((HOME / "spectro").rglob("*.py"))]
# What only a run that is in progress needs.
RUN = "spectro.cli spectro.runs.run spectro.runs.results spectro.runs.terminal"
HEAVY = ("torch", "torchvision", "timm", "sklearn", "skimage", "mlflow", "matplotlib", "skops", "optuna", "pandas")


def name_of(path: Path) -> str:
    """``spectro/data/cache.py`` -> ``spectro.data.cache``."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, source: str) -> Iterator[str]:
    """Full names of everything that a module imports, at its top or in a function, but not for type checkers."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    todo: list[ast.AST] = [ast.parse(source)]
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


SOURCES = {name_of(path): path.read_text(encoding="utf-8") for path in PATHS}
IMPORTS = {name_of(path): set(imports(path, SOURCES[name_of(path)])) for path in PATHS}


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# What must not be imported, where, and the exceptions.
FORBIDDEN = [
    # MLflow being away, or changed, must be the trouble of one place.
    ("mlflow", "spectro", "spectro.tracking spectro.runs.mlflow_model"),
    # The rest of the package is usable without Hydra.
    ("hydra omegaconf hydra_plugins", "spectro", "spectro.cli spectro.config spectro.runs.run spectro.sweeps"),
    # Reading images and scoring predictions must not cost a library of networks.
    ("torch torchvision timm", "spectro.data spectro.evaluation", ""),
    # A comparison reads what runs left, and only its command, that of ensembles, and the review of labels use it.
    (
        "spectro.comparison",
        "spectro",
        "spectro.comparison spectro.labels spectro.cli.promote spectro.cli.compare spectro.cli.ensemble",
    ),
    # What it fits itself are the runs of baselines.
    (f"{RUN} spectro.runs.crossval spectro.sweeps", "spectro.comparison", "spectro.comparison.baselines"),
    # A search that only needs the score must not get a run directory, a tracker or a terminal with it.
    (f"{RUN} spectro.tracking", "spectro.runs.crossval", ""),
]


@pytest.mark.parametrize(("targets", "where", "but"), FORBIDDEN, ids=lambda text: text.replace(" ", ","))
def test_what_is_not_imported_where(targets: str, where: str, but: str) -> None:
    """Layers that are used apart must not be tied together."""
    users = {module for module, names in IMPORTS.items() if any(below(name, *targets.split()) for name in names)}
    assert {module for module in users if below(module, *where.split()) and not below(module, *but.split())} == set()


# From the ground up: a package imports from the floors below it only.
FLOORS = [
    ["errors", "files", "imports", "paths", "progress", "interrupt", "knobs", "plugins"],
    ["beside"],
    ["data", "demo"],
    ["evaluation"],
    ["classifiers", "figures"],
    ["config", "tracking"],
    ["runs"],
    ["sweeps", "comparison"],
    ["labels"],
    ["cli"],
]
FLOOR_OF = {f"spectro.{name}": number for number, names in enumerate(FLOORS) for name in names}


def test_imports_point_downwards() -> None:
    """A step back up ties layers together that are used apart: by a script, by a notebook, by a test."""
    packages = {".".join(module.split(".")[:2]) for module in IMPORTS} - {"train", "spectro"}
    assert packages == FLOOR_OF.keys()
    wrong = set()
    for module, names in IMPORTS.items():
        package = ".".join(module.split(".")[:2])
        if package in FLOOR_OF:
            others = {".".join(name.split(".")[:2]) for name in names if below(name, "spectro")} - {package, "spectro"}
            ground = {"spectro.paths", "spectro.errors", "spectro.progress"} if FLOOR_OF[package] == 0 else set()
            wrong |= {(module, o) for o in others - ground if FLOOR_OF.get(o, -1) >= FLOOR_OF[package]}
    assert wrong == set()


def test_every_form_of_import_is_seen() -> None:
    """A test of the tests above: an import that they overlook would not be held."""
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    import i\n    from j.k import l\n    importlib.import_module(f'm.{n}')\n"
        "if TYPE_CHECKING:\n    import never\n"
    )
    seen = set(imports(HOME / "spectro" / "data" / "new.py", source))
    absolute = {"a.b", "c", "c.d", "i", "j.k", "j.k.l", "m"}
    assert seen == absolute | {"spectro.data", "spectro.data.e", "spectro.f", "spectro.f.g"}


def test_every_module_has_a_docstring_and_its_variables_name_things() -> None:
    """The first line of a module tells what it is for; a name such as ``own`` or ``told`` names nothing."""
    grammar = {"said", "told", "judged", "wanted", "own", "its", "kept"}
    for module, source in SOURCES.items():
        tree = ast.parse(source)
        assert ast.get_docstring(tree), module
        names = {node.arg if isinstance(node, ast.arg) else getattr(node, "id", "") for node in ast.walk(tree)}
        assert names & grammar == set(), module


# Step by step in one process: what is imported, and what may not be there after it.
STEPS = [
    ("import spectro.evaluation", (*HEAVY, "scipy", "hydra", "omegaconf")),
    ("import spectro, spectro.classifiers, spectro.cli.help, spectro.paths, spectro.tracking", HEAVY),
    ("sys.argv = ['train.py', '--help']; runpy.run_path('train.py', run_name='__main__')", HEAVY),
    ("sys.argv = ['spectro']; from spectro.cli.commands import main; main()", HEAVY),
    ("from spectro.cli.main import composed; composed([])", set(HEAVY) - {"sklearn"}),
    ("from spectro import predict_files", set(HEAVY) - {"sklearn"}),
]


def test_what_is_not_used_is_not_imported() -> None:
    """torch, timm and mlflow cost seconds each; help must be there at once. Garbage is collected afterwards."""
    code = (
        "import contextlib, gc, runpy, sys\n"
        f"for code, heavy in {STEPS}:\n"
        "    with contextlib.suppress(SystemExit): exec(code)\n"
        "    print(code, gc.isenabled(), [name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()) == (0, [f"{step} True []" for step, _ in STEPS])
