"""A small FLUX whose every weight matters, its inputs, and sampling with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flux.model import Flux, FluxParams
from flux.spec import flux_spec
from toca.engine.cache import NO_CACHE, Cache
from toca.methods import Method

SMALL = FluxParams(
    in_channels=8,
    out_channels=8,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=32,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(4, 6, 6),
)
GRID, TXT_TOKENS = (5, 6), 9
IMG_TOKENS = GRID[0] * GRID[1]
SPEC = flux_spec(SMALL, IMG_TOKENS, TXT_TOKENS)


def small_flux(params: FluxParams = SMALL, seed: int = 0) -> Flux:
    torch.manual_seed(seed)
    model = Flux(params).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    with torch.no_grad():
        model.time_in.in_layer.weight[:, :40] *= 0.05  # fast sinusoids jump from step to step
        model.time_in.in_layer.weight[:, 128:168] *= 0.05
    return model


def inputs(images: int, seed: int = 0, params: FluxParams = SMALL) -> dict[str, Tensor]:
    """What a call gets beside times, for several pictures."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(images, *shape, generator=generator)

    ids = torch.zeros(images, IMG_TOKENS, 3)
    ids[..., 1], ids[..., 2] = torch.arange(IMG_TOKENS) // GRID[1], torch.arange(IMG_TOKENS) % GRID[1]
    return dict(
        img=draw(IMG_TOKENS, params.in_channels),
        img_ids=ids,
        txt=draw(TXT_TOKENS, params.context_in_dim),
        txt_ids=torch.zeros(images, TXT_TOKENS, 3),
        y=draw(params.vec_in_dim),
        guidance=torch.linspace(2, 4, images) if images > 1 else torch.full((1,), 2.0),
    )


def some(data: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    return {name: value[list(rows)] for name, value in data.items()}


@torch.no_grad()
def sample(
    model: Flux,
    method: Method | None,
    data: dict[str, Tensor],
    steps: int = 8,
    precompute: bool = False,
    after_step: Callable[[Cache], Any] = lambda cache: None,
    **options: Any,
) -> Tensor:
    """Euler steps from the latents data["img"]; without a method, without a cache."""
    times = torch.linspace(1, 0, steps + 1)
    img, dtype = data["img"], model.img_in.weight.dtype
    constant = {name: value.to(dtype) if name in ("txt", "y") else value for name, value in data.items() if name != "img"}
    cache = Cache(flux_spec(model.params, img.shape[1], data["txt"].shape[1]), method, steps, **options) if method else NO_CACHE
    if precompute:
        model.precompute(cache, times[:-1], constant["y"], constant["guidance"])
    for t, after in itertools.pairwise(times):
        velocity = model(img.to(dtype), timesteps=t.expand(len(img)), cache=cache, **constant)
        img = img + (after - t) * velocity.float()
        after_step(cache)
    return img
