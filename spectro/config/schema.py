"""Every key that belongs to no model family: its type, its range and its default."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from spectro.data import Crop, Mapping, Split
from spectro.data.augmentation import AugmentationKnobs
from spectro.data.manifest import is_group_pattern
from spectro.demo.generate import CROP_PX
from spectro.knobs import Section

Seed = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


def _check_group(pattern: str) -> str:
    if is_group_pattern(pattern):
        return pattern
    raise ValueError("a regular expression with exactly one group in parentheses, such as '([a-z]+)_[0-9]+'")


def _check_name(name: str) -> str:
    # It is a part of a folder's name.
    if re.fullmatch(r"\w[\w .+=-]{0,39}", name):
        return name
    raise ValueError("1 to 40 letters, digits, spaces and . + = - _, with a letter, digit or _ first")


class _Data(Section):
    crop: Crop = Crop()
    on_bad_file: Literal["error", "skip"] = "error"
    source_key: Literal["name", "class_name", "path"] = "name"
    group: Annotated[str, AfterValidator(_check_group)] | None = None
    max_megapixels: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    cache_dir: str | None = "outputs/cache"
    cache_limit_gb: Annotated[float, Field(gt=0)] = 20.0


class DemoKnobs(_Data):
    """The demo data."""

    kind: Literal["demo"] = "demo"
    demo_dir: Text | None = None
    label_set: Literal["field", "lake"] = "field"
    seed: Seed = 0
    # More records than there are file names for otherwise.
    scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    crop: Crop = Crop(**CROP_PX)


class FolderKnobs(_Data):
    """A user's own images."""

    kind: Literal["folder"] = "folder"
    root: Text
    split: Split = Split()


class TableKnobs(_Data):
    """A user's own images, listed in a table."""

    kind: Literal["table"] = "table"
    table: Text
    root: Text | None = None
    # Also the name of a column, which only the table can tell from an expression.
    group: Text | None = None
    split: Split = Split()


class ModelKnobs(Section):
    """An option of ``model`` and the family that it belongs to."""

    name: str
    family: str


class StageKnobs(Section):
    """What is fitted: both stages, one of them, or one model without a cascade."""

    name: Literal["full", "easy", "hard", "flat"] = "full"


class CascadeKnobs(Section):
    """How the stages are composed (``full``), or which look-alike group is fitted (``hard``)."""

    gate: Literal["soft", "hard"] | None = None
    group: str | None = None


class EnsembleKnobs(Section):
    """Members of each model, whose probabilities are averaged; ``settings``: see `MemberKnobs`."""

    members: Count = 1
    settings: list[dict[str, Any]] = Field(default_factory=list)


class MemberKnobs(Section):
    """What a member of an ensemble has otherwise: sections of its family, another model, what its stages override."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    stages: dict[Literal["easy", "hard"], dict[str, Any]] = Field(default_factory=dict)


class HoldoutKnobs(Section):
    """Evaluated on val and test."""

    name: Literal["holdout"] = "holdout"


class CrossValidationKnobs(Section):
    """Cross-validated over train and val; ``refit``: then fitted to both of them."""

    refit: bool = True


class KFoldKnobs(CrossValidationKnobs):
    """Folds of sources."""

    name: Literal["kfold"] = "kfold"
    k: Annotated[int, Field(ge=2)] = 5
    repeats: Count = 1
    seed: Seed = 0


class LeaveOneGroupOutKnobs(CrossValidationKnobs):
    """Each group of ``data.group`` is a fold."""

    name: Literal["leave_one_group_out"] = "leave_one_group_out"


class ReviewKnobs(Section):
    """Which predictions a person should look at; ``coverage`` is in place of ``target_accuracy``."""

    target_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.95
    coverage: Annotated[float, Field(gt=0, le=1)] | None = None


class TrackingKnobs(Section):
    """MLflow."""

    uri: str | None = "sqlite:///outputs/mlflow.db"
    log_model: bool = True


class SweepKnobs(Section):
    """How a search proceeds, besides what is searched."""

    prune: bool = True
    warmup_epochs: Count = 3
    startup_trials: Count = 5
    threads: Count | None = None
    final_seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    ensemble: Annotated[int, Field(ge=1, le=50)] = 1
    greedy: bool = False


class Plugins(Section):
    """Modules that are imported before anything else is checked, since they may add what the other keys name."""

    plugins: list[str] = Field(default_factory=list)


class Common(Plugins):
    """Every key that belongs to no model family."""

    name: Annotated[str, AfterValidator(_check_name)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    outputs: Text = "outputs"
    objective: str | None = "val/macro_f1"
    figures: Literal["none", "basic", "all"] = "basic"
    tracking: TrackingKnobs = TrackingKnobs()
    review: ReviewKnobs = ReviewKnobs()
    data: Annotated[DemoKnobs | FolderKnobs | TableKnobs, Field(discriminator="kind")] = DemoKnobs()
    mapping: Mapping
    augmentation: AugmentationKnobs
    model: ModelKnobs
    cascade_stage: StageKnobs = StageKnobs()
    validation: Annotated[HoldoutKnobs | KFoldKnobs | LeaveOneGroupOutKnobs, Field(discriminator="name")] = (
        HoldoutKnobs()
    )
    cascade: CascadeKnobs = CascadeKnobs()
    ensemble: EnsembleKnobs = EnsembleKnobs()
    stages: dict[Literal["easy", "hard"], dict[str, Any]] = Field(default_factory=dict)
    # Those of a search.
    n_trials: Count | None = None
    study: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")] | None = None
    storage: Text | None = None
    n_jobs: Count | None = None
    sweep: SweepKnobs | None = None
