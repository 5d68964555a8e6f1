"""A configuration is right as a whole or refused with one message: the dotted key, what was found, what is allowed."""

import itertools
import re
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from spectro.classifiers import HogSvmClassifier
from spectro.cli import main as cli
from spectro.cli.explain import explain
from spectro.cli.help import groups, knobs, options
from spectro.config.check import model_names
from spectro.errors import ConfigError, SpectroError
from spectro.paths import CONF

FOLDER = ["data=folder", "data.root=images"]
# What an option needs beside itself to be a whole configuration.
COMPANIONS = {
    "data=folder": ["data.root=images"],
    "mapping=identity": ["cascade_stage=flat"],
}


def message(*overrides: str) -> str:
    """What a person is told about wrong overrides."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  Hydra, OmegaConf and the checks raise types of their own
        cli._check_before_hydra_makes_folders(list(overrides))
    told = explain(caught.value, list(overrides))
    assert told is not None, f"a traceback: {caught.value!r}"
    return told


def every_option() -> list[str]:
    return [f"{group}={option}" for group in groups() for option in options(group)]


def test_every_group_of_the_defaults_list_is_shown_by_help() -> None:
    """A group that help does not find would be one that nobody finds."""
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"}
    assert set(groups()) <= folders
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    own = {key for entry in defaults if isinstance(entry, dict) for key in entry if not key.startswith("override ")}
    assert set(groups()) == own


@pytest.mark.parametrize("option", every_option())
def test_every_option_composes_and_is_valid(option: str) -> None:
    """A broken option would be found by a user only."""
    config = cli.composed([option, *COMPANIONS.get(option, [])])
    group, _, name = option.partition("=")
    if group in ("model", "cascade_stage"):
        assert getattr(config.common, group).name == name


@pytest.mark.parametrize(
    ("model", "stage", "augmentation"),
    list(itertools.product(model_names(), options("cascade_stage"), options("augmentation"))),
)
def test_models_stages_and_augmentations_go_together(model: str, stage: str, augmentation: str) -> None:
    """An option that brings keys of its own must fit beside every option of the other groups."""
    config = cli.composed([f"model={model}", f"cascade_stage={stage}", f"augmentation={augmentation}"])
    assert (config.common.model.name, config.stage) == (model, stage)
    assert set(config.classifiers) == ({"easy", "hard"} if stage == "full" else {stage})


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.relative_to(CONF).as_posix())
def test_every_knob_has_a_help_line(path: Path) -> None:
    """A knob without a comment would be missing from ``--help``."""
    if {"hydra", "experiment", "sweeper"} & set(path.relative_to(CONF).parts):
        return  # recipes and searches set knobs that have their line where they belong
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    commented = {key for key, _, _ in knobs(path)}

    def leaves(node: object, prefix: str = "") -> list[str]:
        if prefix in commented or not isinstance(node, dict) or not node:
            return [prefix]
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}.{key}".lstrip("."))]

    # What an option is called and what Hydra reads itself is no knob.
    skipped = r"(defaults|hydra)(\..*)?|((model|cascade_stage)\.)?name|model\.family|(data\.)?kind"
    missing = [key for key in leaves(content) if key not in commented and not re.fullmatch(skipped, key)]
    assert not missing, f"{path.name}: no comment behind {', '.join(missing)}"


@pytest.mark.parametrize("option", every_option())
def test_every_option_has_a_help_line(option: str) -> None:
    """The list of options is read from the first comment of each file."""
    group, _, name = option.partition("=")
    assert len(options(group)[name]) > 10


def test_demo_lake_brings_its_mapping_and_the_command_line_still_wins() -> None:
    """The lake's images under the field crew's mapping would be refused folder by folder."""
    assert cli.composed(["data=demo_lake"]).common.mapping.name == "lake"
    assert cli.composed(["data=demo_lake", "mapping=identity", "cascade_stage=flat"]).common.mapping.name == "identity"


def test_a_knob_holds_for_both_stages_and_one_stage_can_differ() -> None:
    """``stages.hard.svm.C=3`` must reach the hard stage and nothing else."""
    config = cli.composed(["svm.C=2", "stages.hard.svm.C=3", "stages.hard.hog.cell_px=16"])
    easy, hard = (config.classifiers[stage] for stage in ("easy", "hard"))
    assert isinstance(hard, HogSvmClassifier)
    assert (easy.C, hard.C) == (2.0, 3.0)
    assert (easy.cell_px, hard.cell_px) == (8, 16)
    assert hard.gamma == easy.gamma == "1.0x"
    assert config.estimator().hard.C == 3.0
    assert config.raw["stages"] == {"easy": {}, "hard": {"svm": {"C": 3}, "hog": {"cell_px": 16}}}


def test_another_family_for_one_stage_starts_from_its_own_defaults() -> None:
    """``svm.C=2`` is about the model named by ``model``; a stage with a model of its own does not inherit it."""
    config = cli.composed(["stages.hard.model=hog_svm", "stages.hard.svm.C=5"])
    assert config.classifiers["hard"].C == 5


def test_several_groups_of_look_alikes_and_the_one_that_is_fitted() -> None:
    groups = "mapping.look_alikes={onset: [p, s], other: [q, r]}"
    two = cli.composed(["mapping=identity", groups, "objective=hard/other/val/accuracy"])
    assert set(two.estimator().look_alikes) == {"onset", "other"}
    one = cli.composed(["mapping=identity", groups, "cascade_stage=hard", "cascade.group=other"])
    assert one.group == "other"


def test_labels_of_any_alphabet_pass() -> None:
    """Labels are folder names: text with spaces, brackets and dots."""
    labels = ["brak_Empty zone", "шум", "a[1].b"]
    mapping = cli.composed(["mapping=identity", f"mapping.look_alikes={{m: {labels}}}"]).common.mapping
    assert mapping.look_alikes == {"m": labels}


def test_a_group_of_a_mapping_can_be_replaced() -> None:
    """As the message about an unknown group says."""
    take, add = "~mapping.look_alikes.noise_combined", "+mapping.look_alikes.m=[noise_DNS,brak_Station]"
    assert cli.composed([take, add]).common.mapping.look_alikes == {"m": ["noise_DNS", "brak_Station"]}


def test_plugins_of_the_current_folder_are_imported_before_anything_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user's module registers must be there when the other keys are checked."""
    (tmp_path / "users_plugin.py").write_text("import sys\nsys.plugin_was_imported = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "plugin_was_imported", False, raising=False)
    assert cli.composed(["plugins=[users_plugin]"]).common.plugins == ["users_plugin"]
    assert sys.plugin_was_imported


WRONG: list[tuple[list[str], list[str]]] = [
    # Keys that are not there.
    (["svm.c=1"], ["svm.c: unknown key", "model=hog_svm", "got 1", "gamma", "did you mean svm.C?"]),
    (["+svm.c=1"], ["svm.c: unknown key", "got 1", "did you mean svm.C?"]),
    (["svm={c: 1}"], ["svm.c: unknown key", "did you mean svm.C?"]),
    (["svm.C.x=1"], ["svm.C.x: unknown key"]),
    (["sed=1"], ["sed: unknown key", "did you mean seed?"]),
    (["+foo=1"], ["foo: unknown key", "got 1", "svm"]),
    (["modell=hog_svm"], ["modell: unknown key", "did you mean model?"]),
    (["vpt.variant=deep"], ["vpt.variant: unknown key under model=hog_svm", "got deep", "svm"]),
    (["data.split.val=0.3"], ["data.split.val: unknown key under data=demo", "got 0.3"]),
    (["cascade.gate=hard", "cascade_stage=flat"], ["cascade.gate", "cascade belongs to cascade_stage=full"]),
    (["cascade.gate=hard", "cascade_stage=hard"], ["cascade.gate: unknown key under cascade_stage=hard", "group"]),
    (
        ["augmentation=none", "augmentation.exclude={x: [double_l]}"],
        ["augmentation.exclude.x: got 'double_l'; allowed: original"],
    ),
    (["hydra.foo=1"], ["hydra.foo: unknown key", "--cfg hydra"]),
    (
        ["mapping.look_alikes={m: [a, b]}"],
        ["mapping.look_alikes.m: unknown key under mapping=field", "+mapping.look_alikes.m=", "noise_combined"],
    ),
    (["stages.hard.svm.c=3"], ["stages.hard.svm.c: unknown key", "did you mean stages.hard.svm.C?"]),
    (["stages.hard.seed=3"], ["stages.hard.seed: unknown key", "got 3", "svm"]),
    (["stages.hard.vpt.variant=deep"], ["stages.hard.vpt", "model=hog_svm"]),
    (["stages.medium.svm.C=3"], ["stages.medium: got 'medium'", "'easy' or 'hard'"]),
    # Options that are not there.
    (["model=nope"], ["model: got 'nope'", "allowed: ", "hog_svm"]),
    (["mapping=nope"], ["mapping: got 'nope'", "field, identity, lake, reduced"]),
    (["mapping=5"], ["mapping: got '5'", "field, identity, lake, reduced"]),
    (["data=null"], ["data: got 'null'", "demo, demo_lake, folder"]),
    (["cascade_stage=half"], ["cascade_stage: got 'half'", "easy, flat, full, hard"]),
    (["hydra/launcher=nope"], ["hydra/launcher: got 'nope'", "basic"]),
    (["model.name=nope"], ["model.name: got 'nope'", "hog_svm"]),
    (["model.family=nope"], ["model.family: got 'nope'", "hog_svm"]),
    (["model.family=cascade"], ["model.family: got 'cascade'"]),
    (["stages.hard.model=nope"], ["stages.hard.model: got 'nope'", "hog_svm"]),
    (
        ["plugins=[no_such.module]"],
        ["plugins: got 'no_such.module'", "cannot be imported", "No module named 'no_such'"],
    ),
    (["plugins=5"], ["plugins: got 5; allowed: list"]),
    # Wrong types.
    (["svm.C=abc"], ["svm.C: got 'abc'; allowed: number"]),
    (["svm.C=true"], ["svm.C: got true; allowed: number"]),
    (["svm.C=null"], ["svm.C: got null; allowed: number"]),
    (["seed=1.5"], ["seed: got 1.5; allowed: integer"]),
    (["svm.gamma=[1]"], ["svm.gamma: got [1]; allowed: number or string"]),
    (["svm=5"], ["svm: got 5", "kernel"]),
    (["stages.hard=3"], ["stages.hard: got 3", "dictionary"]),
    (["mapping.left_out=x"], ["mapping.left_out: got 'x'; allowed: list"]),
    (["mapping.left_out=[5]"], ["mapping.left_out.0: got 5; allowed: string"]),
    (["augmentation.exclude={5: [double_l]}"], ["augmentation.exclude.5: got 5; allowed: string"]),
    (["data.kind=foo"], ["data.kind: got 'foo'; allowed: 'demo', 'folder'"]),
    (["tracking.uri=5"], ["tracking.uri: got 5; allowed: string"]),
    # Out of range.
    (["svm.C=-1"], ["svm.C: got -1; allowed: greater than 0"]),
    (["svm.C=inf"], ["svm.C: got inf; allowed: a finite number"]),
    (["svm.C=nan"], ["svm.C: got nan; allowed: "]),
    (["stages.hard.svm.C=-3"], ["stages.hard.svm.C: got -3; allowed: greater than 0"]),
    (["svm.gamma=0x"], ["svm.gamma: got '0x'; allowed: a positive number", "1.0x"]),
    (["svm.gamma=abc"], ["svm.gamma: got 'abc'; allowed: a positive number"]),
    (["hog.cell_px=500"], ["hog.cell_px: got 500; allowed: "]),
    (["hog.cell_px=100"], ["hog.cell_px: got 100", "hog.block_cells=2", "at most hog.size_px=128"]),
    (["pca.variance=1.5"], ["pca.variance: got 1.5; allowed: less than or equal to 1"]),
    (["seed=-1"], ["seed: got -1; allowed: greater than or equal to 0"]),
    (["seed=4294967296"], ["seed: got 4294967296; allowed: less than 4294967296"]),
    (["data.scale=0"], ["data.scale: got 0; allowed: greater than 0"]),
    (["data.scale=1e9"], ["data.scale: got 1000000000.0; allowed: less than or equal to 1000"]),
    (["data.crop.left=-1"], ["data.crop.left: got -1"]),
    (["data.on_bad_file=ignore"], ["data.on_bad_file: got 'ignore'; allowed: 'error' or 'skip'"]),
    ([*FOLDER, "data.split.val=2"], ["data.split.val: got 2; allowed: less than 1"]),
    (
        [*FOLDER, "data.split.val=0.9", "data.split.test=0.5"],
        ["data.split: got val 0.9 and test 0.5; allowed: a sum below 1"],
    ),
    (["augmentation.exclude={x: [double_q]}"], ["augmentation.exclude.x: got 'double_q'", "double_l"]),
    (
        ["augmentation=mirror", "augmentation.exclude={x: [double_l]}"],
        ["augmentation.exclude.x: got 'double_l'; allowed: original, mirrored"],
    ),
    # Nothing where something must be.
    (["data.root=images"], ["data.root: unknown key under data=demo (got images)", "root belongs to data=folder"]),
    (["data=folder"], ["data.root: got nothing; it must be given, e.g. data.root="]),
    (["data=folder", "data.root="], ["data.root: got ''; allowed: at least 1 character"]),
    (["~seed"], ["seed: got nothing; it must be given"]),
    (["data.demo_dir=${nope}"], ["data.demo_dir: ", "'nope'"]),
    # Keys that contradict each other.
    (["mapping=identity"], ["mapping.look_alikes: got none", "cascade_stage=full", "cascade_stage=flat"]),
    (["mapping=identity", "cascade_stage=hard"], ["mapping.look_alikes: got none", "cascade_stage=hard"]),
    (
        ["mapping.look_alikes.noise_combined=[noise_DNS,wind]"],
        ["mapping.look_alikes.noise_combined: got 'wind'; allowed: brak_Empty zone, brak_Station, noise_DNS"],
    ),
    (
        ["mapping.look_alikes.noise_combined=[noise_DNS]"],
        ["mapping.look_alikes.noise_combined: got ['noise_DNS']", "two or more"],
    ),
    (["mapping.classes.noise_DNS=[]"], ["mapping.classes.noise_DNS", "at least one"]),
    (["mapping.classes.noise_DNS=[brak_Station]"], ["mapping.classes.noise_DNS", "already makes"]),
    (["objective=test/macro_f1"], ["objective: got 'test/macro_f1'; allowed: val/macro_f1", "hard/val", "null"]),
    (
        ["objective=easy/val/macro_f1", "cascade_stage=flat"],
        [
            "objective: got 'easy/val/macro_f1'; allowed: val/macro_f1, ",
            "val/balanced_accuracy, val/hard_pair_f1",
        ],
    ),
    (["stages.hard.svm.C=3", "cascade_stage=easy"], ["stages.hard: got svm", "cascade_stage=easy: stages.easy"]),
    (["stages.easy.svm.C=3", "cascade_stage=flat"], ["stages.easy: got svm", "cascade_stage=flat: none"]),
    (["cascade_stage=hard", "cascade.group=x"], ["cascade.group: got 'x'; allowed: noise_combined"]),
    (
        ["mapping=identity", "mapping.look_alikes={a: [p, s], b: [q, r]}", "cascade_stage=hard"],
        ["cascade.group: got null; allowed with cascade_stage=hard: a, b"],
    ),
    # Not Hydra's grammar.
    (["svm.C=["], ["svm.C: got '['; allowed: KEY=VALUE", "quotes"]),
    (["svm.C=1,2"], ["svm.C: got '1,2'; allowed: one value", "--multirun"]),
    (["svm.C=choice(1,2)"], ["svm.C: got 'choice(1,2)'; allowed: one value", "--multirun"]),
    ([*FOLDER[:1], "data.root=/данные"], ["data.root: got '/данные'", "quotes"]),
    (["svm.C"], ["svm.C: got ''; allowed: KEY=VALUE"]),
    (["=5"], ["got '=5'; allowed: KEY=VALUE"]),
]


@pytest.mark.parametrize(("overrides", "parts"), WRONG, ids=[" ".join(overrides) for overrides, _ in WRONG])
def test_what_is_wrong_is_named(overrides: list[str], parts: list[str]) -> None:
    """A message without the key, the value found or what is allowed leaves the user to guess."""
    told = message(*overrides)
    assert told.count("\n") == 0
    for part in parts:
        assert part in told


def test_a_section_that_another_model_brings_is_said_to_be_its() -> None:
    """Who sets ``vpt.variant`` under another model must learn which model it belongs to."""
    told = message("vpt.variant=deep")
    if "deit_vpt" in model_names():
        assert "vpt belongs to model=deit_vpt" in told


def test_each_wrong_key_has_its_own_line() -> None:
    """Who made three mistakes should not need three starts to learn of them."""
    lines = message("svm.C=-1", "svm.tol=0", "hog.cell_px=abc").splitlines()
    assert [line.split(":")[0] for line in lines] == ["hog.cell_px", "svm.C", "svm.tol"]


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """``data.root=~/records`` reaches us as it is typed: no shell opens it, and Hydra's grammar refuses it."""
    monkeypatch.setattr("sys.argv", ["train.py", "data=folder", "data.root=~/records", "outputs=~", "--help"])
    cli.main(lambda: None)
    assert sys.argv[2:4] == [f"data.root={Path.home()}/records", f"outputs={Path.home()}"]


def test_a_run_directory_is_claimed_at_once(tmp_path: Path) -> None:
    """Two runs of one second must not write into one folder; one run asks for its folder several times."""
    wanted = str(tmp_path / "runs" / "2026-01-01_00-00-00_hog_svm_full")
    first = cli.free_dir(wanted)
    assert cli.free_dir(wanted) == first == wanted
    cli._claimed.clear()  # as in another process
    assert cli.free_dir(wanted) == f"{wanted}_2"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [Path(wanted).name, f"{Path(wanted).name}_2"]


@pytest.mark.parametrize("spelling", ["{}", "'{}'", "${{outputs}}/old"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path, spelling: str) -> None:
    """A result must never be written over, however the folder is spelled."""
    old = tmp_path / "old"
    old.mkdir()
    cli._check_before_hydra_makes_folders([f"outputs={tmp_path}", f"hydra.run.dir={spelling.format(old)}"])
    (old / "run.json").write_text("{}")
    told = message(f"outputs={tmp_path}", f"hydra.run.dir={spelling.format(old)}")
    assert told == f"hydra.run.dir: got {str(old)!r}, which holds a run; allowed: a new folder"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seed=0,1", "svm.c=1"], "svm.c: unknown key under model=hog_svm"),
        (["svm.C=1,2,0", "seed=0,1"], "svm.C: got 0; allowed: greater than 0"),
        (["svm.C=range(-1,100)"], "svm.C: got -1; allowed: greater than 0"),
        (["model=hog_svm,nope"], "model: got 'nope'; allowed: "),
        (["cascade_stage=easy", "stages.hard.svm.C=1,2"], "stages.hard: got svm; allowed under cascade_stage=easy"),
        (["cascade_stage=full,flat", "mapping=field,identity"], "mapping.look_alikes: got none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_value_of_a_plain_sweep_is_checked_first(arguments: list[str], told: str) -> None:
    """A sweep must not work through the night and then meet its typing error."""
    with pytest.raises(ConfigError) as caught:
        cli._check_sweep(arguments)
    assert str(caught.value).startswith(told)


def test_a_right_sweep_passes_and_a_search_is_left_to_its_sweeper() -> None:
    cli._check_sweep(["seed=0,1,2", "svm.C=choice(1,2)", "hog.cell_px=range(8,17)"])
    cli._check_sweep(["svm.C=interval(-1,1)"])
    cli._check_sweep(["sweeper=hog_svm", "svm.C=choice(-1,1)"])


def test_a_folder_that_holds_a_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old" / "0").mkdir(parents=True)
    (tmp_path / "old" / "0" / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir: got '.*old', which holds a run; allowed: a new folder"):
        cli._check_sweep(["seed=0,1", f"hydra.sweep.dir={tmp_path}/old"])


def test_errors_that_no_user_can_mend_are_not_explained() -> None:
    """A defect of ours dressed up as a message would hide where it is."""
    assert explain(ValueError("x"), []) is None
    assert explain(KeyError("x"), []) is None
    assert explain(SpectroError("x: got 1"), []) == "x: got 1"
