"""Validation of a configuration before any work starts: each key by its schema, and the keys together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from spectro.classifiers import family
from spectro.config.groups import Groups, job_groups
from spectro.config.schema import Common, DemoKnobs, FolderKnobs, KFoldKnobs, Plugins, SweepKnobs
from spectro.data.augmentation import Augmentation
from spectro.data.mapping import hard_stage_names
from spectro.demo.generate import COUNTS
from spectro.errors import ConfigError, ModelError
from spectro.evaluation import METRICS
from spectro.knobs import did_you_mean, sections, validate
from spectro.plugins import load_plugins

if TYPE_CHECKING:
    from spectro.classifiers import ImageClassifier

STAGES = ("easy", "hard")


@dataclass(frozen=True)
class Config:
    """A valid configuration.

    Attributes:
        common: Every key that belongs to no model family.
        classifiers: The unfitted classifier of each stage that is fitted: ``easy``, ``hard``, ``flat``.
        raw: The whole configuration as plain values, as it is written to files and MLflow.
    """

    common: Common
    classifiers: "dict[str, ImageClassifier]"
    raw: dict[str, Any]

    @property
    def stage(self) -> str:
        """``full``, ``easy``, ``hard`` or ``flat``."""
        return self.common.cascade_stage.name

    @property
    def group(self) -> str:
        """The look-alike group of ``cascade_stage=hard``."""
        return self.common.cascade.group or next(iter(self.common.mapping.look_alikes))

    @property
    def look_alikes(self) -> list[str]:
        """The look-alike classes of all groups where the task has other classes beside them, else none.

        The easy stage has them merged, and the hard stage has no others.
        """
        return list(self.common.mapping.group_of) if self.stage in ("full", "flat") else []

    @property
    def has_epochs(self) -> bool:
        """Whether every model that is fitted sees the records in epochs, and augmentation can be drawn for each."""
        return all(classifier.draws_views for classifier in self.classifiers.values())

    def augmentation(self) -> Augmentation:
        """The augmentation of training images."""
        return Augmentation.from_config(self.common.augmentation, seed=self.common.seed)

    @property
    def sweep(self) -> SweepKnobs:
        """The settings of a search.

        Raises:
            ConfigError: The configuration is not that of a search.
        """
        if self.common.sweep is None:
            raise ConfigError("sweep: got nothing; it comes with sweeper=NAME")
        return self.common.sweep

    def estimator(self) -> Any:
        """The unfitted classifier of the configured stage."""
        from sklearn.base import clone

        built = {stage: clone(classifier) for stage, classifier in self.classifiers.items()}
        if self.stage != "full":
            return built[self.stage]
        from spectro.classifiers import CascadeClassifier

        look_alikes = self.common.mapping.look_alikes
        return CascadeClassifier(built["easy"], built["hard"], look_alikes, self.common.cascade.gate or "soft")


def check(cfg: DictConfig, groups: Groups | None = None) -> Config:
    """Checks a composed configuration.

    Args:
        cfg: The composed configuration; Hydra's section ``hydra`` is passed over.
        groups: The configuration groups; None: those of the running job.

    Returns:
        The valid configuration.

    Raises:
        ConfigError: A line for each invalid key: the dotted key, the value, what is allowed.
    """
    groups = groups or job_groups()
    try:
        raw = _plain(cfg)
    except MissingMandatoryValue as error:
        key = str(error.full_key or error).rsplit(" ", 1)[-1]
        raise ConfigError(f"{key}: got nothing; it must be given, e.g. {key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    load_plugins(validate(Plugins, {"plugins": raw.get("plugins", [])}, "").plugins)
    common = validate(Common, {key: value for key, value in raw.items() if key in Common.model_fields}, "")
    of_family = {key: value for key, value in raw.items() if key not in Common.model_fields}
    stages = {"full": STAGES, "easy": ("easy",), "hard": ("hard",), "flat": ("flat",)}[common.cascade_stage.name]
    classifiers = {stage: _stage_classifier(common, of_family, stage, groups) for stage in stages}
    wrong = _contradictions(common, stages)
    try:
        Augmentation.from_config(common.augmentation, seed=common.seed)
    except ConfigError as error:
        wrong.append(str(error))
    if common.augmentation.mode == "sample":
        # A family that sees every record once would see one view of it, for good.
        once = [stage for stage, classifier in classifiers.items() if not classifier.draws_views]
        if once:
            wrong.append(
                f"augmentation.mode: got 'sample'; allowed: expand (the model of stage {' and '.join(once)} has no "
                "epochs in which to draw)"
            )
    if wrong:
        raise ConfigError("\n".join(wrong))
    return Config(common, classifiers, raw)


def with_model(raw: dict[str, Any], model: str, *, root: str, cache_dir: str | None) -> Config:
    """The same data, mapping, augmentation and stage under another model with its defaults.

    Args:
        raw: The configuration of a run, as its ``run.json`` has it, also an older one's.
        model: An option of ``model``.
        root: Where the run's images lie; demo data are read like any folder and not made anew.
        cache_dir: Where decoded images are kept.

    Raises:
        ConfigError: The configuration lacks a key, or is not valid.
    """
    same = ("mapping", "cascade_stage", "cascade", "seed", "outputs", "plugins")
    of_demo = ("label_set", "seed", "scale", "demo_dir")
    data = {key: value for key, value in raw["data"].items() if key not in of_demo}
    values = {name: raw[name] for name in same if name in raw} | {
        "data": data | {"kind": "folder", "root": root, "cache_dir": cache_dir},
        "augmentation": {key: value for key, value in raw["augmentation"].items() if key != "mode"},
        "objective": None,
        "tracking": {"uri": None},
    }
    groups = job_groups()
    return check(OmegaConf.create({**values, **_model_defaults(model, "model", groups)}), groups)


def _stage_classifier(common: Common, shared: dict[str, Any], stage: str, groups: Groups) -> "ImageClassifier":
    """The unfitted classifier of a stage: the shared keys, or another model's defaults, with the stage's on top."""
    override = dict(common.stages.get(stage, {}))  # type: ignore[call-overload]
    name, family_name = common.model.name, common.model.family
    model = override.pop("model", name)
    if model != name:
        other = _model_defaults(model, f"stages.{stage}.model", groups)
        name, family_name = model, other.pop("model")["family"]
        shared = other
    try:
        cls = family(family_name)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    seed, context = common.seed, f" under model={name}"
    cls.from_config({}, seed=seed)  # fails where a family cannot be configured by keys
    top = sorted([*common.model_fields_set, *sections(cls)])
    if unknown := [key for key in shared if key not in top]:
        allowed = f"allowed: {', '.join(top)}"
        lines = [f"{k}: unknown key{context} (got {shared[k]!r}); {allowed}{did_you_mean(k, top, '')}" for k in unknown]
        raise ConfigError("\n".join(lines))
    classifier = cls.from_config(shared, seed=seed, context=context)
    if not override:
        return classifier
    merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(shared), OmegaConf.create(override)))
    return cls.from_config(merged, seed=seed, prefix=f"stages.{stage}.", context=context)  # type: ignore[arg-type]


def _model_defaults(name: str, key: str, groups: Groups) -> dict[str, Any]:
    """The section ``model`` and the family's sections, as ``model=NAME`` sets them."""
    if name not in (names := groups.options("model")):
        raise ConfigError(f"{key}: got {name!r}; allowed: {', '.join(names)}{did_you_mean(name, names, '')}")
    values = _plain(groups.compose([f"model={name}"]))
    load_plugins(values["plugins"])
    return {key: value for key, value in values.items() if key == "model" or key not in Common.model_fields}


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration without Hydra's section."""
    values: Any = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    values = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in values.items()}


