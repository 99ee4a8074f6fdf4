"""A small DiT on an odd, non-square grid whose every weight matters, and sampling with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion import create_diffusion
from dit.model import DiT
from dit.spec import DiTConfig, dit_spec
from toca.engine.cache import NO_CACHE, Cache
from toca.methods import Method

SMALL = DiTConfig(depth=3, hidden_size=32, num_heads=2, patch_size=2, input_size=(6, 10), num_classes=5)  # 3 x 5 tokens


def small_dit(config: DiTConfig = SMALL, seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    model = DiT(config).eval()
    for name, p in model.named_parameters():
        if name != "pos_embed":
            torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    return model


@torch.no_grad()
def sample(
    model: DiT, method: Method | None, z: Tensor, labels: Tensor, steps: int = 8, seeds: Sequence[int] = (), precompute: bool = False
) -> Tensor:
    """DDIM with guidance 1.5 from latents z (B, C, H, W); without a method, without a cache."""
    diffusion, rows = create_diffusion(str(steps)), torch.cat([z, z])
    y = torch.cat([labels, torch.full_like(labels, model.num_classes)])
    cache = Cache(dit_spec(model.config), method, steps, seeds=seeds or range(len(z))) if method else NO_CACHE
    if precompute:
        model.precompute_modulation(cache, torch.tensor(diffusion.timestep_map[::-1]), y)
    kwargs = dict(y=y, cfg_scale=1.5, cache=cache)
    return diffusion.ddim_sample_loop(model.forward_with_cfg, rows.shape, rows, model_kwargs=kwargs)[: len(z)]
