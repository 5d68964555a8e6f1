"""Why a score of train and val may lie above test's, and what to try next."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from spectro.evaluation.format import format_number
from spectro.runs.task import Task


def hints(task: Task, metrics: Mapping[str, Any]) -> list[str]:
    """A line for each of ``cv`` and ``val`` whose macro-F1 lies above the interval of test's.

    Args:
        task: The task.
        metrics: The content of ``metrics.json``.
    """
    lines, test = [], metrics["test"]
    for split in ("cv", "val"):
        value, high = metrics.get(split, {}).get("macro_f1"), test["macro_f1_ci_high"]
        if value is not None and high is not None and round(value, 2) > round(high, 2):
            of_test = format_number(test["macro_f1"], test["macro_f1_ci_low"], high)
            lines.append(
                f"macro-F1 of {split}, {format_number(value)}, lies above test's, {of_test}: {_why(task, split)}"
            )
    return lines


def _why(task: Task, split: str) -> str:
    if task.config.is_refit and task.dataset.split_here:
        return "test was drawn at random from the same records: it may be chance, as it has few of some classes"
    if task.config.is_refit:
        return (
            "test may hold other days, stations or speakers than train and val; "
            "validation=leave_one_group_out data.group=REGEX evaluates on new ones"
        )
    train, both = (Counter(task.labels_of(records)) for records in (task.records["train"], task.train_and_val))
    rarest = min(train, key=lambda label: (train[label], label))
    if split == "cv":
        return (
            f"the final model is fitted to {train[rarest]} records of {rarest}, and train and val have {both[rarest]}; "
            "validation.refit=true fits it to all of them"
        )
    return (
        f"val has {len(task.records['val'])} records, and choices are made on it; validation=kfold evaluates "
        f"{both.total()} and fits the model to all of them ({both[rarest]} of {rarest} instead of {train[rarest]})"
    )