def _contradictions(common: Common, stages: tuple[str, ...]) -> list[str]:
    """Contradictions between keys that are valid one by one."""
    stage = common.cascade_stage.name
    wrong = [f"mapping.{key}: {text}" for key, text in common.mapping.contradictions()]
    if isinstance(common.data, DemoKnobs) and common.mapping.classes:
        labels = common.data.label_set
        if common.mapping.name != labels and common.mapping.label_of(COUNTS[labels]["train"])[1]:
            wrong.append(
                f"mapping: got {common.mapping.name!r}; allowed with the demo data {labels}: {labels}, identity"
            )
    groups = list(common.mapping.look_alikes)
    if stage != "flat" and not groups:
        wrong.append(
            f"mapping.look_alikes: got none; allowed with cascade_stage={stage}: one group or more, e.g. "
            "'mapping.look_alikes={merged: [a, b]}' (cascade_stage=flat needs none)"
        )
    for key, needed in (("gate", "full"), ("group", "hard")):
        value = getattr(common.cascade, key)
        if value is not None and stage != needed:
            wrong.append(f"cascade.{key}: got {value!r}; allowed with cascade_stage={stage}: null")
    if stage == "hard" and common.cascade.group not in (None, *groups):
        wrong.append(f"cascade.group: got {common.cascade.group!r}; allowed: {', '.join(groups) or 'none'}")
    if stage == "hard" and len(groups) > 1 and common.cascade.group is None:
        wrong.append(f"cascade.group: got null; allowed with cascade_stage=hard: {', '.join(groups)}")
    for name, override in common.stages.items():
        if override and name not in stages:
            fitted = ", ".join(f"stages.{s}" for s in stages if s in STAGES) or "none, set the knobs themselves"
            wrong.append(f"stages.{name}: got {', '.join(override)}; allowed under cascade_stage={stage}: {fitted}")
    if common.objective is not None and common.objective not in (objectives := _objectives(common)):
        hint = "" if isinstance(common.validation, KFoldKnobs) else " (cv/...: with validation=kfold)"
        wrong.append(f"objective: got {common.objective!r}; allowed: {', '.join(objectives)}, null{hint}")
    if isinstance(common.data, FolderKnobs) and common.data.split.val + common.data.split.test >= 1:
        split = common.data.split
        wrong.append(f"data.split: got val {split.val} and test {split.test}; allowed: a sum below 1")
    return wrong


def _objectives(common: Common) -> list[str]:
    """The metrics that can be the objective: of the whole task, and of each stage of a cascade."""
    groups, stage = list(common.mapping.look_alikes), common.cascade_stage.name
    prefixes = ["easy/", *(f"{name}/" for name in hard_stage_names(groups).values())] if stage == "full" else []
    has_pairs = bool(groups) and stage in ("full", "flat")
    return [
        f"{prefix}{split}/{metric.name}"
        for split in (("cv", "val") if isinstance(common.validation, KFoldKnobs) else ("val",))
        for prefix in ("", *prefixes)
        for metric in METRICS.values()
        if not metric.needs_look_alikes or (has_pairs and not prefix)
    ]
