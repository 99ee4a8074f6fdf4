"""The network: checkpoint layout, agreement with an independent implementation, grids of any shape."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers.models import DiTTransformer2DModel
from small import SMALL, sample, small_dit
from torch import Tensor

from dit.model import DiT, DiT_models
from dit.spec import CONFIGS, DiTConfig, dit_spec
from toca.methods import FORA, DuCa, TaylorSeer, ToCa

MANIFEST = Path(__file__).resolve().parents[3] / "shared" / "spec" / "dit-checkpoint-keys.json"
SIZES = [name for name in CONFIGS if name != "DiT-mini"]
PARAMETERS = {"DiT-XL/2": 675_129_632, "DiT-L/2": 458_102_816, "DiT-B/2": 130_512_416, "DiT-S/2": 32_963_360}
KEYS = {"XL": 292, "L": 252, "B": 132, "S": 132}


def manifest(depth: int, width: int, patch: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official checkpoint, by formula."""

    def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    shapes = {"pos_embed": (1, tokens, width), "y_embedder.embedding_table.weight": (1001, width)}
    shapes |= {"x_embedder.proj.weight": (width, 4, patch, patch), "x_embedder.proj.bias": (width,)}
    shapes |= linear("t_embedder.mlp.0", 256, width) | linear("t_embedder.mlp.2", width, width)
    shapes |= linear("final_layer.linear", width, patch * patch * 8) | linear("final_layer.adaLN_modulation.1", width, 2 * width)
    for block in (f"blocks.{layer}." for layer in range(depth)):
        shapes |= linear(block + "attn.qkv", width, 3 * width) | linear(block + "attn.proj", width, width)
        shapes |= linear(block + "mlp.fc1", width, 4 * width) | linear(block + "mlp.fc2", 4 * width, width)
        shapes |= linear(block + "adaLN_modulation.1", width, 6 * width)
    return shapes


