"""The plain model: published shapes, agreement with diffusers, grids, guidance, precision, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import SMALL, SMALL_MS, inputs, small_pixart

from pixart.model import PixArt, PixArt_XL_2, PixArtMS, PixArtMS_XL_2, trim_text
from pixart.spec import CONFIGS, PixArtConfig
from pixart.weights import to_diffusers

PUBLISHED = json.loads(
    (Path(__file__).parent / "checkpoint_keys.json").read_text(encoding="utf-8")
)  # name -> key -> shape; of blocks, the first


@pytest.mark.parametrize(
    ("name", "pixels", "parameters"),
    [("PixArt-XL-2-256x256", 256, 610_856_096), ("PixArt-XL-2-512x512", 512, 610_856_096), ("PixArt-XL-2-1024-MS", 1024, 611_349_152)],
)
def test_keys_and_shapes_are_the_published_ones(name: str, pixels: int, parameters: int) -> None:
    with torch.device("meta"):
        model = (PixArtMS if CONFIGS[pixels].micro_conditions else PixArt)(CONFIGS[pixels])
    block = {key: shape for key, shape in PUBLISHED[name].items() if key.startswith("blocks.0.")}
    published = dict(PUBLISHED[name])
    published |= {key.replace("blocks.0.", f"blocks.{i}."): shape for i in range(28) for key, shape in block.items()}
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_constructors_have_the_published_names() -> None:
    with torch.device("meta"):
        assert PixArt_XL_2(input_size=64).config == CONFIGS[512]
        assert PixArtMS_XL_2().config == CONFIGS[1024] and isinstance(PixArtMS_XL_2(depth=1), PixArtMS)


@pytest.mark.parametrize("config", [SMALL, SMALL_MS], ids=["plain", "MS"])
@torch.no_grad()
def test_a_diffusers_model_agrees(config: PixArtConfig) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.PixArtTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        num_layers=config.depth,
        cross_attention_dim=config.hidden_size,
        sample_size=config.input_size,
        caption_channels=config.caption_channels,
        interpolation_scale=int(config.lewei_scale),
        use_additional_conditions=config.micro_conditions,
    ).eval()
    model = small_pixart(config)
    theirs.load_state_dict(to_diffusers(model.state_dict(), config))
    data, t = inputs(3, config), torch.tensor([949.05, 12.0, 0.5])
    known = config.micro_conditions
    added = dict(resolution=data.img_hw if known else None, aspect_ratio=data.aspect_ratio if known else None)
    expected = theirs(data.z, data.text, t, added, encoder_attention_mask=data.mask, return_dict=False)[0]
    found = model(data.z, t, data.text, data.mask, dict(img_hw=data.img_hw, aspect_ratio=data.aspect_ratio))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_texts_may_have_a_batch_dimension_more_and_masks_fewer_rows() -> None:
    model, data = small_pixart(SMALL), inputs(2, SMALL)
    t, text, z = torch.tensor([500.0] * 4), torch.cat([data.text, -data.text]), torch.cat([data.z, data.z])
    plain = model(z, t, text, torch.cat([data.mask, data.mask]))
    assert torch.equal(model(z, t, text[:, None], data.mask[:, None, None]), plain)
    assert not torch.allclose(model(z, t, text), plain, atol=1e-3)


@torch.no_grad()
def test_trimming_padding_changes_nothing() -> None:
    model, data = small_pixart(SMALL), inputs(5, SMALL).of([0, 3, 4])
    text, mask = trim_text(data.text, data.mask)
    assert text.shape[1] == mask.shape[1] == 6
    t = torch.tensor([500.0] * 3)
    torch.testing.assert_close(model(data.z, t, text, mask), model(data.z, t, data.text, data.mask), atol=1e-5, rtol=0)
    alike, none = trim_text(data.text[:1], data.mask[:1])
    assert alike.shape[1] == 3 and none is None
    with pytest.raises(ValueError, match="a text has no token"):
        trim_text(data.text, 0 * data.mask)


@torch.no_grad()
def test_guidance_by_hand() -> None:
    """iddpm's: rows [cond; uncond], three channels guided, the second half of the latents ignored."""
    model, data = small_pixart(), inputs(2)
    sizes = dict(img_hw=data.img_hw, aspect_ratio=data.aspect_ratio)
    z, t, y = torch.cat([data.z, 99 * data.z]), torch.tensor([500.0] * 4), torch.cat([data.text, -data.text])
    out = model.forward_with_cfg(z, t, y, 4.5, data.mask, sizes)
    cond, uncond = model(torch.cat([data.z, data.z]), t, y, data.mask, sizes).chunk(2)
    torch.testing.assert_close(out[:2, :3], uncond[:, :3] + 4.5 * (cond - uncond)[:, :3])
    assert torch.equal(out[:2, :3], out[2:, :3])
    torch.testing.assert_close(out[:, 3:], torch.cat([cond, uncond])[:, 3:])
    torch.testing.assert_close(model.forward_with_dpmsolver(data.z, t[:2], data.text, data.mask, sizes), cond[:, :4])


@torch.no_grad()
def test_half_precision_keeps_fractions_of_the_timestep() -> None:
    """bfloat16 has no number between 948 and 952: a timestep rounded to it would be the same."""
    model, data = small_pixart(SMALL).bfloat16(), inputs(1, SMALL)
    a, b = (model(data.z, torch.tensor([t]), data.text, data.mask) for t in (949.0, 950.9))
    assert a.dtype == torch.bfloat16 and not torch.equal(a, b)


@torch.no_grad()
def test_what_does_not_fit_is_refused() -> None:
    data, t = inputs(1), torch.tensor([500.0])
    with pytest.raises(ValueError, match=r"takes latents of 8 x 8, got a token grid \(3, 5\)"):
        small_pixart(SMALL)(data.z, t, data.text, data.mask)
    with pytest.raises(ValueError, match='needs data_info with "img_hw" and "aspect_ratio"'):
        small_pixart()(data.z, t, data.text, data.mask)


@torch.no_grad()
def test_a_model_of_any_grid_follows_its_device_and_precision() -> None:
    model, data = small_pixart(), inputs(1)
    sizes, t = dict(img_hw=data.img_hw, aspect_ratio=data.aspect_ratio), torch.tensor([500.0])
    wide = model(data.z, t, data.text, data.mask, sizes)
    tall = model(data.z.mT, t, data.text, data.mask, sizes)
    assert wide.shape == (1, 8, 6, 10) and tall.shape == (1, 8, 10, 6) and not torch.allclose(wide.mT, tall, atol=1e-3)
    torch.testing.assert_close(model(data.z, t, data.text, data.mask, sizes), wide)
    assert model.double()(data.z.double(), t, data.text, data.mask, sizes).dtype == torch.float64
