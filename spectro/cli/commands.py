"""The console script ``spectro``: one command for each thing that people do with runs and models."""

import os
import sys
from importlib import import_module

from spectro import __version__

# Command -> its module in spectro.cli, and its line in ``spectro --help``.
COMMANDS = {
    "train": ("train", "train and evaluate one configuration, or search for the best one (--multirun)"),
    "compare": ("compare", "put finished runs side by side, with paired tests and a report"),
    "ensemble": ("ensemble", "make one run of several finished ones, the mean of their probabilities"),
    "predict": ("predict", "classify new images with the model of a run"),
    "audit": ("audit", "find labels that may be wrong, near-duplicates, and records unlike all others"),
    "suggest": ("suggest", "choose the images to label next from a folder of unlabelled ones"),
    "look-alikes": ("look_alikes", "find the classes that a run confuses beyond chance, for a cascade"),
    "promote": ("promote", "register the best run as a named model, if it beats what is there"),
    "export": ("export", "write the model of a run as an ONNX file, for programs without spectro"),
    "resend": ("resend", "send runs to MLflow that it does not have yet"),
    "learning-curve": ("learning_curve", "macro-F1 against the number of training records"),
    "show-augmentation": ("show_augmentation", "draw training records and their augmented views"),
}


def main() -> None:
    """Entry point: runs the module of the command with the rest of the command line."""
    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in COMMANDS:
        # Hydra's shell completion is installed for the program, argparse shows the command as well.
        sys.argv[:] = [sys.argv[0] if name == "train" else f"spectro {name}", *arguments]
        sys.exit(import_module(f"spectro.cli.{COMMANDS[name][0]}").main())
    elif name == "-sc":
        _complete(*arguments)
    elif name == "--version":
        print(f"spectro {__version__}")
    elif name in ("-h", "--help"):
        lines = [f"  {command:18} {line}" for command, (_, line) in COMMANDS.items()]
        print("usage: spectro COMMAND ...", "", *lines, "", "spectro COMMAND --help shows its options.", sep="\n")
    else:
        from spectro.knobs import did_you_mean

        hint = f"; did you mean spectro train {name}?" if "=" in name else did_you_mean(name, COMMANDS)
        print(f"error: got {name!r}; allowed: {', '.join(COMMANDS)}, --version, --help{hint}", file=sys.stderr)
        sys.exit(2)


def _complete(query: str) -> None:
    """Answers the script that ``spectro train -sc install=SHELL`` installs, which asks ``spectro -sc query=SHELL``."""
    program, *words = os.environ["COMP_LINE"].split(" ")
    words = [word for word in words[:-1] if word] + words[-1:]
    if len(words) < 2:
        print("\n".join(COMMANDS))
    elif words[0] == "train":
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
        sys.argv[:] = [program, "-sc", query]
        import_module("spectro.cli.train").main()
