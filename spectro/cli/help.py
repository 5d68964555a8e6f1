"""``python train.py --help``: every group and knob with one line each, read from the comments in ``conf/``."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spectro.paths import CONF

_HEAD = """\
Which of several model families best sorts labelled images of seismic records, and how sure can you be?

  python train.py                                     HOG-SVM cascade on the built-in demo data
  python train.py model=deit_vpt vpt.variant=deep     visual prompt tuning of a vision transformer
  python train.py data=folder data.root=DIR mapping=identity cascade_stage=flat
  python train.py --multirun data.seed=0,1,2          several runs
  python train.py --multirun sweeper=hog_svm          a search, then one run of the best on test

A group picks one of the options; a knob sets one value: GROUP=OPTION KNOB=VALUE ...
"""
_FOOT = """\
stages.easy.KNOB and stages.hard.KNOB set a model's knob for one stage of the cascade.
resume=DIR goes on with a run that was killed.
--cfg job shows the composed configuration, --hydra-help what Hydra itself offers.
"""
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[^\s:#]+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?$")


def knobs(path: Path, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The commented keys of a configuration file.

    Args:
        path: A file of ``conf/``.
        prefix: The group's name, unless the file says that it is ``_global_``.

    Yields:
        Dotted key, default as written, comment.
    """
    text = path.read_text(encoding="utf-8")
    parents = [] if "@package _global_" in text or not prefix else [(-1, prefix)]
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        indent = len(found["indent"])
        parents = [(depth, name) for depth, name in parents if depth < indent]
        key = ".".join([*(name for _, name in parents), found["key"]])
        if found["comment"]:
            yield key, found["value"] or "", found["comment"]
        parents.append((indent, found["key"]))


def options(group: str) -> dict[str, str]:
    """The options of a group, each with the first comment line of its file."""
    found = {}
    for path in sorted((CONF / group).glob("[!_]*.yaml")):
        comments = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        found[path.stem] = next(line for line in comments if not line.startswith("@package"))
    return found


def groups() -> dict[str, str]:
    """The groups in the order of the defaults list, each with its default option."""
    defaults = (CONF / "config.yaml").read_text(encoding="utf-8").split("defaults:")[1].split("\n\n")[0]
    return dict(re.findall(r"^  - (\w+): (\w+)$", defaults, re.MULTILINE))


def help_text(arguments: Sequence[str] = ()) -> str:
    """Groups, their options and the knobs of the chosen ones.

    Args:
        arguments: Overrides such as ``model=hog_svm``: the knobs shown are those of these options.
    """
    chosen = groups()
    chosen |= {g: o for g, _, o in (a.partition("=") for a in arguments) if g in chosen and o in options(g)}
    lines = [_HEAD, "Groups"]
    for group, option in chosen.items():
        lines.append(f"  {group}")
        for name, text in options(group).items():
            lines.append(f"    {'*' if name == option else ' '} {name:20} {text}")
    lines += ["", "Knobs (of the options marked *)"]
    files = [(CONF / "config.yaml", "")]
    for group, option in chosen.items():
        files += [(CONF / group / f"{name}.yaml", group) for name in (option, "_base")]
    files = [(path, group) for path, group in files if path.is_file()]
    if chosen["sweeper"] != "none":
        files.append((CONF / "hydra" / "sweeper" / "study.yaml", ""))
    found = [knob for path, prefix in files for knob in knobs(path, prefix)]
    for key, value, comment in found:
        shown = f"{key}={value}" if value and len(value) < 30 else key
        lines.append(f"  {shown:34} {comment}" if len(shown) < 35 else f"  {shown}\n  {'':34} {comment}")
    return "\n".join([*lines, "", _FOOT])
