"""A small STDiT3 whose every weight matters, its inputs, and sampling with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from opensora.models.stdit.stdit3 import STDiT3
from opensora.spec import STDiT3Config, opensora_spec
from toca.engine.cache import NO_CACHE, Cache
from toca.engine.token_shards import WHOLE, Whole
from toca.methods import Method
from toca.planning.spec import ModelSpec

SMALL = STDiT3Config(depth=2, hidden_size=32, num_heads=2, caption_channels=12, model_max_length=7)
LATENT = (3, 5, 8)  # (frames, rows, columns): 36 tokens, an odd number of rows
TEXT_LENGTHS = (6, 4, 5)
TEXT = max(TEXT_LENGTHS)


def small_spec(**options: Any) -> ModelSpec:
    return opensora_spec(SMALL, LATENT, TEXT, **options)


def small_stdit3(config: STDiT3Config = SMALL, seed: int = 0) -> STDiT3:
    torch.manual_seed(seed)
    model = STDiT3(config).eval().requires_grad_(False)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    return model


def inputs(prompts: int, seed: int = 0) -> dict[str, Tensor]:
    """What a run gets for several prompts, of unequal length."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(SMALL.model_max_length) < torch.tensor(TEXT_LENGTHS[:prompts])[:, None]).int()
    return dict(
        z=torch.randn(prompts, 4, *LATENT, generator=generator),
        y=torch.randn(prompts, 1, SMALL.model_max_length, SMALL.caption_channels, generator=generator),
        mask=mask,
        fps=torch.full((prompts,), 24.0),
        height=torch.full((prompts,), 40.0),
        width=torch.full((prompts,), 64.0),
    )


def some(data: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    return {name: value[list(rows)] for name, value in data.items()}


@torch.no_grad()
def sample(
    model: STDiT3,
    method: Method | None,
    data: dict[str, Tensor],
    steps: int = 8,
    spec: ModelSpec | None = None,
    x_mask: Tensor | None = None,
    shards: Whole = WHOLE,
    after_step: Callable[[Cache], Any] = lambda cache: None,
    **options: Any,
) -> Tensor:
    """Guided Euler steps from the latents data["z"]; without a method, without a cache. x_mask: (n, T), of every step."""
    z, n = data["z"], len(data["z"])
    cache = Cache(spec or small_spec(), method, steps, shards=shards, **options) if method else NO_CACHE
    y = torch.cat((data["y"], model.y_embedder.y_embedding.expand(n, 1, -1, -1)))
    constant = {name: data[name] for name in ("mask", "fps", "height", "width")}
    for step in range(steps):
        t = torch.full((2 * n,), 1000 * (1 - step / steps))
        given = None if x_mask is None else x_mask.repeat(2, 1)
        v_text, v_null = model(torch.cat((z, z)), t, y, x_mask=given, cache=cache, shards=shards, **constant)[:, :4].chunk(2)
        after_step(cache)
        z = z + (v_null + 3 * (v_text - v_null)) / steps
    return z
