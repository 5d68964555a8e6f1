"""A configuration is valid as a whole or refused with one message: the dotted key, the value, what is allowed."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from spectro.classifiers import HogSvmClassifier
from spectro.cli import main as cli
from spectro.cli.explain import explain
from spectro.cli.help import knobs
from spectro.cli.job import result_folder, run
from spectro.cli.multirun import multirun
from spectro.config import schema
from spectro.config.groups import groups_on, search_path
from spectro.errors import ConfigError, SpectroError
from spectro.runs.runinfo import RunInfo

GROUPS = groups_on(*search_path())
# What an option needs beside itself to be a whole configuration.
COMPANIONS = {
    "validation=leave_one_group_out": ["data.group='_([0-9]+)'"],
    "data=folder": ["data.root=images"],
    "data=table": ["data.table=labels.csv"],
    "mapping=lake": ["data=demo_lake"],
    "mapping=reduced": ["data=demo_lake"],
    "sweeper=deit_vpt": ["model=deit_vpt"],
    "sweeper=resnet18": ["model=resnet18"],
}


def message(*words: str) -> str:
    """The message about an invalid command line."""
    with pytest.raises(ConfigError) as caught:
        run(groups_on(*search_path(words)), words, lambda *_: pytest.fail("a run was started"))
    return str(caught.value)


def every_option() -> list[str]:
    return [f"{group}={option}" for group in GROUPS.composition().choices for option in GROUPS.options(group)]


@pytest.fixture
def users_conf(tmp_path: Path) -> Path:
    """A user's own configuration directory with an option of ``model`` and one of ``mapping``."""
    folder = tmp_path / "my conf"
    for name, text in {
        "model/mine.yaml": "# @package _global_\n# My SVM\nmodel: {name: mine, family: hog_svm}\nsvm: {C: 7.0}\n",
        "mapping/mine.yaml": "# My labels\nname: mine\nlook_alikes:  # my groups\n  m: [noise_DNS, brak_Station]\n",
        "mapping/alike.yaml": "# My folders\nclasses: {a: [a], b: [b1, b2], c: [c]}\nlook_alikes: {ab: [a, b]}\n",
        "data/survey.yaml": "# My survey\ndefaults: [folder]\nroot: images\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["svm.C=3"], "hog_svm full (C=3) seed 0"),
        (["model=hog_svm", "stages.easy.svm.C=3", "validation=kfold"], "(easy.svm.C=3, validation=kfold) seed 0"),
        (
            ["cascade_stage=flat", "svm.C=3", "svm.gamma=1x", "hog.sqrt=true", "pca.variance=0.5"],
            "hog_svm flat (C=3, gamma=1x, sqrt=true, 1 more) seed 0",
        ),
        (["data=demo_lake", "seed=3", "augmentation=none"], "hog_svm full (augmentation=none) seed 3"),
        (["data=folder", "data.root=images", "data.crop.left=9"], "hog_svm flat (crop=9/0/0/0) seed 0"),
        (["validation=kfold", "validation.k=3", "cascade.gate=hard"], "(gate=hard, validation=kfold, k=3) seed 0"),
    ],
)
def test_a_run_is_named_by_what_differs_from_the_defaults(words, name, tmp_path):
    """Two runs of other settings with one name cannot be distinguished in MLflow."""
    assert RunInfo.of(cli.composed(words), tmp_path).run_name.endswith(name)


@pytest.mark.parametrize("option", every_option())
def test_every_option_composes_and_is_valid(option: str) -> None:
    """A broken option would be found by a user only."""
    cli.composed([option, *COMPANIONS.get(option, [])])


@pytest.mark.parametrize("stage", GROUPS.options("cascade_stage"))
@pytest.mark.parametrize("model", ["pixels", "deit_vpt_grid"])
def test_models_and_stages_go_together(model: str, stage: str) -> None:
    """An option that brings few or many keys of its own must fit beside every option of the other groups."""
    config = cli.composed([f"model={model}", f"cascade_stage={stage}", "augmentation=none"])
    # The demo's mapping names look-alikes.
    stage = stage.replace("auto", "full")
    assert (config.model, config.stage) == (model, stage)
    assert set(config.classifiers) == ({"easy", "hard"} if stage == "full" else {stage})


