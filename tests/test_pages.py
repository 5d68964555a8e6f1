"""What a person reads on MLflow's pages says what the run directory says, and never takes a person's words away."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spectro import tracking
from spectro.tracking import _pages, _store

FIGURES = ["figures/wrong_test.png", "figures/recall.png", "figures/confusion_test.png"]
SHOWN = ["figures/confusion_test.png", "figures/recall.png"]


def metrics_of(labels: list[str]) -> dict[str, Any]:
    """A small metrics.json."""

    def table(shift: float) -> dict[str, Any]:
        ends = {"macro_f1_ci_low": 0.25 + shift, "macro_f1_ci_high": None if shift else 0.75}
        rows = {label: {"recall": 0.5, "recall_ci_low": 0.1, "recall_ci_high": 0.9, "support": 4} for label in labels}
        return {"macro_f1": 0.5 + shift, **ends, "accuracy": None, "n_records": 21, "per_class": rows}

    return {"val": table(0.125), "test": table(0), "stages": {"easy": {"test": table(0)}}, "objective": 0.5}


def note_of(labels: list[str], tags: dict[str, str] | None = None, **run: Any) -> dict[str, str]:
    """The tags of a description."""
    return _pages.note_tags(run, metrics_of(labels), FIGURES, "RUN", tags or {})


def test_every_number_of_a_description_has_its_records_and_its_interval() -> None:
    """As on the terminal: no lone number, and an interval only where there is one."""
    note = note_of(["a"])[_pages.NOTE].replace("&emsp;", "").splitlines()
    assert note[0] == "|  | test | val |"
    assert "| macro-F1 | 0.50 [0.25, 0.75] n=21 | 0.62 n=21 |" in note
    assert "| recall of a | 0.50 [0.10, 0.90] n=4 | 0.50 [0.10, 0.90] n=4 |" in note
    assert not any("accuracy" in line for line in note)
    assert "| stage easy: macro-F1 | 0.50 [0.25, 0.75] n=21 | – n=0 |" in note


def test_the_images_that_matter_come_first() -> None:
    note = note_of(["a"], warnings=["val has *few* records"])[_pages.NOTE]
    assert re.findall(r"path=(.*?)&", note) == SHOWN
    assert "get-artifact?path=figures/recall.png&run_uuid=RUN" in note
    assert "- val has \\*few\\* records" in note


@pytest.mark.parametrize("count", [1, 1000])
def test_any_labels_leave_the_table_a_table(count: int) -> None:
    """Labels are folder names: what markdown or HTML would read as its own must stay text, and many must fit."""
    note = note_of([f"<b>|a_b_*c*[d](e) {'шум' * 9} {i}" for i in range(count)])[_pages.NOTE]
    rows = [line for line in note.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}
    assert "<b>" not in note
    assert len(note) <= 8000
    assert note.count("get-artifact") == len(SHOWN)
    assert ("more in metrics.json" in note) == (count > 1)


def test_what_a_person_wrote_stays() -> None:
    """A description is written again with the results of a resumed run, but not over a person's."""
    first = note_of(["a"])
    assert note_of(["b"], first)[_pages.NOTE] != first[_pages.NOTE]
    assert note_of(["b"], {**first, _pages.NOTE: "a person's"}) == {}
    assert note_of(["b"], {_pages.NOTE: "a person's"}) == {}


def test_a_failed_run_has_nothing_to_say() -> None:
    assert _pages.note_tags({}, {}, [], "RUN", {}) == {}


def test_a_search_says_what_it_is_about_before_and_after() -> None:
    run = {
        "tags": {"sweep": "true", "study": "s 1"},
        "config": {"objective": "cv/macro_f1", "search": {"svm": {"C": "1 to 10"}}},
    }
    before = _pages.note_tags(run, {}, [], "RUN", {})
    assert "| `svm.C`&emsp; | 1 to 10&emsp; |" in before[_pages.NOTE]
    ends = {"best": 0.75, "trials": {"complete": 2, "pruned": 0, "fail": 1, "all": 3}}
    after = _pages.note_tags(run, ends, [], "RUN", before)
    assert "3 trials: 2 complete, 1 fail; the best reached 0.75" in after[_pages.NOTE]


def test_an_experiment_is_introduced_once(tmp_path: Path) -> None:
    """A new one and one made by hand get views and description; what a person threw away or wrote stays as it is."""
    with _store.settings(_store.PROBE):
        client = _store.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
        by_hand = client.create_experiment("by hand", tags={_pages.NOTE: "mine"})
        for name in ("by hand", "new"):
            found = client.get_experiment(_store.experiment_id(client, name, None))
            views = {k: json.loads(v) for k, v in found.tags.items() if k.startswith(_pages.VIEWS)}
            assert {view["name"] for view in views.values()} == {"Results", "Families", "Searches"}
            assert all(json.loads(view["state"]) and view["createdAt"] for view in views.values())
            assert found.tags["mlflow.experimentKind"] == "custom_model_development"
            address = (
                f"#/experiments/{found.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=results"
            )
            assert (address in found.tags[_pages.NOTE]) == (name == "new")
        assert client.get_experiment(by_hand).tags[_pages.NOTE] == "mine"
        client.delete_experiment_tag(by_hand, f"{_pages.VIEWS}results")
        _store.experiment_id(client, "by hand", None)
        assert f"{_pages.VIEWS}results" not in client.get_experiment(by_hand).tags


def test_the_columns_of_the_views_are_metrics_that_a_run_has() -> None:
    """A renamed metric would leave a column empty, and nobody would see why."""
    metrics = metrics_of(["a"])
    for table in (metrics["test"], metrics["val"]):
        table |= {f"{name}{end}": 0.5 for name in ("macro_f1", "hard_pair_f1") for end in ("", "_ci_low", "_ci_high")}
    sweep = {"best": 0.5, "trials": {"complete": 2, "pruned": 0, "fail": 1}}
    known = {*tracking.flatten_metrics(metrics, {}), *tracking.flatten_metrics(sweep, {})}
    views = _pages._views().values()
    columns = {column for _, state in views for column in state["selectedColumns"]}
    wanted = {column.removeprefix("metrics.`")[:-1] for column in columns if column.startswith("metrics.")}
    assert wanted <= known
