"""Validation of a configuration before any work starts: each key by its schema, and the keys together."""

from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from spectro import knobs
from spectro.classifiers import family
from spectro.config.groups import Groups, job_groups
from spectro.config.received import check_modules
from spectro.config.schema import (
    Common,
    CrossValidationKnobs,
    DemoKnobs,
    EnsembleKnobs,
    KFoldKnobs,
    MemberKnobs,
    ModelKnobs,
    Plugins,
    SweepKnobs,
)
from spectro.data import Mapping
from spectro.data.augmentation import Augmentation
from spectro.data.mapping import hard_stage_names
from spectro.demo.generate import COUNTS
from spectro.errors import ConfigError, ModelError, SpectroError
from spectro.evaluation import METRICS
from spectro.knobs import did_you_mean, not_allowed, validate
from spectro.paths import flatten
from spectro.plugins import load_plugins

if TYPE_CHECKING:
    from spectro.classifiers import ImageClassifier

STAGES = ("easy", "hard")


@dataclass(frozen=True)
class Config:
    """A valid configuration.

    Attributes:
        common: Every key that belongs to no model family.
        classifiers: The unfitted classifier, or ensemble, of each stage that is fitted: ``easy``, ``hard``, ``flat``.
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
    def model(self) -> str:
        """The option of ``model``."""
        return self.common.model.name

    @property
    def mapping(self) -> Mapping:
        """Folders -> classes -> stages."""
        return self.common.mapping

    @property
    def seed(self) -> int:
        """The seed of everything random in a run."""
        return self.common.seed

    @property
    def outputs(self) -> Path:
        """The folder of everything that is written."""
        return Path(self.common.outputs)

    @property
    def group(self) -> str:
        """The look-alike group of ``cascade_stage=hard``."""
        return self.common.cascade.group or next(iter(self.mapping.look_alikes))

    @property
    def look_alikes(self) -> list[str]:
        """The look-alike classes of all groups where the task has other classes beside them, else none.

        The easy stage has them merged, and the hard stage has no others.
        """
        return list(self.mapping.group_of) if self.stage in ("full", "flat") else []

    @property
    def is_cross_validated(self) -> bool:
        """Whether train and val are cross-validated before the final model is fitted."""
        return isinstance(self.common.validation, CrossValidationKnobs)

    @property
    def is_refit(self) -> bool:
        """Whether the final model is fitted to train and val."""
        return isinstance(self.common.validation, CrossValidationKnobs) and self.common.validation.refit

    @property
    def splits(self) -> list[str]:
        """The splits that the final model is evaluated on: val, unless it is fitted to it, and test."""
        return ["test"] if self.is_refit else ["val", "test"]

    @property
    def has_epochs(self) -> bool:
        """Whether every model that is fitted sees the records in epochs, and augmentation can be drawn for each."""
        return all(classifier.draws_views for classifier in self.classifiers.values())

    @property
    def sweep(self) -> SweepKnobs:
        """The settings of a search.

        Raises:
            ConfigError: The configuration is not that of a search.
        """
        if self.common.sweep is None:
            raise ConfigError("sweep: got nothing; it comes with sweeper=NAME")
        return self.common.sweep

    @cached_property
    def augmentation(self) -> Augmentation:
        """The augmentation of training images; its transforms are imported and tried once."""
        return Augmentation.from_config(self.common.augmentation, seed=self.seed)

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that make another model than the defaults of its option do, by dotted keys; margins are one."""
        validation = {**KFoldKnobs().model_dump(), "name": "holdout"}
        defaults = {
            **flatten({**model_defaults(self.model), "validation": validation}),
            "ensemble.members": 1,
            "cascade.gate": "soft" if self.stage == "full" else None,
        }
        defaults["augmentation.name"] = "mirror_halves" if isinstance(self.common.data, DemoKnobs) else "none"
        values = flatten(self.raw) | {"augmentation.name": self.common.augmentation.label}
        changes = {
            key: value
            for key, value in values.items()
            if (key in defaults and value != defaults[key] and not key.endswith(".weights"))
            or (key.startswith("stages.") and value != {})
        }
        crop = self.common.data.crop
        is_cropped = crop != type(self.common.data).model_fields["crop"].default
        return changes | ({"data.crop": "/".join(map(str, asdict(crop).values()))} if is_cropped else {})

    def estimator(self) -> Any:
        """The unfitted classifier of the configured stage."""
        from sklearn.base import clone

        from spectro.classifiers import CascadeClassifier

        built: dict[str, Any] = {stage: clone(classifier) for stage, classifier in self.classifiers.items()}
        if self.stage != "full":
            return built[self.stage]
        gate = self.common.cascade.gate or "soft"
        return CascadeClassifier(built["easy"], built["hard"], self.mapping.look_alikes, gate)

    def prepare(self) -> None:
        """Checks that everything is there that the classifiers need, see `ImageClassifier.prepare`.

        Raises:
            SpectroError: Names what is missing, where a stage has its own value by the stage's key.
        """
        for stage, classifier in self.classifiers.items():
            try:
                classifier.prepare()
            except SpectroError as error:
                keys = flatten(dict(self.common.stages).get(stage, {}))  # type: ignore[call-overload]
                is_of_stage = "model" in keys or str(error).partition(":")[0] in keys
                raise type(error)(f"stages.{stage}." * is_of_stage + str(error)) from error


