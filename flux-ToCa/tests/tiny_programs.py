"""The programs on tiny components: the real code paths and files, in small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_parts import CLIP_WIDTH, T5_WIDTH, TINY_AE, TINY_FLUX, save_ae, save_flux

from flux import weights
from toca.testing.parts import save_clip, save_t5

CHANNELS = {"fill": 384, "canny": 128, "depth": 128}


def tiny_params(name: str):
    channels = next((number for kind, number in CHANNELS.items() if kind in name), 64)
    return TINY_FLUX.replace(in_channels=channels, guidance_embed=name != "flux-schnell")


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """A folder with a checkpoint for every name, `ae.safetensors`, and the encoders `first` (T5) and `second` (CLIP)."""
    folder = tmp_path_factory.mktemp("parts")
    for name, config in weights.CONFIGS.items():
        if not config.lora:
            save_flux(folder / config.flow.file, tiny_params(name))
    save_ae(folder / "ae.safetensors")
    save_t5(folder / "first", T5_WIDTH)
    save_clip(folder / "second", CLIP_WIDTH)
    return folder


def shrink(setitem: Callable[[str, weights.Config], None], setattr: Callable[[object, str, object], None] = setattr) -> None:
    """Make the named models tiny, by the functions that change them."""
    for name, config in list(weights.CONFIGS.items()):
        setitem(name, dataclasses.replace(config, params=tiny_params(name), t5_length=12))
    setattr(weights, "AE_PARAMS", TINY_AE)


@pytest.fixture
def tiny(parts, monkeypatch) -> list[str]:
    """The named models are tiny; returns the flags that find their files and keep runs short."""
    shrink(lambda name, config: monkeypatch.setitem(weights.CONFIGS, name, config), monkeypatch.setattr)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = ["--ckpt", str(parts), "--ae", str(parts / "ae.safetensors"), "--t5", str(parts / "first"), "--clip", str(parts / "second")]
    return [*files, "--width", "64", "--height", "50", "--device", "cpu", "--dtype", "fp32"]
