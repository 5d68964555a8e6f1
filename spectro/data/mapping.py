"""Which folders make up which class, and which classes look alike."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict

from spectro.data.manifest import nfc

# In YAML null stands for empty.
Folders = Annotated[list[str], BeforeValidator(lambda value: [] if value is None else value)]
Groups = Annotated[dict[str, list[str]], BeforeValidator(lambda value: {} if value is None else value)]


@dataclass(frozen=True)
class Mapping:
    """Folders -> classes -> stages.

    Attributes:
        classes: Class -> the folders, or the labels of a table, that make it. Empty: each is a class of its own name.
        left_out: Folders that are not used.
        look_alikes: Merged label -> the classes that the easy stage sees as one.
        name: What the mapping is called in results; empty: made from the classes.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    classes: Groups = field(default_factory=dict)
    left_out: Folders = field(default_factory=list)
    look_alikes: Groups = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        # As `spectro.data.manifest` spells folders: a name pasted from a Mac looks the same and is not.
        for key in ("classes", "look_alikes"):
            spelled = {nfc(name): [nfc(part) for part in parts] for name, parts in getattr(self, key).items()}
            object.__setattr__(self, key, spelled)
        object.__setattr__(self, "left_out", [nfc(folder) for folder in self.left_out])
        object.__setattr__(self, "name", self.name or ", ".join(self.classes) or "identity")

    @property
    def group_of(self) -> dict[str, str]:
        """Class -> merged label, for the look-alike classes."""
        return {label: group for group, labels in self.look_alikes.items() for label in labels}

    def contradictions(self) -> list[tuple[str, str]]:
        """What is wrong with the mapping by itself, as (key below ``mapping``, message)."""
        wrong = []
        label_of: dict[str, str] = {}
        for label, folders in self.classes.items():
            if not folders:
                wrong.append((f"classes.{label}", "names no folder; a class needs at least one"))
            for folder in folders:
                if folder in label_of:
                    wrong.append((f"classes.{label}", f"folder {folder!r} already makes class {label_of[folder]!r}"))
                elif folder in self.left_out:
                    wrong.append((f"classes.{label}", f"folder {folder!r} is also in mapping.left_out"))
                label_of.setdefault(folder, label)
        group_of: dict[str, str] = {}
        for group, labels in self.look_alikes.items():
            if len(set(labels)) < 2:
                wrong.append((f"look_alikes.{group}", f"got {list(labels)}; a group needs two or more classes"))
            for label in labels:
                if label in group_of:
                    wrong.append((f"look_alikes.{group}", f"{label!r} is already in {group_of[label]!r}"))
                group_of.setdefault(label, group)
        return wrong + (self._wrong_look_alikes(self.classes) if self.classes else [])

    def _wrong_look_alikes(self, classes: Collection[str]) -> list[tuple[str, str]]:
        """Look-alikes that are no class, and merged labels that hide one."""
        wrong = []
        for group, labels in self.look_alikes.items():
            unknown = [label for label in labels if label not in classes]
            wrong += [(f"look_alikes.{group}", f"got {x!r}; allowed: {', '.join(sorted(classes))}") for x in unknown]
            if group in classes and group not in labels:
                wrong.append((f"look_alikes.{group}", f"{group!r} is also the name of a class outside the group"))
        return wrong

    def label_of(self, folders: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Folder -> class for the folders of a data set.

        Returns:
            The class of each folder that is used, and one line for each thing that does not fit.
        """
        found, folders = set(folders), sorted(set(folders) - set(self.left_out))
        if found and not folders:
            return {}, [f"mapping.left_out: got {', '.join(sorted(found))}, which are all folders; allowed: not all"]
        if not self.classes:
            wrong = [f"mapping.{key}: {text}" for key, text in self._wrong_look_alikes(folders)]
            return {folder: folder for folder in folders}, wrong
        label_of = {folder: label for label, members in self.classes.items() for folder in members}
        problems = [
            f"{folder!r} is neither in mapping.classes nor in mapping.left_out; mapped: {', '.join(sorted(label_of))} "
            "(mapping=identity takes every folder, and every label of a table, as a class)"
            for folder in folders
            if folder not in label_of
        ]
        problems += [
            f"class {label!r} has no images: none of {', '.join(members)} is there"
            for label, members in self.classes.items()
            if not set(members) & set(folders)
        ]
        return {folder: label_of[folder] for folder in folders if folder in label_of}, problems


def hard_stage_names(groups: Sequence[str]) -> dict[str, str]:
    """Merged label -> the name of its hard stage: ``hard``, or ``hard/<group>`` where there are several."""
    return {group: "hard" if len(groups) == 1 else f"hard/{group}" for group in groups}
