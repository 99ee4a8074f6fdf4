"""The plain model: published shapes, agreement with diffusers, grids, guidance, precision, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import SMALL, SMALL_MS, inputs, small_pixart
from torch import Tensor

from diffusion.model.nets import PixArt, PixArt_XL_2, PixArtMS, PixArtMS_XL_2, trim_text
from pixart_spec import CONFIGS, PixArtConfig

PUBLISHED = json.loads((Path(__file__).parent / "checkpoint_keys.json").read_text())  # name -> key -> shape; of blocks, the first


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


EMBEDDERS = dict(timestep_embedder="t_embedder", resolution_embedder="csize_embedder", aspect_ratio_embedder="ar_embedder")
MODULES = {
    "pos_embed.proj": "x_embedder.proj",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "adaln_single.linear": "t_block.1",
    "proj_out": "final_layer.linear",
    **{
        f"adaln_single.emb.{theirs}.linear_{i}": f"{ours}.mlp.{2 * i - 2}"
        for theirs, ours in EMBEDDERS.items()
        for i in (1, 2)
    },
}
BLOCK_MODULES = {"attn1.to_out.0": "attn.proj", "attn2.to_q": "cross_attn.q_linear", "attn2.to_out.0": "cross_attn.proj"}
BLOCK_MODULES |= {"ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2"}
FUSED = {"attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"), "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v")}


def from_diffusers(state: dict[str, Tensor], model: PixArt) -> dict[str, Tensor]:
    """A diffusers state by our names; what diffusers does not have stays ours."""
    ours = {"final_layer.scale_shift_table": state["scale_shift_table"]}
    for i in range(model.config.depth):
        theirs = f"transformer_blocks.{i}"
        ours[f"blocks.{i}.scale_shift_table"] = state[f"{theirs}.scale_shift_table"]
        for part in ("weight", "bias"):
            for name, parts in FUSED.items():
                ours[f"blocks.{i}.{name}.{part}"] = torch.cat([state[f"{theirs}.{p}.{part}"] for p in parts])
            ours |= {f"blocks.{i}.{b}.{part}": state[f"{theirs}.{a}.{part}"] for a, b in BLOCK_MODULES.items()}
    for part in ("weight", "bias"):
        ours |= {f"{b}.{part}": state[f"{a}.{part}"] for a, b in MODULES.items() if f"{a}.{part}" in state}
    return model.state_dict() | ours


@pytest.mark.parametrize("config", [SMALL, SMALL_MS], ids=["plain", "MS"])
@torch.no_grad()
def test_a_diffusers_model_agrees(config: PixArtConfig) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
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
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    model = (PixArtMS if config.micro_conditions else PixArt)(config).eval()
    state = from_diffusers(theirs.state_dict(), model)
    assert len(state) == len(model.state_dict())
    model.load_state_dict(state)
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
