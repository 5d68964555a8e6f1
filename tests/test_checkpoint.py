"""Checkpoints: whole or not there, and verified when they are read."""

import logging

import pytest
import torch

from spectro.classifiers.networks.checkpoint import Checkpoints

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    for epoch in (1, 2, 3):
        Checkpoints(tmp_path / "flat", "this", CPU).write(epoch, {"history": [{"epoch": epoch}]})
    (tmp_path / "flat" / ".draft.1").write_bytes(b"half")
    return tmp_path / "flat"


def latest(folder, identity="this"):
    state = Checkpoints(folder, identity, CPU).latest()
    return None if state is None else state["history"][0]["epoch"]


def test_states_are_read_to_the_bit(tmp_path):
    """A training that is resumed from rounded numbers, or in another order of memory, ends with others."""
    state = {"a": torch.randn(2, 3).T, "b": torch.tensor([1e-45, -0.0]), "loss": 0.1 + 0.2, "history": [{"x": None}]}
    Checkpoints(tmp_path, "x", CPU).write(1, state)
    read = Checkpoints(tmp_path, "x", CPU).latest()
    for name in ("a", "b"):
        assert torch.equal(read[name].contiguous().view(torch.int32), state[name].contiguous().view(torch.int32)), name
    assert read["a"].stride() == state["a"].stride()
    assert (read["loss"], read["history"]) == (state["loss"], state["history"])


def test_the_newest_two_are_kept(folder):
    """And half a draft, which a kill leaves behind, is none."""
    assert sorted(p.name for p in folder.iterdir()) == [".draft.1", "epoch_000002.ckpt", "epoch_000003.ckpt"]
    assert latest(folder) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other file"])
def test_a_damaged_one_is_passed_over(folder, damage, caplog):
    """A machine that fails while writing must cost one epoch at most."""
    path = folder / "epoch_000003.ckpt"
    data = bytearray(path.read_bytes())
    data[-3] ^= damage == "flipped"
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other file": b"x\ny"}.get(damage, data))
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert latest(folder) == 2
    assert "epoch_000003.ckpt is damaged" in caplog.text


def test_one_of_another_training_is_passed_over(folder, caplog):
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert latest(folder, "other") is None
    assert "other settings or data" in caplog.text
