"""Files that somebody else made, or that were cut on the way: they run no code, and give no wrong label in silence."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import read_rows, save_image
from omegaconf import OmegaConf
from test_network_runs import tiny

from spectro import beside, plugins, tracking
from spectro.classifiers import load
from spectro.classifiers.manifest import write_manifest
from spectro.cli import main as cli
from spectro.config.check import check
from spectro.config.groups import Groups, search_path
from spectro.errors import ConfigError, DataError, ModelError, SpectroError
from spectro.paths import CONF
from spectro.runs.predict import predict_files
from spectro.runs.runinfo import git_commit

POPEN = "{_target_: subprocess.Popen, args: [touch, OWNED]}"
HOSTILE = {
    "hydra.job.env_set": "hydra: {job: {env_set: {GIT_CONFIG_COUNT: '1'}}}",
    "hydra.callbacks": f"hydra: {{callbacks: {{x: {POPEN}}}}}",
    "hydra.job_logging": "hydra: {job_logging: {handlers: {x: {'()': subprocess.Popen, args: [touch, OWNED]}}}}",
    "hydra.launcher._target_": "hydra: {launcher: {_target_: subprocess.Popen}}",
    "hydra.run.dir": "hydra: {run: {dir: elsewhere}}",
    "hydra.sweep.dir": "hydra: {sweep: {dir: elsewhere}}",
    "hydra.sweep.subdir": "hydra: {sweep: {subdir: ../../elsewhere}}",
    "hydra.output_subdir": "hydra: {output_subdir: ../../elsewhere}",
    "hydra.searchpath": "hydra: {searchpath: ['file:///etc']}",
    "augmentation.x.transform": "augmentation: {x: {transform: subprocess.Popen, args: [touch, OWNED]}}",
    "augmentation.x.views": "augmentation: {x: {views: [owned.f]}}",
    "augmentation.x.views.0": "augmentation: {x: {views: [[owned.f]]}}",
    "augmentation.y.views": "augmentation: {y: {views: [mirrored.f]}}",
    "plugins.0": "plugins: [[owned]]",
    "plugins": "plugins: [owned]",
    "only model=owned names": "stages: {easy: {model: owned}}",
    "outputs": "outputs: elsewhere",
    "data.cache_dir": "data: {cache_dir: elsewhere}",
    "tracking.uri": "tracking: {uri: 'http://127.0.0.1:9'}",
}


OWNED = "open('OWNED', 'w').close()\ndef f(image, rng=None):\n    return image\n"


@pytest.mark.parametrize("key", HOSTILE)
def test_a_configuration_file_neither_runs_code_nor_writes_elsewhere(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A best_config.yaml comes by mail; what a user types is allowed, as only the user can."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "owned.py").write_text(OWNED)
    (tmp_path / "conf" / "best.yaml").write_text(f"defaults:\n  - config\n  - _self_\n{HOSTILE[key]}\n")
    (tmp_path / "conf" / "model").mkdir()
    (tmp_path / "conf" / "model" / "owned.yaml").write_text("# @package _global_\nplugins: [owned]\n")
    groups = Groups(search_path((), str(tmp_path / "conf")), "best")
    monkeypatch.chdir(tmp_path / "conf")
    with pytest.raises(ConfigError, match=key):
        check(groups.compose(["data=demo"]), groups)
    assert {path.name for path in tmp_path.rglob("*")} == {
        *("conf", "best.yaml", "owned.py", "model", "owned.yaml"),
    }
    typed = {
        "hydra.run.dir": "hydra.run.dir=here",
        "hydra.job.env_set": "+hydra.job.env_set.A=b",
        "outputs": "outputs=here",
        "tracking.uri": "tracking.uri=http://127.0.0.1:9",
    }
    if key in typed:
        Groups().compose([typed[key]])


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\nplugins: [owned]\nmapping: {name: theirs}",
        "# @package _global_\ntracking: {uri: 'http://127.0.0.1:9'}",
        "defaults: [{/model@_global_: owned}]\nname: theirs",
    ],
)
def test_a_mapping_sets_nothing_but_labels(text: str, tmp_path: Path) -> None:
    """A mapping passes from hand to hand: of all options of a --config-dir it is the one that others have written."""
    files = {"mapping/theirs": text, "model/owned": "plugins: [owned]", "mapping/plain": "name: a"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(content)
    groups = Groups(search_path((), str(tmp_path)))
    groups.compose(["mapping=plain", "plugins=[mine]"])
    with pytest.raises(ConfigError, match=r"mapping=theirs: m\w+/\w+ sets (plugins|tracking.uri); allowed"):
        groups.compose(["mapping=theirs"])


def test_git_runs_no_program_of_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, a fsmonitor and hooks are ways to run a program with git."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/OWNED\n")
    program.chmod(0o755)
    subprocess.run([*git, "config", "core.fsmonitor", str(program)], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(program))
    git_commit.cache_clear()
    assert len(git_commit(tmp_path) or "") == 40
    git_commit.cache_clear()
    assert not (tmp_path / "OWNED").exists()


@pytest.fixture
def run_dir(run_of: Callable[..., Path]) -> Path:
    """A finished run of a cascade."""
    return run_of()


@pytest.fixture
def model(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of its model that a test may damage."""
    return Path(shutil.copytree(run_dir / "model", tmp_path / "model"))