def check(cfg: DictConfig, groups: Groups | None = None) -> Config:
    """Checks a composed configuration.

    Args:
        cfg: The composed configuration; Hydra's section ``hydra`` is passed over.
        groups: The configuration groups; None: those of the running job.

    Raises:
        ConfigError: A line for each invalid key: the dotted key, the value, what is allowed.
    """
    groups = groups or job_groups()
    try:
        raw = _plain(cfg)
    except OmegaConfBaseException as error:
        key, text = error.full_key or "config", str(error).splitlines()[0]
        if isinstance(error, MissingMandatoryValue):
            key = error.full_key or text.rsplit(" ", 1)[-1]
            text = f"got nothing; it must be given, e.g. {key}=VALUE"
        raise ConfigError(f"{key}: {text}") from error
    load_plugins(validate(Plugins, {"plugins": raw.get("plugins", [])}).plugins)
    common = validate(Common, {key: value for key, value in raw.items() if key in Common.model_fields})
    of_family = {key: value for key, value in raw.items() if key not in Common.model_fields}
    stages = STAGES if common.cascade_stage.name == "full" else (common.cascade_stage.name,)
    config = Config(common, {stage: _classifier(common, of_family, stage, groups) for stage in stages}, raw)
    if problems := _contradictions(config):
        raise ConfigError("\n".join(problems))
    return config


def with_model(raw: dict[str, Any], model: str, *, origin: str, root: str, knobs: dict[str, Any]) -> Config:
    """The same data, mapping, augmentation, stage and validation under another model with its defaults.

    Args:
        raw, origin, root, knobs: See `rebuilt`.
        model: An option of ``model``.

    Raises:
        ConfigError: The configuration lacks a key, or is not valid.
    """
    same = ("mapping", "cascade_stage", "cascade", "validation", "seed", "plugins", "data", "augmentation", "figures")
    values = {name: raw[name] for name in same if name in raw} | {
        "stages": {stage: {} for stage in STAGES},
        "ensemble": EnsembleKnobs().model_dump(),
    }
    return rebuilt(values | _model_defaults(model, "model", job_groups()), origin=origin, root=root, knobs=knobs)