@pytest.mark.parametrize("option", [o for o in every_option() if o.split("=")[0] not in ("experiment", "sweeper")])
def test_every_knob_and_option_has_a_help_line(option: str) -> None:
    """A knob without a comment would be missing from ``--help``."""
    composition = GROUPS.composition([option])
    commented = {k for path, section in composition.files for k, _, c in knobs(GROUPS.text(path), section) if c}
    # The name of an option, and what Hydra reads itself.
    names = {"data.kind", "model.family", *(f"{group}.name" for group in composition.choices)}
    keys = {k for k in GROUPS.keys(composition.files) if not k.startswith(("hydra.", "stages."))} - names
    assert {k for k in keys if not any(f"{k}.".startswith(f"{c}.") for c in commented)} == set()


def test_defaults_of_yaml_and_python_are_equal() -> None:
    """A default that is declared twice must not drift apart."""
    default, kfold, search = (
        cli.composed([*words]).common for words in ((), ("validation=kfold",), ("hydra/sweeper=study",))
    )
    assert (default.seed, default.outputs, default.objective) == (0, "outputs", "val/macro_f1")
    assert (default.tracking, default.data) == (schema.TrackingKnobs(), schema.DemoKnobs())
    assert (default.cascade_stage, default.validation) == (schema.StageKnobs(), schema.HoldoutKnobs())
    assert (kfold.validation, search.sweep) == (schema.KFoldKnobs(), schema.SweepKnobs())
    assert cli.composed(["data=folder", "data.root=images"]).common.data == schema.FolderKnobs(root="images")


def test_demo_lake_brings_its_mapping_and_the_command_line_still_wins() -> None:
    """The lake's images under the field crew's mapping would be refused folder by folder."""
    assert cli.composed(["data=demo_lake"]).mapping.name == "lake"
    assert cli.composed(["data=demo_lake", "mapping=identity"]).mapping.name == "identity"


