"""A small PixArt of either kind whose every weight matters, texts of different lengths, and sampling with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixart.model import PixArt, PixArtMS
from pixart.solvers import DPMS
from pixart.spec import PixArtConfig, pixart_spec
from toca.engine.cache import NO_CACHE, Cache
from toca.methods import Method
from toca.planning.spec import ModelSpec

LENGTH = 9  # of the padded texts
SMALL = PixArtConfig(input_size=8, hidden_size=24, depth=3, num_heads=2, caption_channels=16, model_max_length=LENGTH, lewei_scale=2.0)
SMALL_MS = SMALL.replace(micro_conditions=True)
LATENT = {False: (8, 8), True: (6, 10)}  # 4 x 4 tokens, or 3 x 5, by micro_conditions


def small_pixart(config: PixArtConfig = SMALL_MS, seed: int = 0) -> PixArt:
    torch.manual_seed(seed)
    model = (PixArtMS if config.micro_conditions else PixArt)(config).eval()
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 and "table" not in name else 0.3)
    return model


def small_spec(model: PixArt, length: int = LENGTH, guided: bool = True) -> ModelSpec:
    return pixart_spec(model.config, LATENT[model.config.micro_conditions], length, guided)


class Inputs(NamedTuple):
    """Latents (B, 4, H, W), padded texts (B, L, D), their masks (B, L), sizes (B, 2) and aspect ratios (B, 1)."""

    z: Tensor
    text: Tensor
    mask: Tensor
    img_hw: Tensor
    aspect_ratio: Tensor

    def of(self, images: Any) -> Inputs:
        return Inputs(*(value[images] for value in self))


def inputs(images: int, config: PixArtConfig = SMALL_MS, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([3, 9, 1, 6, 2, 8, 5, 4, 7])[torch.arange(images) % 9]
    return Inputs(
        torch.randn(images, 4, *LATENT[config.micro_conditions], generator=generator),
        torch.randn(images, LENGTH, config.caption_channels, generator=generator),
        (torch.arange(LENGTH) < lengths[:, None]).int(),
        torch.tensor([[96.0, 160.0]]).repeat(images, 1),
        torch.full((images, 1), 0.6),
    )


def bounded(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Noise predictions near the latent, as those of trained models are at first: without them latents grow by hundreds."""

    def noise(x: Tensor, t: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        out = 0.3 * network(x, t, y, **kwargs)
        return torch.cat([out[:, :4] + x, out[:, 4:]], dim=1)

    return noise


@torch.no_grad()
def sample(
    model: PixArt, method: Method | None, data: Inputs, steps: int = 10, seeds: Sequence[int] = (), cfg_scale: float = 4.5, **options: Any
) -> Tensor:
    """DPM-Solver++ from data; without a method, without a cache. options: of the cache."""
    spec = small_spec(model, data.text.shape[1], guided=cfg_scale != 1)
    cache = Cache(spec, method, steps, seeds=seeds or range(len(data.z)), **options) if method else NO_CACHE
    null = model.y_embedder.y_embedding[: data.text.shape[1]].expand_as(data.text)
    kwargs = dict(mask=data.mask, data_info=dict(img_hw=data.img_hw, aspect_ratio=data.aspect_ratio), cache=cache)
    return DPMS(bounded(model.forward_with_dpmsolver), data.text, null, cfg_scale, kwargs).sample(data.z, steps)