def rebuilt(raw: dict[str, Any], *, origin: str, root: str, knobs: dict[str, Any]) -> Config:
    """The configuration of a run, which may be anybody's, without an objective and without MLflow.

    Args:
        raw: The configuration, as ``run.json`` has it: plain values, so that nothing is read from the environment.
        origin: The run, for messages.
        root: Where the images lie.
        knobs: Sections that are merged on top.

    Raises:
        ConfigError: As `with_model`, or it names a module that the user has not named.
    """
    values = literal(raw) | {"objective": None, "tracking": {"uri": None}}
    if (key := {"folder": "root", "table": "root", "demo": "demo_dir"}.get(raw["data"]["kind"])) is not None:
        values["data"] = values["data"] | {key: root}
    merged = OmegaConf.merge(values, knobs)
    assert isinstance(merged, DictConfig)
    check_modules(_plain(merged), origin)
    return check(merged, job_groups())


def literal(value: Any) -> Any:
    """A value whose texts Hydra takes as they are: ``${`` in a value, but not in a key, begins an interpolation."""
    if isinstance(value, dict):
        return {key: literal(part) for key, part in value.items()}
    if isinstance(value, list):
        return [literal(part) for part in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def model_defaults(name: str) -> dict[str, Any]:
    """The sections that an option of ``model`` sets, not to be changed; empty where no option has this name."""
    groups = job_groups()
    return _model_defaults(name, "model", groups) if name in groups.options("model") else {}


def _classifier(common: Common, sections: dict[str, Any], stage: str, groups: Groups) -> "ImageClassifier":
    """The unfitted classifier of a stage, or the ensemble of its members."""
    from spectro.classifiers import EnsembleClassifier

    ensemble, of_stage = common.ensemble, f"stages.{stage}."
    overrides: Any = common.stages
    estimators = []
    for number, settings in enumerate(ensemble.settings or [{}]):
        prefix = f"ensemble.settings.{number}."
        of_member = validate(MemberKnobs, settings, prefix).stages
        # The later one has precedence.
        layers = {
            "": {},
            prefix: {key: value for key, value in settings.items() if key != "stages"},
            of_stage: overrides.get(stage, {}),
            prefix + of_stage: of_member.get(stage, {}),
        }
        estimators.append(_member(common, sections, layers, groups))
    if len(estimators) == ensemble.members == 1:
        return estimators[0]
    return EnsembleClassifier(estimators if len(estimators) > 1 else estimators[0], ensemble.members, common.seed)


def _member(
    common: Common, sections: dict[str, Any], layers: dict[str, dict[str, Any]], groups: Groups
) -> "ImageClassifier":
    """The classifier of the family's sections, or of another model's defaults, with layers of overrides on top."""
    model, classifier = common.model, None
    for prefix, layer in layers.items():
        override = dict(layer)
        if (name := override.pop("model", None) or model.name) != model.name:
            sections = dict(_model_defaults(name, f"{prefix}model", groups))
            model = validate(ModelKnobs, sections.pop("model"))
        elif classifier is not None and not override:
            continue
        try:
            cls = family(model.family)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        context = f" under model={name}"
        cls.from_config({}, seed=common.seed)  # fails where a family cannot be configured by keys
        allowed = sorted([*common.model_fields_set, *knobs.sections(cls)])
        problems = [
            f"{key}: unknown key{context} (got {value!r}); allowed: {', '.join(allowed)}{did_you_mean(key, allowed)}"
            for key, value in sections.items()
            if key not in allowed
        ]
        if problems:
            raise ConfigError("\n".join(problems))
        merged: Any = OmegaConf.to_container(OmegaConf.merge(sections, override))
        sections = merged
        classifier = cls.from_config(sections, seed=common.seed, prefix=prefix, context=context)
    assert classifier is not None
    return classifier


@cache
def _model_defaults(name: str, key: str, groups: Groups) -> dict[str, Any]:
    """The section ``model`` and the family's sections, as ``model=NAME`` sets them; not to be changed."""
    if name not in (names := groups.options("model")):
        raise ConfigError(not_allowed(key, name, names))
    values = _plain(groups.compose_model(name))
    load_plugins(values["plugins"])
    return {key: value for key, value in values.items() if key == "model" or key not in Common.model_fields}


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration without Hydra's section."""
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    values: Any = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in values.items()}