@pytest.mark.parametrize(
    ("words", "stage", "augmentation"),
    [
        (["data=folder", "data.root=x"], "flat", "none"),
        (["data=table", "data.table=x"], "flat", "none"),
        (["data=folder", "data.root=x", "mapping.look_alikes={m: [a, b]}"], "full", "none"),
        (["data=folder", "data.root=x", "mapping.look_alikes={m: [a, b]}", "cascade_stage=flat"], "flat", "none"),
        (["data=folder", "data.root=x", "mapping=alike", "augmentation=mirror"], "full", "mirror"),
        (["data=survey", "data.split.seed=3"], "flat", "none"),
        (["data=survey", "mapping=alike"], "full", "none"),
        (["mapping=identity"], "flat", "mirror_halves"),
        (["data=folder", "data.root=x", "experiment=original_cnn", "mapping=alike"], "full", "mirror_halves"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_own_data_bring_what_fits_them_and_look_alikes_a_cascade(
    users_conf: Path, words: list[str], stage: str, augmentation: str
) -> None:
    """Mirrored spectrograms are wrong images; and nobody should have to type three overrides to get none."""
    config = cli.composed([f"hydra.searchpath=['file://{users_conf}']", *words])
    assert (config.stage, config.common.augmentation.label) == (stage, augmentation)
    # What resume and MLflow read has the stage itself.
    assert config.raw["cascade_stage"]["name"] == stage
    assert config.raw.get("cascade", {}).get("gate") == (None if stage == "flat" else config.estimator().gate)


def test_a_knob_holds_for_both_stages_and_one_stage_can_differ() -> None:
    """``stages.hard.svm.C=3`` must reach the hard stage and nothing else, a model of the stage's no other's knobs."""
    config = cli.composed(["svm.C=2", "stages.hard.svm.C=3", "stages.hard.hog.cell_px=16"])
    assert config.raw["stages"] == {"easy": {}, "hard": {"svm": {"C": 3}, "hog": {"cell_px": 16}}}
    easy, hard = (config.classifiers[stage] for stage in ("easy", "hard"))
    assert isinstance(hard, HogSvmClassifier)
    assert (easy.C, hard.C) == (2.0, 3.0)
    assert (easy.cell_px, hard.cell_px) == (32, 16)
    config = cli.composed(["model=pixels", "pixels.C=2", "stages.hard.model=hog_svm", "stages.hard.svm.C=5"])
    assert (config.classifiers["easy"].C, config.estimator().hard.C) == (2, 5)


def test_several_groups_of_look_alikes_and_the_one_that_is_fitted() -> None:
    """``cascade.group`` chooses, and each group has a hard stage of its own in the objective."""
    look_alikes = "mapping.look_alikes={onset: [p, s], other: [q, r]}"
    two = cli.composed(["mapping=identity", look_alikes, "objective=hard/other/val/accuracy"])
    assert set(two.estimator().look_alikes) == {"onset", "other"}
    assert cli.composed(["mapping=identity", look_alikes, "cascade_stage=hard", "cascade.group=other"]).group == "other"


def test_groups_of_a_mapping_are_added_and_replaced_with_labels_of_any_alphabet() -> None:
    """Labels are folder names, text with spaces, brackets and dots."""
    labels = ["brak_Empty zone", "шум", "a[1].b"]
    mapping = cli.composed(["mapping=identity", f"mapping.look_alikes={{m: {labels}}}"]).mapping
    assert mapping.look_alikes == {"m": labels}
    take, add = "~mapping.look_alikes.noise_combined", "+mapping.look_alikes.m=[noise_DNS,brak_Station]"
    assert cli.composed([take, add]).mapping.look_alikes == {"m": ["noise_DNS", "brak_Station"]}


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


def test_options_of_a_users_directory_work_like_built_in_ones(users_conf: Path) -> None:
    """A model of one's own must not need a change in the package."""
    path = f"hydra.searchpath=['file://{users_conf}']"
    config = cli.composed([path, "model=mine", "mapping=mine", "stages.hard.model=mine", "stages.hard.svm.gamma=3"])
    assert (config.mapping.name, config.classifiers["easy"].C, config.classifiers["hard"].C) == ("mine", 7, 7)
    assert cli.composed([path, "stages.hard.model=mine"]).classifiers["hard"].C == 7
    # Files are read once in a process; in a notebook one is edited.
    file = users_conf / "model" / "mine.yaml"
    file.write_text(file.read_text().replace("7.0", "75.0"))
    assert cli.composed([path, "model=mine"]).classifiers["easy"].C == 75
    assert "mine" in message(path, "model=nope")
    assert "mine" in message(path, "stages.hard.model=nope")
    assert "under model=mine" in message(path, "model=mine", "svm.c=3")


INVALID: list[tuple[str, list[str]]] = [
    # Unknown keys.
    ("svm.c=1", ["svm.c: unknown key", "model=hog_svm", "got 1", "gamma", "did you mean svm.C?"]),
    ("+mapping.foo=1", ["mapping.foo: unknown key", "got 1", "classes, left_out, look_alikes, name"]),
    ("svm={c: 1}", ["svm.c: unknown key", "did you mean svm.C?"]),
    ("svm.C.x=1", ["svm.C.x: unknown key"]),
    ("+seeed=1", ["seeed: unknown key", "svm, tracking", "did you mean seed?"]),
    ("vpt.variant=deep", ["vpt.variant: unknown key under model=hog_svm", "got deep", "vpt belongs to model=deit_vpt"]),
    (
        "data.root=images",
        ["data.root: unknown key under data=demo (got images)", "root belongs to data=folder or data=table"],
    ),
    (
        "cascade.gate=hard cascade_stage=flat",
        ["cascade.gate", "cascade belongs to cascade_stage=auto or cascade_stage=full"],
    ),
    ("cascade.gate=hard cascade_stage=hard", ["cascade.gate: unknown key under cascade_stage=hard", "group"]),
    ("hydra.foo=1", ["hydra.foo: unknown key", "--cfg hydra"]),
    ("mapping.look_alikes={m: [a, b]}", ["look_alikes.m: unknown key under mapping=field", "+mapping.look_alikes.m="]),
    ("stages.hard.svm.c=3", ["stages.hard.svm.c: unknown key", "did you mean stages.hard.svm.C?"]),
    ("stages.medium.svm.C=3", ["stages.medium: got 'medium'", "'easy' or 'hard'"]),
    # Unknown options.
    ("model=hog", ["model: got 'hog'", "allowed: deit_vpt, deit_vpt_grid"]),
    ("data=null", ["data: got 'null'", "demo, demo_lake, folder, table"]),
    ("model.name=nope", ["model.name: got 'nope'", "hog_svm"]),
    ("model.family=cascade", ["model.family: got 'cascade'"]),
    ("stages.hard.model=nope", ["stages.hard.model: got 'nope'", "hog_svm"]),
    ("plugins=[no_such.module]", ["plugins: got 'no_such.module'", "cannot be imported", "No module named"]),
    # Wrong types and values.
    ("plugins=5", ["plugins: got 5; allowed: list"]),
    ("svm.C=true", ["svm.C: got true; allowed: number"]),
    ("svm=5", ["svm: got 5", "kernel"]),
    ("stages.hard=3", ["stages.hard: got 3", "dictionary"]),
    ("ensemble.settings=[{svm: {c: 1}}]", ["ensemble.settings.0.svm.c: unknown key", "did you mean"]),
    ("ensemble.settings=[{}, {model: nope}]", ["ensemble.settings.1.model: got 'nope'", "hog_svm"]),
    ("ensemble.settings=[{stages: {hard: {svm: {C: -1}}}}]", ["ensemble.settings.0.stages.hard.svm.C: got -1"]),
    ("mapping.left_out=[5]", ["mapping.left_out.0: got 5; allowed: string"]),
    ("data.kind=foo", ["data.kind: got 'foo'; allowed: 'demo', 'folder', 'table'"]),
    ("stages.hard.svm.C=-3", ["stages.hard.svm.C: got -3; allowed: greater than 0"]),
    ("svm.gamma=0x", ["svm.gamma: got '0x'; allowed: a positive number", "1.0x"]),
    ("hog.cell_px=100", ["hog.cell_px: got 100", "hog.block_cells=2", "at most hog.size_px=128"]),
    ("hog.block_norm=null", ["hog.block_norm: got null", "'L2-Hys' or 'none'"]),
    ("hog.pixels=[20,15]", ["hog.pixels: got [20, 15]; allowed with scaler=standard: null (scaler=none)"]),
    ("model=hog_svm_grid hog.pixels=[61,59]", ["hog.pixels: got 61 and 59", "at most 512"]),
    ("model=deit_vpt vpt.size_px=[128]", ["vpt.size_px: got [128]; allowed: 16 to 1024, or [height, width] of 16 to"]),
    ("model=embed embed.size_px=[128,2048]", ["embed.size_px: got [128, 2048]; allowed: 16 to 1024, or [height, wi"]),
    (
        "model=embed embed.size_px=100 embed.pretrained=false",
        ["size_px: got 100 x 100", "multiples of 14, the patches"],
    ),
    ("model=deit_vpt vpt.size_px=[128,100] vpt.pretrained=false", ["got 128 x 100 (height x width)", "of 16, the pa"]),
    (
        "model=deit_vpt vpt.pixels=[20,300]",
        ["vpt.pixels: got [20, 300] (width, height)", "[112, 112]", "vpt.size_px is"],
    ),
    ("model=deit_vpt vpt.backbone=resnet18 vpt.pretrained=false", ["vpt.backbone: got 'resnet18'; allowed: a timm"]),
    ("data.on_bad_file=ignore", ["data.on_bad_file: got 'ignore'; allowed: 'error' or 'skip'"]),
    ("data=folder", ["data.root: got nothing; it must be given, e.g. data.root="]),
    ("data.demo_dir=${nope}", ["data.demo_dir: ", "'nope'"]),
    # Keys that contradict each other.
    ("data=folder data.root=x data.split.val=0.9 data.split.test=0.5", ["data.split: got val 0.9 and test 0.5"]),
    ("data=demo_lake mapping=field", ["mapping: got 'field'", "lake, identity"]),
    ("augmentation=mirror augmentation.exclude={x: [double_l]}", ["exclude.x: got 'double_l'", "original, mirrored"]),
    ("experiment=original_cnn model=hog_svm", ["model: got 'hog_svm'", "experiment=original_cnn: resnet18", "cnn"]),
    ("sweeper=hog_svm", ["sweeper=hog_svm needs --multirun"]),
    ("model=resnet18 cnn.backbone=resnet18.nonsense", ["cnn.backbone: got 'resnet18.nonsense'", "tv_in1k"]),
    (
        "mapping=identity cascade_stage=full",
        ["mapping.look_alikes: got none", "cascade_stage=full", "cascade_stage=flat"],
    ),
    ("mapping.look_alikes.noise_combined=[noise_DNS,wind]", ["noise_combined: got 'wind'", "brak_Empty zone"]),
    ("objective=test/macro_f1", ["objective: got 'test/macro_f1'; allowed: val/macro_f1", "hard/val", "null"]),
    ("objective=easy/val/macro_f1 cascade_stage=flat", ["objective: got 'easy/val/macro_f1'", "val/hard_pair_f1"]),
    ("stages.hard.svm.C=3 cascade_stage=easy", ["stages.hard: got svm", "cascade_stage=easy: stages.easy"]),
    ("cascade_stage=hard cascade.group=x", ["cascade.group: got 'x'; allowed: noise_combined"]),
    # Not Hydra's grammar.
    ("svm.C=[", ["svm.C: cannot parse '['", "quote"]),
    ("svm.C=1,2", ["svm.C: got several values, '1,2'", "--multirun"]),
    ("data.root=/данные", ["data.root: cannot parse '/данные'", "quote"]),
    ("svm.C", ["got 'svm.C'; expected KEY=VALUE"]),
    ("data=folder,root=x", ["data: cannot parse 'folder,root=x'"]),
    ("objective=macro_f1", ["objective: got 'macro_f1'", "did you mean val/macro_f1?"]),
    ("seed=--1", ["seed: got '--1'; allowed: integer"]),
    ("=5", ["got '=5'", "KEY=VALUE"]),
]


@pytest.mark.parametrize(("line", "parts"), INVALID, ids=[line for line, _ in INVALID])
def test_an_invalid_command_line_gives_one_message(line: str, parts: list[str]) -> None:
    """A message without the key, the value or what is allowed leaves the user to guess."""
    text = message(*re.split(r" (?=\w+[.=])", line))
    assert "\n" not in text
    for part in parts:
        assert part in text


FOLDER = ["data=folder", "data.root=x"]
PAIR = "'mapping.look_alikes={pair: [a, b]}'"
# What is typed, what was meant, and the words that are right as they are.
NEAR_MISSES: list[tuple[list[str], str, list[str]]] = [
    (["cascade=flat"], "cascade_stage=flat", []),
    (["stage=flat"], "cascade_stage=flat", []),
    (["flat"], "cascade_stage=flat", []),
    (["augment=none"], "augmentation=none", []),
    (["augmentation=off"], "augmentation=none", []),
    (["kfold=5"], "validation=kfold", []),
    (["validation=cv"], "validation=kfold", []),
    (["mapping.look_alikes=a,b", *FOLDER], PAIR, FOLDER),
    (["mapping.look_alikes=[a,b]", *FOLDER], PAIR, FOLDER),
    (["mapping.look_alikes={a,b}", *FOLDER], PAIR, FOLDER),
    (["mapping.look_alikes.pair=[a,b]", *FOLDER], PAIR, FOLDER),
    # As bash leaves {pair:[a,b]} and {pair: [a, b]} without quotes.
    ([*FOLDER, "mapping.look_alikes=pair:[a", "mapping.look_alikes=b]"], PAIR, FOLDER),
    ([*FOLDER, "mapping.look_alikes={pair:", "[a,", "b]}"], PAIR, FOLDER),
    (["mapping.look_alikes=[Empty zone,b]", *FOLDER], "'mapping.look_alikes={pair: [Empty zone, b]}'", FOLDER),
    (["model=vpt"], "model=deit_vpt", []),
    (["model=svm"], "model=hog_svm", []),
    (["model=cnn"], "model=resnet18", []),
    (["model=logistic"], "model=pixels", []),
    (["vpt=deep"], "model=deit_vpt vpt.variant=deep", []),
    (["vpt=deep", "model=deit_vpt"], "vpt.variant=deep", ["model=deit_vpt"]),
    (["deep"], "model=deit_vpt vpt.variant=deep", []),
    (["vpt.variant=deep"], "model=deit_vpt vpt.variant=deep", []),
    (["C=3"], "svm.C=3", []),
    (["data=/home/me/records"], "data=folder data.root=/home/me/records", []),
    (["data=records"], "data=folder data.root=records", []),
    (["data=my records"], """data=folder "data.root='my records'\"""", []),
    (["data=labels.csv"], "data=table data.table=labels.csv", []),
    (["data.root=x"], "data=folder data.root=x", []),
    (["data.table=x"], "data=table data.table=x", []),
    (["data.path=/home/me/records"], "data=folder data.root=/home/me/records", []),
    (["/home/me/records", "seed=2"], "data=folder data.root=/home/me/records", ["seed=2"]),
    (["seed", "=", "1"], "seed=1", []),
    (["seed=", "1"], "seed=1", []),
    (["seed", "=1"], "seed=1", []),
    (["seed", "1"], "seed=1", []),
    (["seed:1"], "seed=1", []),
]


@pytest.mark.parametrize(
    ("words", "meant", "rest"), NEAR_MISSES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_near_miss_gets_the_fix_and_the_fix_is_accepted(words: list[str], meant: str, rest: list[str]) -> None:
    """A hint that is refused in its turn is worse than none."""
    assert message(*words).endswith(f"; did you mean {meant}?")
    cli.composed([*rest, *shlex.split(meant)])


def test_a_search_without_multirun_gets_the_whole_command() -> None:
    """It can be pasted into a shell as it is."""
    words = ["sweeper=pixels", *FOLDER, "data.group='s_([a-z])'", 'outputs="a b"', "mapping.look_alikes={m: [a, b]}"]
    command = message(*words).partition("(-m): ")[2]
    assert shlex.split(command) == ["spectro", "train", "--multirun", *words]
    assert "\"data.group='s_([a-z])'\"" in command


@pytest.mark.parametrize("mode", ["run", "sweep"])
@pytest.mark.parametrize("spelling", ["{}", "'{}'", "${{outputs}}/old"])
def test_a_folder_that_holds_results_is_refused(tmp_path: Path, spelling: str, mode: str) -> None:
    """A result must never be written over, however the folder is spelled."""
    old = tmp_path / "old"
    words = [f"outputs={tmp_path}", f"hydra.{mode}.dir={spelling.format(old)}"]
    cfg = GROUPS.compose(words)
    assert result_folder(cfg, mode, words)[0] == old
    (old / "0").mkdir()
    (old / ("run.json" if mode == "run" else "0/run.json")).write_text("{}")
    with pytest.raises(ConfigError, match=rf"^hydra\.{mode}\.dir: got .*old', which holds"):
        result_folder(cfg, mode, words)


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["seed=0,1", "svm.c=1"], "svm.c: unknown key under model=hog_svm"),
        (["svm.C=1,2,0", "seed=0,1"], "svm.C: got 0; allowed: greater than 0"),
        (["svm.C=range(-1,100)"], "svm.C: got -1; allowed: greater than 0"),
        (["seed=" + ",".join(map(str, [0, 1, -2, *range(3, 20)]))], "seed: got -2; allowed: "),
        (["hog.block_norm=" + ",".join(["L1", "L2"] * 4 + ["nope"] + ["L1", "L2"])], "hog.block_norm: got 'nope'; "),
        (["hog.block_norm=" + "L1," * 10 + "."], "hog.block_norm: got '.'; "),
        (["model=hog_svm,nope"], "model: got 'nope'; allowed: "),
        (["cascade_stage=easy", "stages.hard.svm.C=1,2"], "stages.hard: got svm; allowed under cascade_stage=easy"),
        (["cascade_stage=full,flat", "mapping=field,identity"], "mapping.look_alikes: got none"),
        (["svm.C=interval(0,1)"], "svm.C: got interval(0,1); allowed: a list of values"),
        (["model=deit_vpt", "sweeper=hog_svm"], "model: got 'deit_vpt'; allowed with sweeper=hog_svm: hog_svm"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_job_of_a_multirun_is_checked_first(arguments: list[str], start: str) -> None:
    """A multirun must not work through the night and then meet its typing error."""
    with pytest.raises(ConfigError) as caught:
        multirun(GROUPS, arguments, lambda *_: pytest.fail("a job was started"))
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("arguments", [["sweeper=hog_svm", "svm.C=choice(-1,1)"], ["sweeper=resnet18"]])
def test_a_search_is_left_to_its_sweeper(arguments: list[str]) -> None:
    """A search may leave out what does not go together."""
    started = []
    multirun(GROUPS, arguments, lambda *task: started.append(task))
    assert len(started) == 1


def test_errors_that_are_no_user_errors_are_not_explained() -> None:
    """A defect dressed up as a message would hide where it is."""
    assert explain(ValueError("x"), []) is None
    assert explain(KeyError("x"), []) is None
    assert explain(SpectroError("x: got 1"), []) == "x: got 1"