def shapes_of(name: str, pixels: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = DiT_models[name](input_size=pixels // 8)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name, pixels", [*((name, 256) for name in SIZES), ("DiT-XL/2", 512)])
def test_checkpoints_of_every_size_fit(name: str, pixels: int) -> None:
    config, shapes = CONFIGS[name], shapes_of(name, pixels)
    tokens = (pixels // 8 // config.patch_size) ** 2
    assert shapes == manifest(config.depth, config.hidden_size, config.patch_size, tokens)
    assert len(shapes) == KEYS[name.removeprefix("DiT-").split("/")[0]]
    if (name, pixels) in ((known, 256) for known in PARAMETERS):
        assert sum(math.prod(shape) for shape in shapes.values()) == PARAMETERS[name]
    if MANIFEST.exists():
        assert {key: list(shape) for key, shape in shapes.items()} == json.loads(MANIFEST.read_text())[f"{name} @ {pixels}"]


def to_diffusers(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Our weights under the names of diffusers, which repeats the embedders in every block and has no position table."""
    renamed = {"attn.proj": "attn1.to_out.0", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2", "adaLN_modulation.1": "norm1.linear"}
    outer = {"x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out_2", "final_layer.adaLN_modulation.1": "proj_out_1"}
    embedders = {"t_embedder.mlp.0": "timestep_embedder.linear_1", "t_embedder.mlp.2": "timestep_embedder.linear_2"}
    embedders["y_embedder.embedding_table"] = "class_embedder.embedding_table"
    out = {}
    for key, value in state.items():
        module, kind = key.rsplit(".", 1) if "." in key else (key, "")
        if module.startswith("blocks."):
            _, layer, name = module.split(".", 2)
            block = f"transformer_blocks.{layer}."
            if name == "attn.qkv":
                out |= {f"{block}attn1.to_{part}.{kind}": chunk for part, chunk in zip("qkv", value.chunk(3), strict=True)}
            else:
                out[f"{block}{renamed[name]}.{kind}"] = value
        elif module in embedders:
            out |= {f"transformer_blocks.{layer}.norm1.emb.{embedders[module]}.{kind}": value for layer in range(depth)}
        elif key != "pos_embed":
            out[f"{outer[module]}.{kind}"] = value
    return out


@pytest.mark.parametrize("patch, heads, width", [(2, 2, 32), (4, 3, 72)])
@torch.no_grad()
def test_random_weights_agree_with_diffusers(patch: int, heads: int, width: int) -> None:
    model = small_dit(DiTConfig(3, width, heads, patch, input_size=16, num_classes=7))
    reference = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        sample_size=16,
        patch_size=patch,
        num_embeds_ada_norm=7,
        norm_eps=1e-6,
    ).eval()
    reference.load_state_dict(to_diffusers(model.state_dict(), 3))
    for block in reference.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # DiT's own frequencies; diffusers spaces them a little wider
    x, t, y = torch.randn(3, 4, 16, 16), torch.tensor([0, 437, 999]), torch.tensor([0, 6, 7])
    torch.testing.assert_close(model(x, t, y), reference(x, timestep=t, class_labels=y).sample, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(6, 10), (2, 14), (10, 6)])
@torch.no_grad()
def test_grids_may_be_odd_and_oblong(size: tuple[int, int]) -> None:
    """A token lands where its patch was, and every method runs on such a grid."""
    config = SMALL.replace(input_size=size)
    model = small_dit(config)
    rows, columns = config.grid
    tokens = torch.arange(config.num_tokens * 32.0).view(1, config.num_tokens, 32)
    picture = model.unpatchify(tokens)
    assert picture.shape == (1, 8, *size)
    for row, column in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns - 1)):
        patch = picture[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(patch.permute(1, 2, 0).flatten(), tokens[0, row * columns + column])
    for method in (None, FORA(), ToCa(ratio=0.2), DuCa(ratio=0.2), TaylorSeer()):
        assert sample(model, method, torch.randn(1, 4, *size), torch.tensor([1])).isfinite().all()


@torch.no_grad()
def test_patches_are_embedded_in_reading_order() -> None:
    model, x = small_dit(), torch.randn(1, 4, 6, 10)
    weight, bias = model.x_embedder.proj.weight.flatten(1), model.x_embedder.proj.bias
    patch = x[0, :, 2:4, 6:8].flatten()  # second row, fourth column
    torch.testing.assert_close(model.x_embedder(x)[0, 5 + 3], weight @ patch + bias, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("pixels", [256, 512])
def test_every_size_plans_every_method(name: str, pixels: int) -> None:
    spec = dit_spec(CONFIGS[name].replace(input_size=pixels // 8))
    assert spec.hidden == ((pixels // 8 // CONFIGS[name].patch_size) ** 2, CONFIGS[name].hidden_size)
    for method in (FORA(), ToCa(), DuCa(), TaylorSeer()):
        plan = method.plan(spec, 20)
        assert plan.caches and 0 < plan.tokens_refreshed() < 1


def test_a_new_model_outputs_zeros() -> None:
    torch.manual_seed(0)
    model = DiT(SMALL)
    assert not model(torch.randn(2, 4, 6, 10), torch.tensor([3, 4]), torch.tensor([0, 1])).any()
    assert not model.pos_embed.requires_grad and model.blocks[0].attn.qkv.weight.abs().max() <= (6 / (32 + 96)) ** 0.5


def test_labels_are_dropped_in_training_only() -> None:
    embedder = small_dit().y_embedder
    labels = torch.zeros(4000, dtype=torch.long)
    null = (embedder(labels, train=True) == embedder.embedding_table.weight[-1]).all(dim=1)
    assert 300 < null.sum() < 500 and torch.equal(embedder(labels)[0], embedder.embedding_table.weight[0])
    assert DiT(SMALL.replace(class_dropout_prob=0.0)).y_embedder.embedding_table.num_embeddings == 5


@torch.no_grad()
def test_guidance_mixes_three_channels_or_all() -> None:
    model = small_dit()
    x, t, y = torch.randn(4, 4, 6, 10), torch.full((4,), 500), torch.tensor([0, 1, 5, 5])
    plain = model(torch.cat([x[:2], x[:2]]), t, y)
    for guided, every in ((3, False), (4, True)):
        out = model.forward_with_cfg(x, t, y, cfg_scale=2.5, guide_all_channels=every)
        cond, uncond = plain[:, :guided].chunk(2)
        mixed = uncond + 2.5 * (cond - uncond)
        torch.testing.assert_close(out[:, :guided], torch.cat([mixed, mixed]))
        torch.testing.assert_close(out[:, guided:], plain[:, guided:])


@torch.no_grad()
def test_the_unconditional_half_of_the_latent_has_no_influence() -> None:
    model, x = small_dit(), torch.randn(4, 4, 6, 10)
    t, y, other = torch.full((4,), 500), torch.tensor([0, 1, 5, 5]), x.clone()
    other[2:] = 0
    assert torch.equal(model.forward_with_cfg(x, t, y, 1.5), model.forward_with_cfg(other, t, y, 1.5))


def test_odd_timestep_widths_end_in_a_zero() -> None:
    features = small_dit().t_embedder.timestep_embedding(torch.tensor([0, 7]), 5)
    assert features.shape == (2, 5) and features[0].tolist() == [1, 1, 0, 0, 0]
    assert features[1].tolist() == pytest.approx([math.cos(7), math.cos(0.07), math.sin(7), math.sin(0.07), 0], abs=1e-6)
