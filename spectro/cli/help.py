"""``spectro train --help``: every group and knob with one line each, from the comments in the YAML files."""

import re
from collections.abc import Iterator, Sequence

from spectro.config.groups import Groups

_HEAD = """\
Which of several model families best classifies labelled images of seismic records, and how certain is that?

  spectro train                                       HOG-SVM cascade on the built-in demo data
  spectro train model=deit_vpt vpt.variant=deep       visual prompt tuning of a vision transformer
  spectro train data=folder data.root=DIR mapping=identity cascade_stage=flat
  spectro train --multirun data.seed=0,1,2            several runs
  spectro train --multirun sweeper=hog_svm            a search, then one run of the best on test

A group picks one of the options; a knob sets one value: GROUP=OPTION KNOB=VALUE ...
"""
_FOOT = """\
stages.easy.KNOB and stages.hard.KNOB set a model's knob for one stage of the cascade.
resume=DIR continues a run that was killed.
--cfg job shows the composed configuration, --hydra-help what Hydra itself offers.
"""
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[^\s:#]+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?$")


def knobs(text: str, section: str = "") -> Iterator[tuple[str, str, str]]:
    """The keys of a configuration file.

    Args:
        text: The file.
        section: The section that the file sets, empty for the top level.

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
    """Groups, their options and the knobs of the chosen ones.

    Args:
        overrides: Overrides such as ``model=hog_svm``: the knobs shown are those of these options. Help is for finding
            what exists: options that do not exist are passed over.
        groups: The configuration groups.
    """
    defaults = groups.composition().choices
    chosen, lists = [], {}
    for word in overrides:
        group, _, value = word.partition("=")
        names = value.strip("[]").split(",")
        if group in defaults and set(names) <= set(groups.options(group)):
            chosen.append(word)
            lists[group] = names
    choices, files = groups.composition(chosen)
    marked = {group: [option] for group, option in choices.items()} | lists
    lines = [_HEAD, "Groups"]
    for group in defaults | marked:
        lines.append(f"  {group}")
        for option in groups.options(group):
            text = description(groups.text(f"{group}/{option}"))
            lines.append(f"    {'*' if option in marked.get(group, ()) else ' '} {option:20} {text}".rstrip())
    values: dict[str, str] = {}
    comments: dict[str, str] = {}
    # Those of a search come last, though Hydra merges them first.
    for path, section in sorted(files, key=lambda file: file[0].startswith("hydra/")):
        for key, value, comment in knobs(groups.text(path), section):
            if not path.startswith("hydra/") or key not in values:
                values[key] = value
            if comment and not key.startswith("hydra."):
                comments[key] = comment
    lines += ["", "Knobs (of the options marked *)"]
    for key, comment in comments.items():
        value = values[key]
        setting = f"{key}={value}" if value and len(value) < 30 else key
        lines.append(f"  {setting:34} {comment}" if len(setting) < 35 else f"  {setting}\n  {'':34} {comment}")
    return "\n".join([*lines, "", _FOOT])