def _contradictions(config: Config) -> list[str]:
    """Contradictions between keys that are valid one by one."""
    common, mapping, stage = config.common, config.mapping, config.stage
    data, cascade, groups = common.data, common.cascade, list(mapping.look_alikes)
    wrong = [f"mapping.{key}: {text}" for key, text in mapping.contradictions()]
    labels = data.label_set if isinstance(data, DemoKnobs) and mapping.classes else mapping.name
    if labels != mapping.name and mapping.label_of(COUNTS[labels]["train"])[1]:
        wrong.append(f"mapping: got {mapping.name!r}; allowed with the demo data {labels}: {labels}, identity")
    if stage != "flat" and not groups:
        wrong.append(
            f"mapping.look_alikes: got none; allowed with cascade_stage={stage}: one group or more, e.g. "
            "'mapping.look_alikes={merged: [a, b]}' (cascade_stage=flat needs none)"
        )
    for key, value, needed in (("gate", cascade.gate, "full"), ("group", cascade.group, "hard")):
        if value is not None and stage != needed:
            wrong.append(f"cascade.{key}: got {value!r}; allowed with cascade_stage={stage}: null")
    if stage == "hard" and cascade.group not in (groups if len(groups) > 1 else [None, *groups]):
        got = "null" if cascade.group is None else repr(cascade.group)
        wrong.append(f"cascade.group: got {got}; allowed: {', '.join(groups) or 'none'}")
    settings = enumerate(common.ensemble.settings)
    members = [(f"ensemble.settings.{i}.", member.get("stages", {})) for i, member in settings]
    for prefix, stages in [("", common.stages), *members]:
        for name, override in stages.items():
            if override and name not in config.classifiers:
                fitted = ", ".join(f"stages.{s}" for s in STAGES if s == stage) or "none, set the knobs themselves"
                got = f"{prefix}stages.{name}: got {', '.join(override)}"
                wrong.append(f"{got}; allowed under cascade_stage={stage}: {fitted}")
    objectives = _objectives(config)
    if common.objective not in (None, *objectives):
        hint = "" if config.is_cross_validated else " (cv/...: with validation=kfold)"
        near = did_you_mean(str(common.objective), objectives)
        hint += " (val/...: with validation.refit=false or validation=holdout)" if config.is_refit else ""
        wrong.append(f"objective: got {common.objective!r}; allowed: {', '.join(objectives)}, null{hint}{near}")
    if not isinstance(data, DemoKnobs) and data.split.val + data.split.test >= 1:
        wrong.append(f"data.split: got val {data.split.val} and test {data.split.test}; allowed: a sum below 1")
    if common.validation.name == "leave_one_group_out" and data.group is None:
        is_table = data.kind == "table"
        what = "a column, such as source" if is_table else "an expression with a group, such as 'station_([A-Z]+)'"
        wrong.append(f"data.group: got null; allowed with validation=leave_one_group_out: {what}")
    try:
        _ = config.augmentation
    except ConfigError as error:
        wrong.append(str(error))
    return wrong


def _objectives(config: Config) -> list[str]:
    """The metrics that can be the objective: of the whole task, and of each stage of a cascade."""
    hard_stages = hard_stage_names(list(config.mapping.look_alikes)).values()
    prefixes = ["", "easy/", *(f"{name}/" for name in hard_stages)] if config.stage == "full" else [""]
    return [
        f"{prefix}{split}/{metric.name}"
        for split, is_there in (("cv", config.is_cross_validated), ("val", not config.is_refit))
        if is_there
        for prefix in prefixes
        for metric in METRICS.values()
        if not metric.needs_look_alikes or (config.look_alikes and not prefix)
    ]