def damage(model: Path, file: str, change: Callable[[dict], object]) -> None:
    """Changes a JSON file of a model, and makes the list of files fit again, as an attacker would."""
    content = json.loads((model / file).read_text())
    change(content)
    (model / file).write_text(json.dumps(content))
    write_manifest(model)


CHANGES: dict[str, tuple[str, Callable[[dict], object]]] = {
    "gate": ("model.json", lambda d: d["params"].update(gate="loud")),
    "classes reversed": ("model.json", lambda d: d.update(classes=d["classes"][::-1])),
    "a class renamed": ("model.json", lambda d: d.update(classes=sorted(["new", *d["classes"][1:]]))),
    "a class doubled": ("model.json", lambda d: d.update(classes=sorted(d["classes"] + d["classes"][:1]))),
    "classes cut": ("model.json", lambda d: d.update(classes=d["classes"][1:])),
    "classes of a stage cut": ("easy/model.json", lambda d: d.update(classes=d["classes"][1:])),
    "no classes": ("model.json", lambda d: d.update(classes=[])),
    "temperature 0": ("easy/model.json", lambda d: d["fitted"].update(temperature=0)),
    "temperature below 0": ("easy/model.json", lambda d: d["fitted"].update(temperature=-1)),
    "temperature NaN": ("hard_0/model.json", lambda d: d["fitted"].update(temperature=float("nan"))),
    "crop below 0": ("use.json", lambda d: d["crop"].update(left=-3)),
    "crop of half a pixel": ("use.json", lambda d: d["crop"].update(left=2.5)),
    "other classes beside the model": ("use.json", lambda d: d.update(classes=d["classes"][1:])),
    "megapixels": ("use.json", lambda d: d.update(max_megapixels="1e9")),
    "crop of another type": ("use.json", lambda d: d.update(crop=[3])),
    "endless megapixels": ("use.json", lambda d: d.update(max_megapixels=1e308)),
    "size of images": ("easy/model.json", lambda d: d["params"].update(hog__size_px=10**9)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_values_of_a_model_are_checked(name: str, model: Path, demo_root: Path) -> None:
    """A model that loads with such a value would give other labels, or fill the memory."""
    damage(model, *CHANGES[name])
    with pytest.raises(ModelError, match="damaged"):
        predict_files(model, [demo_root / "test"])


def test_files_of_a_model_are_those_that_were_saved(model: Path) -> None:
    """An rsync that broke off, files of two models mixed: nothing in them need look wrong."""
    load(model)
    for name, message in {
        "swapped": "SHA-256",
        "cut": "SHA-256",
        "missing": "no such file",
        "added": "not a file",
    }.items():
        copy = Path(shutil.copytree(model, model.with_name(name)))
        if name == "swapped":
            (copy / "easy").rename(copy / "x")
            (copy / "hard_0").rename(copy / "easy")
            (copy / "x").rename(copy / "hard_0")
        elif name == "cut":
            content = (copy / "easy" / "pipeline.skops").read_bytes()
            (copy / "easy" / "pipeline.skops").write_bytes(content[: len(content) // 2])
        elif name == "missing":
            (copy / "hard_0" / "model.json").unlink()
        else:
            (copy / "easy" / "more.json").write_text("{}")
        with pytest.raises(ModelError, match=message):
            load(copy)


def test_weights_that_are_nan_give_no_labels(tmp_path: Path, run_here: Callable[..., Path], demo_root: Path) -> None:
    """argmax of NaN is the first class."""
    from safetensors.torch import load_file, save_file

    run_dir = run_here(
        *tiny("resnet18", f"data.demo_dir={demo_root}", "data.scale=0.1", epochs=1), "cascade_stage=flat"
    )
    path = run_dir / "model" / "network.safetensors"
    save_file({name: t * float("nan") if t.is_floating_point() else t for name, t in load_file(path).items()}, path)
    write_manifest(run_dir / "model")
    with pytest.raises(ModelError, match="NaN or infinite"):
        predict_files(run_dir / "model", [demo_root / "test"])


def test_a_table_of_predictions_is_whole(run_dir: Path, demo_root: Path, tmp_path: Path, spectro: Callable) -> None:
    """A name that is not UTF-8, a link that leads back up, a file that is no image: a row each, and exit code 3."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "up").symlink_to(images)
    shutil.copy(next((demo_root / "test").glob("*/*.png")), images / "a.png")
    shutil.copy(images / "a.png", os.fsencode(images) + b"/b\xff.png")
    (images / "bad.png").write_text("no image")
    done = spectro("predict", run_dir, images, "--out", tmp_path / "out.csv")
    assert (done.returncode, done.stderr.count("\n")) == (3, 3), done.stderr
    rows = read_rows(tmp_path / "out.csv")
    assert [row["path"].rpartition("/")[2] for row in rows] == ["a.png", "bad.png", "b\\xff.png"]
    assert [bool(row["prediction"]) for row in rows] == [True, False, True]
    assert (rows[1]["review"], rows[1]["reason"]) == ("true", "not a PNG, JPEG, TIFF, BMP or WebP image")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.csv"]


def test_a_received_run_contacts_no_server(
    run_dir: Path, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its run.json may name any server, which would get the MLflow user and password of whoever compares or resends."""
    from spectro.cli.resend import resend
    from spectro.comparison import compare
    from spectro.runs.ensemble import combine
    from spectro.runs.runinfo import RunInfo

    outputs = database.parent
    copy = Path(shutil.copytree(run_dir, outputs / "runs" / "run"))
    info = json.loads((copy / "run.json").read_text())
    info["mlflow"] |= {"tracking_uri": "http://127.0.0.1:9", "artifact_location": (tmp_path / "elsewhere").as_uri()}
    (copy / "run.json").write_text(json.dumps(info))
    assert resend([copy], outputs=outputs) == 1
    assert "not contacted unless it is named" in capsys.readouterr().out
    result, folder = compare([copy], outputs=outputs)
    assert any("http://127.0.0.1:9" in note and "--tracking-uri" in note for note in result.notes)
    assert json.loads((folder / "run.json").read_text())["mlflow"]["tracking_uri"] is None
    mean = combine([RunInfo.read(copy)] * 2, outputs=outputs)
    assert mean.mlflow.tracking_uri is None
    assert "http://127.0.0.1:9" in mean.warnings[0]
    info["mlflow"]["tracking_uri"] = f"sqlite:///{database}"
    (copy / "run.json").write_text(json.dumps(info))
    (copy / "figures").mkdir()
    (copy / "figures" / "link.png").symlink_to(CONF / "config.yaml")
    (copy / "secret").symlink_to(CONF)
    assert resend([copy], outputs=outputs) == 0
    assert not (tmp_path / "elsewhere").exists()
    sent = [path.name for path in (outputs / "mlartifacts").rglob("*")]
    assert "predictions.csv" in sent
    assert not {"link.png", "secret"} & set(sent)


@pytest.fixture(scope="module")
def kfold_run(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """A finished run that every command takes, as Hydra and `run` leave it."""
    from spectro.runs.run import run

    folder = tmp_path_factory.mktemp("foreign") / "run"
    (folder / ".hydra").mkdir(parents=True)
    config = cli.composed(
        [
            *("model=pixels", "cascade_stage=flat", "validation=kfold", "validation.k=3", "figures=none"),
            *(f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null", "tracking.uri=null"),
        ]
    )
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config.raw))
    (folder / ".hydra" / "hydra.yaml").write_text('{"hydra": {"runtime": {"cwd": "/", "config_sources": []}}}')
    run(config, folder)
    return folder


def received(run_dir: Path, folder: Path, status: str = "FINISHED", **changes: object) -> Path:
    """A copy of a run with other values in its configuration."""
    shutil.copytree(run_dir, folder)
    info = json.loads((folder / "run.json").read_text())
    info |= {"status": status, "config": info["config"] | {"outputs": str(folder.parents[1])} | changes}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(info["config"]))
    return folder


COMMANDS = {
    "compare RUN": (0, "--plugin owned"),
    "ensemble RUN RUN2": (2, "--plugin owned"),
    "train resume=RUN": (2, "plugins=[owned]"),
    "look-alikes RUN": (0, ""),
    "audit RUN --plugin owned_not": (2, "owned_not"),
    "audit RUN": (0, ""),
    "suggest RUN new": (0, ""),
    "predict RUN new": (0, ""),
    "promote RUN --name x": (2, "spectro resend"),
    "train resume=RUN plugins=[owned]": (0, "augmentation=x"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_received_run_imports_no_module_that_only_it_names(
    command: str, kfold_run: Path, spectro: Callable, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module is in the current folder, as an archive leaves it there; what the user names is imported."""
    place, status = database.parents[1], "KILLED" if "resume" in command else "FINISHED"
    monkeypatch.setattr(sys, "path", [*sys.path])
    (place / "owned.py").write_text(OWNED)
    for name in ("RUN", "RUN2"):
        changes = {"plugins": ["owned"], "augmentation": {"x": {"transform": "owned.f"}}}
        received(kfold_run, place / "outputs" / "runs" / name, status, **changes)
    save_image(place / "new" / "image.png", size=(300, 200))
    done = spectro(*command.replace("RUN", "outputs/runs/RUN").split())
    for names in (sys.modules, plugins.loaded):
        names.pop("owned", None)
    code, text = COMMANDS[command]
    assert done.returncode == code, done.stderr
    assert text in done.stdout + done.stderr
    assert (place / "OWNED").exists() == ("plugins=" in command)


@pytest.mark.parametrize(
    ("key", "value"), [("tracking.uri", "http://127.0.0.1:9"), ("outputs", "/elsewhere"), ("data.cache_dir", "/x")]
)
def test_resume_contacts_and_writes_only_what_is_of_the_project(
    key: str, value: str, kfold_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server would get the user's password; a cache of a small size would delete files."""
    from spectro.cli.resume import resume

    monkeypatch.chdir(tmp_path)  # and back, as resume goes to where the run was started
    section, _, name = key.partition(".")
    config = json.loads((kfold_run / "run.json").read_text())["config"]
    change = {section: {**config[section], name: value} if name else value}
    run_dir = received(kfold_run, tmp_path / "outputs" / "runs" / "RUN", "KILLED", **change)
    with pytest.raises(ConfigError, match=f"^{key}: got '{value}'.* typed: {key}=[^\n]*$"):
        resume([f"resume={run_dir}"])


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${free_dir:x}", "a ${nope}"])
def test_resume_takes_plain_values(value: str, run_dir: Path, tmp_path: Path) -> None:
    """A saved configuration may be anybody's, and an interpolation reads the environment."""
    from spectro.cli.resume import resume

    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    (copy / "run.json").unlink()
    (copy / ".hydra").mkdir()
    (copy / ".hydra" / "config.yaml").write_text(f"outputs: '{value}'\n")
    (copy / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {cwd: /, config_sources: []}}\n")
    with pytest.raises(ConfigError, match="allowed: plain values"):
        resume([f"resume={copy}"])


@pytest.mark.parametrize("content", ["{}", "[]", "null", "[" * 100_000 + "]" * 100_000])
def test_run_json_that_is_damaged_is_named(content: str, run_dir: Path, tmp_path: Path) -> None:
    """Each was a traceback at some time; JSON may be nested deeper than Python calls."""
    from spectro.runs.runinfo import RunInfo

    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json: damaged"):
        RunInfo.read(tmp_path)


@pytest.mark.parametrize("file", ["config.yaml", "hydra.yaml"])
@pytest.mark.parametrize("content", ["[a]", "3", "hydra: {runtime: 3}", "hydra: {runtime: {cwd: 3}}"])
def test_resume_names_a_configuration_that_is_none(file: str, content: str, tmp_path: Path) -> None:
    """A list in place of keys was a traceback."""
    from spectro.cli.resume import resume

    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {cwd: /, config_sources: [3]}}\n")
    (tmp_path / ".hydra" / file).write_text(content)
    with pytest.raises(ConfigError, match="allowed: a run directory"):
        resume([f"resume={tmp_path}"])


@pytest.mark.parametrize(
    "word",
    [
        "hydra.launcher._target_=nope.Nope",
        "hydra.sweeper._target_=nope.Nope",
        "hydra.job_logging={version: 9}",
        "+hydra.job_logging.handlers.x={class: nope.Nope}",
    ],
)
def test_what_hydra_cannot_make_is_named(word: str) -> None:
    """Hydra meets it after the folder is made, with a traceback."""
    with pytest.raises(ConfigError, match=word.lstrip("+").partition("=")[0].removesuffix(".handlers.x")):
        Groups().compose([word])


@pytest.mark.parametrize(
    "options",
    [{"act_layer": "nope"}, {"features_only": True}, {"checkpoint_path": "x.pth"}, {"pretrained_cfg": {"file": "x"}}],
)
def test_options_of_a_backbone_that_are_unusable_or_load_files(options: dict) -> None:
    """A file of weights that they name would be recorded as random ones."""
    from test_classifiers import cnn

    with pytest.raises(ConfigError, match=r"cnn\.backbone_options: got"):
        cnn().set_params(backbone_options=options).prepare()


def test_sizes_in_a_model_are_bounded_by_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model.json of two kilobytes would fill the memory."""
    import torch
    from test_classifiers import cnn, embed, toy

    real = torch.empty
    for name, make in {"cnn": cnn, "embed": embed}.items():
        given, change = {"training__epochs": 1}, {"channels": [16384] * 4}
        if make is embed:
            given, change = {}, {"embed_dim": 30000}
        make().set_params(**given).fit(*toy((3, 3, 3))).save(tmp_path / name)
        load(tmp_path / name)

        def enlarge(state: dict, change: dict = change) -> None:
            state["params"]["backbone_options"] = {**(state["params"]["backbone_options"] or {}), **change}

        def empty(*size, **options) -> torch.Tensor:
            tensor = real(*size, **options)
            assert tensor.device.type == "meta" or tensor.numel() < 10**6
            return tensor

        damage(tmp_path / name, "model.json", enlarge)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", empty)
            with pytest.raises(ModelError, match="damaged or not of this model"):
                load(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        ("cnn", {"layers": [1, 1, 1, 50000]}),
        ("embed", {"depth": 50000}),
        ("embed", {"depth": 10**9}),
        ("embed", {"grids": [1, 10**6]}),
    ],
)
def test_a_network_is_bounded_before_it_is_cut(make: str, change: dict, tmp_path: Path) -> None:
    """Blocks behind the last one that is used are in no tensor, and are built before they are cut off."""
    from test_classifiers import cnn, embed, toy

    made = {"cnn": lambda: cnn(epochs=1, stages=1, freeze=1), "embed": lambda: embed(blocks=[1])}[make]()
    made.fit(*toy((3, 3, 3))).save(tmp_path / "model")
    load(tmp_path / "model")

    def enlarge(state: dict) -> None:
        section = state["params"] if "grids" in change else state["params"]["backbone_options"]
        section.update(change)

    damage(tmp_path / "model", "model.json", enlarge)
    start = time.monotonic()
    with pytest.raises(ModelError, match="damaged or not"):
        load(tmp_path / "model")
    assert time.monotonic() - start < 10


def test_a_model_holds_the_parts_of_its_family(model: Path, run_dir: Path) -> None:
    """Any type that skops trusts loads; it would fail with a traceback, or give other labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from spectro.classifiers import sklearn_file

    path, X, y = model / "easy" / "pipeline.skops", [[0.0], [1.0]], [0, 1]
    scaler, pca, svc = sklearn_file.load(path)
    for other in (LogisticRegression().fit(X, y), make_pipeline(LogisticRegression()).fit(X, y), {"a": 1}):
        sklearn_file.save(other, path)
        write_manifest(model)
        with pytest.raises(ModelError, match="expected StandardScaler, PCA, SVC"):
            load(model)
    scaler.n_features_in_ = 7
    sklearn_file.save(make_pipeline(scaler, pca, svc), path)
    write_manifest(model)
    with pytest.raises(ModelError, match="reads 7 features"):
        load(model)


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(-1,)"])
def test_an_array_in_a_model_that_is_larger_than_the_memory(shape: str, model: Path) -> None:
    """The header of an array is text, and may state any size."""
    import zipfile

    path = model / "easy" / "pipeline.skops"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, array if name.endswith(".npy") else content)
    write_manifest(model)
    with pytest.raises(ModelError, match="damaged"):
        load(model)


TMPFS = ["unshare", "-Urm", "sh", "-c"]


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run([*TMPFS, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode != 0,
    reason="this machine lets no user mount a tmpfs",
)
@pytest.mark.parametrize(
    ("size_kb", "names", "is_there"), [(8, "/mnt/runs/", 0), (60, "records.csv", 0), (100, "resume=", 1)]
)
def test_a_disk_that_is_full_has_one_message(size_kb: int, names: str, is_there: int, demo_root: Path) -> None:
    """On a real one, whatever was written last: no traceback of the log file, no line of Hydra's, no half database."""
    train = f"{sys.executable} {CONF.parent}/train.py model=pixels data.demo_dir={demo_root} data.scale=0.1"
    if is_there:  # a run alone, which is larger than the disk
        train += f" tracking.uri=null figures=none data.cache_dir={demo_root.parent}/cache"
    script = (
        f"mount -t tmpfs -o size={size_kb}k none /mnt && {train} outputs=/mnt; e=$?; find /mnt/runs /mnt/*.new; exit $e"
    )
    done = subprocess.run([*TMPFS, script], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("note:", "find:"))]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert names in lines[0]
    assert "the disk is full" in lines[0]
    assert done.stdout.count("run.json\n") == is_there
    assert ".new" not in done.stdout


PREDICTIONS: dict[str, tuple[str, str]] = {
    "above 1": ("predictions.csv", "do not sum to 1"),
    "another label": ("records.csv", "than in records.csv"),
    "another label in val": ("records.csv", "than in records.csv"),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_comparison_believes_no_impossible_predictions(name: str, run_dir: Path, tmp_path: Path) -> None:
    """A metric of them would be a number like any other."""
    from spectro.comparison.load import read_run
    from spectro.files import read_csv, write_csv

    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    read_run(copy, "test")
    file, message = PREDICTIONS[name]
    rows = read_csv(copy / file)
    for row in rows:
        if name == "above 1":
            row[f"p_{row['predicted']}"] = "1.5"
        elif row["split"] == ("val" if "val" in name else "test"):
            row["label"] = next(other["label"] for other in rows if other["label"] != row["label"])
    write_csv(copy / file, list(rows[0]), [list(row.values()) for row in rows])
    info = json.loads((copy / "run.json").read_text())
    info["files"][file] = hashlib.sha256((copy / file).read_bytes()).hexdigest()
    (copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=message):
        read_run(copy, "test")


def test_a_spreadsheet_runs_no_cell_of_a_table(tmp_path: Path) -> None:
    """A class or a file may be named like a formula; what was escaped is read back unchanged."""
    from spectro.files import read_csv, write_csv

    texts = ["=1+1", "+a", "-a", "@a", "\ta", "'=a", "''=a", "'a", "a\rb", "a=1", "-1.5", "+1e-3", ""]
    write_csv(tmp_path / "t.csv", ["=x", "number"], [[text, -0.5] for text in texts])
    assert read_csv(tmp_path / "t.csv") == [{"=x": text, "number": "-0.5"} for text in texts]
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == ["'=x", "'=1+1", "'+a"]
    assert (lines[-3], lines[-2]) == ("-1.5,-0.5", "+1e-3,-0.5")


def test_markdown_of_a_name_loads_nothing() -> None:
    """A table.md with an image in it would contact a server wherever it is shown."""
    from spectro.evaluation.format import markdown_text

    assert markdown_text("![a](http://x) <b> [0.8, 0.9]") == "![a\\](http://x) \\<b> [0.8, 0.9]"


def test_weights_that_are_nan_or_a_program_are_named(tmp_path: Path) -> None:
    """A smaller learning rate would not help."""
    import torch
    from safetensors.torch import save_file
    from test_weights import state, tiny_cnn

    tensors = {k: t * float("nan") if t.is_floating_point() else t for k, t in state(tiny_cnn(), 3).items()}
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite"):
        tiny_cnn(weights=str(tmp_path / "nan.safetensors")).prepare()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pt")
    with pytest.raises(ModelError, match="TorchScript"):
        tiny_cnn(weights=str(tmp_path / "program.pt")).prepare()


def test_data_that_are_one_class_or_none(tmp_path: Path) -> None:
    """Every score is 1 with one class, which looks like success; and a message names what left nothing."""
    from conftest import make_tree

    from spectro.data.dataset import load_dataset
    from spectro.data.images import ImageStore
    from spectro.data.mapping import Mapping

    root = make_tree(tmp_path / "records", {"a": 6})
    assert any("one class, a" in line for line in load_dataset(root, Mapping(), store=ImageStore()).warnings)
    with pytest.raises(DataError, match=r"mapping\.left_out: got a"):
        load_dataset(root, Mapping(left_out=["a"]), store=ImageStore())


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file, or a temporary one that is sent to MLflow, would be left; the message would name no file."""
    from spectro.cli.explain import explain
    from spectro.files import is_draft, remove_drafts, write_text

    path = tmp_path / "metrics.json"
    write_text(path, "old")

    def full(draft: Path, *_: object, **__: object) -> None:
        draft.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match=r"metrics\.json") as caught:
            write_text(path, "new")
    assert str(explain(caught.value, ())).startswith(f"{path}: the disk is full")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("metrics.json", "old")]
    # A process that is killed cannot remove its file; one that lives is left alone.
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        draft = tmp_path / f".x.json.{socket.gethostname()}.{pid}.tmp"
        draft.touch()
        assert is_draft(draft)
        remove_drafts(tmp_path)
        assert draft.exists() == (pid != dead.pid)


def test_a_full_disk_after_the_end_costs_a_warning(
    run_here: Callable[..., Path], demo_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The results are there; a run that ends with an error would be fitted again."""
    from spectro.runs import run as runs

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    words = [f"data.demo_dir={demo_root}", "data.scale=0.1", "cascade_stage=flat"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "show_result", full)
        run_dir = run_here(*words)
    assert json.loads((run_dir / "run.json").read_text())["status"] == "FINISHED"
    assert "spectro resend" in caplog.text
    monkeypatch.setattr(runs, "write_predictions", full)
    with pytest.raises(SpectroError, match=r"the disk is full; .* resume="):
        run_here(*words, name="second")


def test_resume_sends_a_run_that_was_killed_while_it_was_sent(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing to fit, and its checkpoints nothing to be kept for."""
    from spectro.cli.resume import resume
    from spectro.runs.runinfo import RunInfo
    from spectro.tracking import MlflowEntry

    copy = Path(shutil.copytree(run_dir, tmp_path / "outputs" / "runs" / "run"))
    info = RunInfo.read(copy)
    uri = f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}"
    info.mlflow, info.pid = MlflowEntry.new(uri, tmp_path / "outputs"), os.getpid()
    (copy / "checkpoints").mkdir()
    (copy / ".hydra").mkdir(exist_ok=True)
    words = [f"outputs={tmp_path / 'outputs'}", f"tracking.uri={uri}", f"data.demo_dir={run_dir}"]
    config = Groups(search_path((), None)).compose(words)
    info.config = check(config).raw
    info.write()
    (copy / ".hydra" / "config.yaml").write_text(
        OmegaConf.to_yaml(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"]), resolve=True)
    )
    (copy / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {cwd: /, config_sources: []}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "send", lambda run_dir, run: replace(MlflowEntry(**run["mlflow"]), sent=True))
    monkeypatch.setattr(beside, "start", lambda work, *args: lambda: work(*args))
    saved = copy / ".hydra" / "config.yaml"
    saved.write_text((whole := saved.read_text()).replace("\nseed: 0", "\nseed: 1"))
    with pytest.raises(ConfigError, match=r"config\.yaml: damaged: seed: got 1; allowed: 0"):
        resume([f"resume={copy}"])
    saved.write_text(whole)
    resume([f"resume={copy}"])
    assert RunInfo.read(copy).mlflow.sent
    assert not (copy / "checkpoints").exists()


def test_a_lock_that_is_held_has_a_limit_and_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A run would wait without a word; in a folder where no file can be made, for ever."""
    from filelock import FileLock

    from spectro import files

    with FileLock(tmp_path / "x.lock"), pytest.raises(TimeoutError, match=r"x\.lock has been held"):  # noqa: SIM117
        with files.locked(tmp_path / "x.lock", 0.01):
            pass
    with pytest.raises(OSError), files.locked(Path("/proc/x.db.lock")):  # noqa: PT011
        pass
    monkeypatch.setattr(files, "WAIT_S", 0.05)
    held = (tmp_path / "x.lock").open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.3, held.close).start()
    with files.locked(tmp_path / "x.lock"):
        assert "waiting for another process" in capsys.readouterr().out


def test_a_server_that_is_away_costs_one_warning_for_a_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred trials would give a hundred lines, and wait for the server a hundred times."""
    from spectro import tracking
    from spectro.runs.runinfo import RunInfo

    entry = tracking.MlflowEntry(tracking_uri="http://127.0.0.1:9")
    for name, parent in {".": None, "0": "..", "1": ".."}.items():
        folder = tmp_path / "s" / name
        folder.mkdir(parents=True, exist_ok=True)
        info = RunInfo.start(folder, run_name=name, experiment="e", parent=parent, mlflow=entry)
        info.write()
        assert not tracking.open_run(folder, info.content()).sent
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.endswith(f"spectro resend {tmp_path / 's'}")
