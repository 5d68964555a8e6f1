"""Checkpoints: whole or not there, and never believed unchecked."""

import logging

import pytest
import torch

from spectro.classifiers.networks.checkpoint import Checkpoints


def tensors(value):
    return {"now/weight": torch.full((3, 2), float(value)), "optimizer/0.step": torch.tensor(float(value))}


@pytest.fixture
def kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "flat", "mine")
    for epoch in (1, 2, 3):
        checkpoints.write(epoch, tensors(epoch), {"history": [{"epoch": epoch, "val_loss": 0.1}]})
    return checkpoints


def files(checkpoints):
    return sorted(p.name for p in checkpoints._folder.iterdir())


def test_to_the_bit(tmp_path):
    given = {"a": torch.randn(5), "b": torch.randn(2, 3).T, "c": torch.tensor([1e-45, -0.0])}
    Checkpoints(tmp_path, "x").write(1, given, {"loss": 0.1 + 0.2})
    found, facts = Checkpoints(tmp_path, "x").latest()
    for name, tensor in given.items():
        assert torch.equal(found[name].view(torch.int32), tensor.contiguous().view(torch.int32)), name
    assert facts == {"loss": 0.1 + 0.2}


def test_the_newest_and_the_one_before_are_kept(kept):
    assert files(kept) == ["epoch_000002.ckpt", "epoch_000003.ckpt"]
    assert kept.latest()[1]["history"][0]["epoch"] == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other file"])
def test_a_damaged_one_is_passed_over(kept, damage, caplog):
    path = kept._folder / "epoch_000003.ckpt"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-3] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": data, "other file": b"x\ny"}[damage])
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert kept.latest()[1]["history"][0]["epoch"] == 2
    assert "epoch_000003.ckpt is damaged" in caplog.text


def test_nothing_is_whole(kept):
    for path in kept._folder.iterdir():
        path.write_bytes(b"")
    assert kept.latest() is None


def test_one_of_another_training(kept, caplog):
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert Checkpoints(kept._folder, "other").latest() is None
    assert "other settings or data" in caplog.text


def test_half_a_draft_is_no_checkpoint(kept):
    (kept._folder / ".draft.1").write_bytes(b"half")
    assert kept.latest()[1]["history"][0]["epoch"] == 3


def test_without_a_folder_nothing_is_kept():
    checkpoints = Checkpoints(None, "x")
    checkpoints.write(1, tensors(1), {})
    assert checkpoints.latest() is None
