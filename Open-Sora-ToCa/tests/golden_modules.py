"""The reference file of single functions and one forward pass."""

from __future__ import annotations

import re

import torch
from einops import rearrange
from golden_model import load_model
from torch import Tensor

from opensora.models.layers.blocks import PositionEmbedding2D
from opensora.schedulers.rf import RFLOW
from toca.engine.selection import softmax_bonus
from toca.nn.rotary import apply_rope
from toca.testing.golden import assert_close
from toca.testing.replay import outputs_of

FORWARD, SMALL = 1e-4, 1e-5
SINUSOID = 6e-5  # a float32 exponential may be off by one unit in the last place, 6e-8, and times reach 1000
ELSEWHERE = re.compile(r"ref\..*")  # of test_inference_utils
INPUTS = {"fwd.text_mask", "fwd.timestep", "fwd.x", "fwd.x_mask", "fwd.y", "t_embed.t", "fps_embed.fps", "rope.in", "s4.score_in"}


@torch.no_grad()
def forward(data: dict[str, Tensor], x_mask: Tensor | None, names: set[str]) -> dict[str, Tensor]:
    sizes = dict(fps=torch.full((2,), 24.0), height=torch.tensor([60.0, 60.0]), width=torch.tensor([76.0, 76.0]))
    model = load_model()
    with outputs_of({name: model.get_submodule(name) for name in names}) as seen:
        out = model(data["fwd.x"], data["fwd.timestep"], data["fwd.y"], data["fwd.text_mask"], x_mask, **sizes)
    return seen | {"out": out}


def as_upstream(name: str, found: Tensor, expected: Tensor, data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Upstream's self-attention sees frames, or places, as rows of a batch, and its text is not cut."""
    if name == "spatial_blocks.0.attn":
        return rearrange(found, "B (T S) C -> (B T) S C", T=3), expected
    if name == "temporal_blocks.0.attn":
        return rearrange(found, "B (T S) C -> (B S) T C", T=3), expected
    if name == "y_embedder":
        mask = data["fwd.text_mask"].bool().repeat(2, 1)
        lengths = mask.sum(dim=1)
        return torch.cat([rows[:n] for rows, n in zip(found, lengths)]), expected[:, 0][mask]
    return found.view(expected.shape), expected


def check_forward(data: dict[str, Tensor], case: str, x_mask: Tensor | None) -> None:
    prefix = f"fwd.{case}."
    names = {key.removeprefix(prefix) for key in data if key.startswith(prefix)}
    seen = forward(data, x_mask, names - {"out"})
    generated = torch.ones(4, 3, dtype=torch.bool) if x_mask is None else x_mask
    for name in names:
        found, expected = as_upstream(name, seen[name], data[prefix + name], data)
        if name == "out":  # upstream normalises frames that are given twice
            found, expected = (value * generated[:, None, :, None, None] for value in (found, expected))
        assert_close(found, expected, FORWARD, prefix + name)


@torch.no_grad()
def check_function(key: str, data: dict[str, Tensor]) -> None:
    model, expected = load_model(), data[key]
    numbers = [int(number) for number in re.findall(r"\d+", key)]
    if key.startswith("pos_embed."):
        rows, columns, height, width, dim = numbers
        scale = torch.tensor((height * width) ** 0.5 / model.config.input_sq_size)
        found = PositionEmbedding2D(dim)(rows, columns, scale, round((rows * columns) ** 0.5))
    elif key.startswith("timesteps."):
        height, width, frames, steps = numbers
        times = RFLOW(num_sampling_steps=steps, use_timestep_transform=True).timesteps(frames, height, width)
        return assert_close(torch.tensor(times), expected, 1e-6, key)
    elif key.startswith("s4.out."):
        bonus, grid, mean = re.fullmatch(r"s4\.out\.ratio([\d.]+)\.grid(\d)\.timemean(\d)", key).groups()
        found = softmax_bonus(data["s4.score_in"], (5, 7), int(grid), float(bonus))
        if int(mean):  # an option of upstream's that rates all tokens of a place alike
            found = found.view(2, 3, 35).mean(dim=1).repeat(1, 3)
    else:
        found = {
            "t_embed.sinusoid256": lambda: model.t_embedder.timestep_embedding(data["t_embed.t"]),
            "t_embed.out": lambda: model.t_embedder(data["t_embed.t"]),
            "fps_embed.out": lambda: model.fps_embedder(data["fps_embed.fps"], len(data["fps_embed.fps"])),
            "rope.out": lambda: apply_rope(data["rope.in"], model.rope(data["rope.in"].shape[2])),
        }[key]()
    assert_close(found, expected, SINUSOID if "sinusoid" in key else SMALL, key)
