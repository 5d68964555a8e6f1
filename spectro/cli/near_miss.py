"""What a word of the command line was probably meant to be: a message about it ends with that."""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from spectro.cli.help import description, knobs
from spectro.config.groups import Composition, Groups
from spectro.knobs import did_you_mean
from spectro.paths import in_shell

# Their options set keys that options of other groups bring.
RECIPES = ("experiment", "sweeper")
_LOOK_ALIKES = "mapping.look_alikes"


class Corrections:
    """Corrections of the words of a command line."""

    def __init__(self, words: Sequence[str], groups: Groups):
        self._words, self._groups = words, groups
        self._options = {group: groups.options(group) for group in groups.composition().choices}

    def of(self, word: str) -> str:
        """What to type in place of a word that is refused, quoted for a shell; empty where nothing comes near.

        ``cascade=flat`` gives ``cascade_stage=flat``, and a mere ``deep`` gives ``model=deit_vpt vpt.variant=deep``.
        """
        key, is_pair, value = word.lstrip("+~").partition("=")
        if not is_pair:
            key, value = "", word
        if word in ("multirun", "resume"):
            return {"multirun": "--multirun", "resume": "resume=outputs/runs/RUN"}[word]
        if key.startswith(_LOOK_ALIKES):
            return self._look_alikes(key, value)
        if self._owner_of.get(key) == "":
            return ""  # the configuration has it: the value is wrong
        return (
            self._without_spaces(word)
            or self._owned(key, value)
            or self._option(key, value)
            or self._records(key, value)
            or self._value(key, value)
            or self._leaf(key, value)
        )

    @cached_property
    def _composition(self) -> Composition:
        """The files of the options that are chosen."""
        pairs = [word.split("=", 1) for word in self._words if "=" in word]
        return self._groups.composition([f"{k}={v}" for k, v in pairs if v in self._options.get(k, ())])

    @cached_property
    def _owner_of(self) -> dict[str, str]:
        """Every key, and the option that brings it; empty for a key that the configuration has."""
        owner_of = dict.fromkeys(self._groups.keys(self._composition.files), "")
        for group, options in self._options.items():
            for option in options if group not in RECIPES else ():
                for key in self._groups.keys_of(group, option):
                    owner_of.setdefault(key, f"{group}={option}")
        return owner_of

    def _without_spaces(self, word: str) -> str:
        """``seed = 1``, ``seed 1`` and ``seed:1`` for ``seed=1``."""
        i = self._words.index(word)
        before, after, last = (self._words[j] if 0 <= j < len(self._words) else "" for j in (i - 1, i + 1, i + 2))
        key, colon, value = word.partition(":")
        if "=" not in word and before.endswith("="):
            return _typed(before[:-1], word)
        if "=" not in word and after.startswith("="):
            return _typed(word, after[1:] or last)
        if "=" not in word and after and "=" not in after and self.is_key(word):
            return _typed(word, after)
        return _typed(key, value) if colon and self.is_key(key) else ""

    def is_key(self, word: str) -> bool:
        """Whether a word is a group, a knob or ``resume``."""
        return word in self._options or word in self._owner_of or word == "resume"

    def _owned(self, key: str, value: str) -> str:
        """A knob with the option that brings it, unless another option of its group was chosen."""
        owner = self._owner_of.get(key, "")
        is_chosen = any(word.startswith(f"{owner.partition('=')[0]}=") for word in self._words)
        return f"{owner} {_typed(key, value)}" if owner and not is_chosen else ""

    def _records(self, key: str, value: str) -> str:
        """A folder or a table of the user's in a wrong place."""
        if key and key != "data" and not (key.startswith("data.") and not self.is_key(key)):
            return ""
        if (key != "data" and not _is_path(value)) or "=" in value:
            return ""
        option, knob = ("table", "table") if Path(value).suffix in (".csv", ".tsv") else ("folder", "root")
        return f"data={option} {_typed(f'data.{knob}', value)}"

    def _option(self, key: str, value: str) -> str:
        """Another name of an option: a part of it, a word of its line in ``--help``, or one of another group."""
        if key in self._options:
            names = self._options[key]
            if key == "data" and _is_path(value):
                return ""
            parts = [name for name in names if len(value) > 2 and value.lower() in name]
            word = re.compile(rf"\b{re.escape(value)}\b", re.IGNORECASE)
            lines = [] if key == "data" else names
            described = [name for name in lines if word.search(description(self._groups.text(f"{key}/{name}")))]
            nothing = ["none"] if value in ("off", "no", "false") and "none" in names else []
            fitting = parts or nothing or described
            return f"{key}={min(fitting, key=len)}" if fitting else ""
        having = [group for group, names in self._options.items() if value in names]
        near = [group for group in having if key and (key in group or group in key or get_close_matches(key, [group]))]
        if near or (having and (not key or len(having) == 1) and not self.is_key(key)):
            return " or ".join(f"{group}={value}" for group in near or having)
        return " or ".join(f"{group}={key}" for group, names in self._options.items() if key in names)

    def _value(self, key: str, value: str) -> str:
        """A value without its knob, or with the knob's section alone; comments explain values: ``deep: ...``."""
        for knob, comment in self._comments() if re.fullmatch(r"\w{3,}", value) and not self.is_key(key) else ():
            if knob.startswith(f"{key}.".lstrip(".")) and re.search(rf"(?:^|[ .;]){value}: ", comment):
                return f"{self._owner_of.get(knob, '')} {_typed(knob, value)}".strip()
        return ""

    def _comments(self) -> Iterator[tuple[str, str]]:
        """Knobs and their comments, those of the chosen options first."""
        others = [self._groups.composition([f"model={option}"]) for option in self._options.get("model", ())]
        for composition in (self._composition, *others):
            for path, section in composition.files:
                for knob, _, comment in knobs(self._groups.text(path), section):
                    yield knob, comment

    def _leaf(self, key: str, value: str) -> str:
        """A knob without its section, such as ``C=3``."""
        leaves = [knob for knob in self._owner_of if key and knob.endswith(f".{key}")]
        return _typed(leaves[0], value) if leaves else ""

    def _look_alikes(self, key: str, value: str) -> str:
        """Look-alikes without the name of their group, or as a shell leaves ``{pair: [a, b]}`` without quotes."""
        if (key in self._owner_of and key != _LOOK_ALIKES) or re.fullmatch(r"\{.*:.*\}", value):
            return ""
        first = next(i for i, word in enumerate(self._words) if word.lstrip("+~").startswith(_LOOK_ALIKES))
        parts = [word for word in self._words[first:] if word.lstrip("+~").startswith(_LOOK_ALIKES) or "=" not in word]
        text = " ".join(word.rpartition("=")[2] for word in parts)
        group, colon, members = text.partition(":")
        group = group.strip("{ ") if colon else key.removeprefix(_LOOK_ALIKES).lstrip(".") or "pair"
        # Labels may have spaces in them.
        separators = r"[,\[\]{}]" if "," in text else r"[\s\[\]{}]"
        names = [name.strip(" '\"") for name in re.split(separators, members if colon else text)]
        names = [name for name in names if name]
        return f"'{_LOOK_ALIKES}={{{group}: [{', '.join(names if len(names) > 1 else [*names, 'OTHER'])}]}}'"


def unknown_flag(flag: str, arguments: Sequence[str], known: Iterable[str], groups: Groups) -> str:
    """The message about a word such as ``--seed=1`` that is no flag; argparse's would print all flags."""
    name, is_pair, value = flag.lstrip("-").partition("=")
    if not is_pair:
        value = dict(pairwise(arguments)).get(flag, "VALUE")
    if Corrections([], groups).is_key(name):
        return f"got {flag!r}; expected KEY=VALUE; did you mean {_typed(name, value)}?"
    flags = sorted(name for name in known if name.startswith("--"))
    return f"got {flag!r}; expected KEY=VALUE, or one of {', '.join(flags)}{did_you_mean(flag, flags)}"


def _is_path(text: str) -> bool:
    """Whether a word looks like a path, or is one."""
    return "/" in text or (text != "" and Path(text).expanduser().exists())


def _typed(key: str, value: str) -> str:
    """An override as it is typed in a shell, with the quotes that the shell and Hydra take off."""
    is_plain = re.fullmatch(r"[\w./:+%@-]*", value, re.ASCII) or value[:1] in ("[", "{", "'", '"')
    return in_shell([f"{key}={value}" if is_plain else f"{key}='{value}'"])
