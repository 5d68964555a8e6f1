"""Folders -> classes -> stages: what fits is folded, what does not is reported, never guessed."""

import unicodedata

import pytest

from spectro.data.mapping import Mapping


def messages(mapping: Mapping) -> str:
    return "\n".join(f"{key}: {text}" for key, text in mapping.contradictions())


def test_a_mapping_needs_only_what_it_uses():
    """Results are called after it, and two mappings of one name would be averaged."""
    assert [
        Mapping(classes, name=name).name for classes, name in (({}, ""), ({"a": ["x"], "b": ["y"]}, ""), ({}, "n"))
    ] == [*("identity", "a, b", "n")]


def test_folders_fold_into_their_class_and_left_out_ones_vanish():
    """A class needs one of its folders only."""
    mapping = Mapping({"surface": ["love", "rayleigh", "none"], "body": ["p"]}, left_out=["junk"])
    assert mapping.contradictions() == []
    assert mapping.label_of(["love", "p", "junk", "rayleigh"]) == (
        {"love": "surface", "p": "body", "rayleigh": "surface"},
        [],
    )


def test_a_folder_neither_mapped_nor_left_out_is_an_error_that_names_both_ways_out():
    label_of, (problem,) = Mapping({"surface": ["love"]}).label_of(["love", "stray"])
    assert label_of == {"love": "surface"}
    for word in ("'stray'", "mapping.classes", "mapping.left_out", "mapping=identity"):
        assert word in problem


def test_a_class_without_any_folder_on_disk_is_an_error():
    _, (problem,) = Mapping({"a": ["a"], "b": ["b1", "b2"]}).label_of(["a"])
    assert "'b'" in problem
    assert "b1, b2" in problem


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (Mapping({"a": []}), "classes.a: names no folder"),
        (Mapping({"a": ["x"], "b": ["x"]}), "classes.b: folder 'x' already makes class 'a'"),
        (Mapping({"a": ["x"]}, left_out=["x"]), "classes.a: folder 'x' is also in mapping.left_out"),
        (Mapping({"a": ["x"], "b": ["y"]}, look_alikes={"g": ["a"]}), "look_alikes.g: got ['a']; a group needs two"),
        (Mapping({"a": ["x"], "b": ["y"]}, look_alikes={"g": ["a", "a"]}), "a group needs two"),
        (Mapping({"a": ["x"], "b": ["y"]}, look_alikes={"g": ["a", "c"]}), "got 'c'; allowed: a, b"),
        (
            Mapping({k: [k] for k in "abc"}, look_alikes={"g": ["a", "b"], "h": ["b", "c"]}),
            "look_alikes.h: 'b' is already in 'g'",
        ),
        (Mapping({k: [k] for k in "abc"}, look_alikes={"c": ["a", "b"]}), "'c' is also the name of a class outside"),
    ],
)
def test_contradictions_are_named_with_their_key(mapping, message):
    assert message in messages(mapping)


def test_look_alikes_of_identity_are_checked_against_the_folders():
    mapping = Mapping(look_alikes={"g": ["a", "ghost"]}, left_out=["junk"])
    assert mapping.contradictions() == []  # nothing is known before the folders are
    _, (problem,) = mapping.label_of(["a", "b", "junk"])
    assert problem == "mapping.look_alikes.g: got 'ghost'; allowed: a, b"
    assert mapping.label_of(["a", "ghost", "b"])[1] == []


def test_names_typed_in_another_unicode_spelling_still_fit():
    composed, decomposed = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))
    mapping = Mapping({decomposed: [decomposed], "b": ["b"]}, [decomposed + "2"], {"g": [decomposed, "b"]})
    assert mapping.contradictions() == []
    assert mapping.label_of([composed, "b", composed + "2"]) == ({composed: composed, "b": "b"}, [])
