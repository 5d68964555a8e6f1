"""Every key that does not belong to a model family: its type and its range."""

from typing import Annotated, Any, Literal

from pydantic import Field

from spectro import data
from spectro.data.augmentation import AugmentationKnobs
from spectro.knobs import Section


class _Data(Section):
    crop: data.Crop
    on_bad_file: Literal["error", "skip"]
    source_key: Literal["name", "class_name", "path"]
    max_megapixels: Annotated[float, Field(gt=0)]
    cache_dir: str | None
    cache_limit_gb: Annotated[float, Field(gt=0)]


class DemoKnobs(_Data):
    """The demo data."""

    kind: Literal["demo"]
    demo_dir: Annotated[str, Field(min_length=1)] | None
    label_set: Literal["field", "lake"]
    seed: Annotated[int, Field(ge=0)]
    # More records than there are file names for otherwise.
    scale: Annotated[float, Field(gt=0, le=1000)]


class FolderKnobs(_Data):
    """A user's own images."""

    kind: Literal["folder"]
    root: Annotated[str, Field(min_length=1)]
    split: data.Split


class ModelKnobs(Section):
    """The model family."""

    name: str
    family: str


class StageKnobs(Section):
    """What is fitted."""

    name: Literal["full", "easy", "hard", "flat"]


class CascadeKnobs(Section):
    """How the stages are put together."""

    gate: Literal["soft", "hard"] | None = None
    group: str | None = None


class HoldoutKnobs(Section):
    """Evaluated on val and test."""

    name: Literal["holdout"]
    objective: str | None


class KFoldKnobs(Section):
    """Cross-validated over train and val as well."""

    name: Literal["kfold"]
    k: Annotated[int, Field(ge=2)]
    repeats: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    objective: str | None


class TrackingKnobs(Section):
    """MLflow."""

    uri: str | None


class SweepKnobs(Section):
    """How a search goes on, besides what is searched."""

    prune: bool
    warmup_epochs: Annotated[int, Field(ge=1)]
    startup_trials: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)] | None
    final_seed: Annotated[int, Field(ge=0, lt=2**32)]


class Plugins(Section):
    """Modules that are imported before anything else is checked, since they may add what the other keys name."""

    plugins: list[str] = []


class Common(Plugins):
    """Every key that does not belong to a model family."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    outputs: Annotated[str, Field(min_length=1)]
    objective: str | None
    tracking: TrackingKnobs
    data: Annotated[DemoKnobs | FolderKnobs, Field(discriminator="kind")]
    mapping: data.Mapping
    augmentation: AugmentationKnobs
    model: ModelKnobs
    cascade_stage: StageKnobs
    validation: Annotated[HoldoutKnobs | KFoldKnobs, Field(discriminator="name")]
    cascade: CascadeKnobs = CascadeKnobs()
    stages: dict[Literal["easy", "hard"], dict[str, Any]]
    n_trials: Annotated[int, Field(ge=1)] | None = None
    study: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")] | None = None
    storage: Annotated[str, Field(min_length=1)] | None = None
    n_jobs: Annotated[int, Field(ge=1)] | None = None
    sweep: SweepKnobs | None = None
