"""``spectro train --help``: groups, options and knobs, from the comments in the YAML files."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from spectro.config.groups import Groups

_HEAD = """\
Which kind of model best classifies labelled images of seismic records, and how certain is that?

  spectro train                                      the built-in demo data, a cascade of HOG-SVMs
  spectro train data=folder data.root=DIR            your own images
  spectro train data=folder data.root=DIR model=embed validation=kfold
  spectro train --multirun model=pixels,hog_svm      several runs; spectro compare ranks them
  spectro train --multirun sweeper=hog_svm           a search for better settings
  spectro train resume=outputs/runs/RUN              continues a run that was killed

A group picks one of its options, a knob sets a value: GROUP=OPTION KNOB=VALUE ... (*: default)
"""
_FOOT = """\
All knobs of an option: --help model=deit_vpt; of several: --help model=embed data=folder
stages.easy.KNOB and stages.hard.KNOB set a model's knob for one stage of a cascade.
--cfg job shows the composed configuration, --hydra-help what Hydra itself offers.
"""
# What a group is about; the order in which they are shown.
_GROUPS = {
    "data": "the images",
    "model": "what classifies them",
    "mapping": "which folders make a class, and which classes look alike",
    "cascade_stage": "one model of all classes, or an easy and a hard stage",
    "augmentation": "changed copies of the training images",
    "validation": "how the score is estimated",
    "sweeper": "what a search, with --multirun, varies",
    "experiment": "recipes, each of settings in several groups",
}
# The knobs of which a first reader hears, each with an option that has it.
_MOST_USED = {
    "data.root": "data=folder",
    "data.table": "data=table",
    "data.crop": "data=folder",
    "data.group": "data=folder",
    "mapping.look_alikes": "mapping=identity",
    "train.epochs": "model=resnet18",
    "embed.weights": "model=embed",
    "ensemble.members": "",
    "n_trials": "sweeper=hog_svm",
    "name": "",
    "seed": "",
    "outputs": "",
}
_COLUMNS = 100
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[^\s:#]+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?$")


def knobs(text: str, section: str = "") -> Iterator[tuple[str, str, str]]:
    """The keys of a configuration file, which sets a section; that is empty for the top level.

    Yields:
        Dotted key, default as it is written, comment or nothing.
    """
    parents = [(-1, section)] if section else []
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        indent = len(match["indent"])
        parents = [(depth, name) for depth, name in parents if depth < indent]
        yield ".".join([*(name for _, name in parents), match["key"]]), match["value"] or "", match["comment"] or ""
        parents.append((indent, match["key"]))


def description(text: str) -> str:
    """The first line of comment of an option's file; empty if there is none."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# ") and not line.startswith("# @"))
    return next(comments, "")


def help_text(overrides: Sequence[str], groups: Groups) -> str:
    """Groups, their options, and knobs: the most used ones, or all of the options that are named.

    Help is for finding what exists: overrides such as ``model=hog_svm`` of options that do not exist are passed over.
    """
    defaults = groups.composition().choices
    chosen, lists = [], {}
    for word in overrides:
        group, _, value = word.partition("=")
        names = value.strip("[]").split(",")
        if group in defaults and set(names) <= set(groups.options(group)):
            chosen.append(word)
            lists[group] = names
    choices = groups.composition(chosen).choices
    marked = {group: [option] for group, option in choices.items()} | lists
    lines = [_HEAD, "Groups"]
    for group in dict.fromkeys([*(group for group in _GROUPS if group in marked), *defaults, *marked]):
        lines.append(f"  {group}: {_GROUPS[group]}" if group in _GROUPS else f"  {group}")
        for option in groups.options(group):
            text = description(groups.text(f"{group}/{option}"))
            lines.append(f"    {'*' if option in marked.get(group, ()) else ' '} {option:20} {text}".rstrip())
    if chosen:
        knob_lines = [_knob_line(*knob) for knob in _knobs(chosen, groups)]
        lines += ["", "Knobs (of the options marked *)", *knob_lines]
    else:
        lines += ["", "Knobs that are used most"]
        for key, option in _MOST_USED.items():
            found = [knob for knob in _knobs([option] if option else [], groups) if knob[0] == key]
            lines += [line for knob in found for line in _knob_line(*knob).splitlines()]
    return "\n".join([*lines, "", _FOOT])


def _knobs(chosen: Sequence[str], groups: Groups) -> list[tuple[str, str, str]]:
    """The knobs of some options: key, value, comment."""
    values: dict[str, str] = {}
    comments: dict[str, str] = {}
    # Those of a search come last, though Hydra merges them first.
    for path, section in sorted(groups.composition(chosen).files, key=lambda file: file[0].startswith("hydra/")):
        for key, value, comment in knobs(groups.text(path), section):
            if not path.startswith("hydra/") or key not in values:
                values[key] = value
            if comment and not key.startswith("hydra."):
                comments[key] = comment
    return [(key, values[key], comment) for key, comment in comments.items()]


def _knob_line(key: str, value: str, comment: str) -> str:
    """A knob with its default, and its comment in as many lines as it needs."""
    setting = f"{key}={value.replace('???', '...')}" if value and len(value) < 30 else key
    first, *others = textwrap.wrap(comment, _COLUMNS - 37, break_long_words=False, break_on_hyphens=False)
    head = f"  {setting:34} {first}" if len(setting) < 35 else f"  {setting}\n  {'':34} {first}"
    return "\n".join([head, *(f"  {'':34} {line}" for line in others)])
