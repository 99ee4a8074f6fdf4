from __future__ import annotations

import pytest
import torch
import torch.nn as nn

from toca.text import from_disk_or_hub, load_encoder


class Hub:
    """Stands for a class of transformers: what it was asked for, and whether only this machine was."""

    here: frozenset[str] = frozenset()
    asked: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def from_pretrained(cls, source, local_files_only=False):
        cls.asked += ((source, local_files_only),)
        if local_files_only and source not in cls.here:
            raise OSError("not here")
        return source


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "here", frozenset({"owner/here"}))
    monkeypatch.setattr(Hub, "asked", ())
    return Hub


def test_what_is_here_is_not_fetched(hub):
    assert from_disk_or_hub(hub, "owner/here") == "owner/here"
    assert hub.asked == (("owner/here", True),)


def test_a_hub_name_is_fetched_and_a_path_is_not(hub):
    from_disk_or_hub(hub, "owner/there")
    assert hub.asked == (("owner/there", True), ("owner/there", False))
    with pytest.raises(OSError, match="not here"):
        from_disk_or_hub(hub, "./no/such/folder")
    assert len(hub.asked) == 3


def test_an_encoder_is_whole():
    class Model(nn.Linear):
        config = type("Config", (), {"model_type": "t5"})
        missing: tuple[str, ...] = ()

        @classmethod
        def from_pretrained(cls, source, local_files_only, dtype, output_loading_info):
            return cls(2, 2, dtype=dtype), {"missing_keys": cls.missing}

    model = load_encoder(Model, "folder", torch.bfloat16)
    assert not model.training and not model.weight.requires_grad and model.weight.dtype is torch.bfloat16
    Model.missing = ("b", "a")
    with pytest.raises(ValueError, match="folder lacks 2 tensors of its t5 text encoder, first a"):
        load_encoder(Model, "folder", torch.float32)
