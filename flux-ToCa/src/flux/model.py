"""FLUX: image and text tokens through double blocks, then joined through single blocks.

Parameter names are those of the official checkpoints. Without a cache (`NO_CACHE`, the default) this is the plain model.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from flux.modules.layers import DoubleStreamBlock, EmbedND, LastLayer, MLPEmbedder, SingleStreamBlock, timestep_embedding
from flux.spec import FREQUENCIES, FluxParams
from toca.engine.cache import NO_CACHE, Cache, RunCache

__all__ = ["Flux", "FluxParams"]


class Flux(nn.Module):
    """A FLUX transformer.

    A cached run is a `Cache` on `flux_spec(model.params, img_tokens, txt_tokens)`, passed to every call:

        with Cache(flux_spec(model.params, N, T), ToCa(interval=4, ratio=0.1), num_steps) as cache:
            model.precompute(cache, timesteps, y, guidance)  # optional: the modulations of all steps at once, if they fit
            ...  # num_steps calls model(img, img_ids, txt, txt_ids, t, y, guidance, cache=cache)

    What no step changes (embedded text, rotary positions, embeddings of y and guidance) is computed at the first call and kept: a cache
    belongs to one set of txt, ids, y and guidance. Raises ValueError if the widths of `params` do not fit together.
    """

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        if params.hidden_size % params.num_heads:
            raise ValueError(f"hidden size {params.hidden_size} is no multiple of {params.num_heads} heads")
        if sum(params.axes_dim) != params.head_dim:
            raise ValueError(f"axes_dim {params.axes_dim} must add up to a head's {params.head_dim} dimensions")
        self.params = params
        width = params.hidden_size
        self.pe_embedder = EmbedND(params.head_dim, params.theta, params.axes_dim)
        self.img_in = nn.Linear(params.in_channels, width)
        self.time_in = MLPEmbedder(FREQUENCIES, width)
        self.vector_in = MLPEmbedder(params.vec_in_dim, width)
        if params.guidance_embed:
            self.guidance_in = MLPEmbedder(FREQUENCIES, width)
        self.txt_in = nn.Linear(params.context_in_dim, width)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(width, params.num_heads, params.mlp_ratio, params.qkv_bias) for _ in range(params.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(width, params.num_heads, params.mlp_ratio) for _ in range(params.depth_single_blocks)
        )
        self.final_layer = LastLayer(width, 1, params.out_channels)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        cache: RunCache = NO_CACHE,
    ) -> Tensor:
        """Velocity (B, N, out_channels) of packed latents img (B, N, in_channels) at timesteps (B,) from 1 (noise) to 0.

        img_ids (B, N, 3), txt_ids (B, T, 3): positions. txt (B, T, context_in_dim): T5 states. y (B, vec_in_dim): CLIP's pooled state.
        guidance (B,): distilled guidance, ignored by models without it. Raises ValueError on other shapes, or if guidance is missing.
        """
        if img.ndim != 3 or txt.ndim != 3:
            raise ValueError(f"img and txt must be (B, tokens, channels), got {tuple(img.shape)} and {tuple(txt.shape)}")
        vec = F.silu(self.time_in(timestep_embedding(timesteps, FREQUENCIES)) + cache.once("vec", lambda: self.constant(y, guidance)))
        pe = cache.once("pe", lambda: self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1)))
        txt = cache.once("txt", lambda: self.txt_in(txt))
        img = self.img_in(img)
        cache.step(img)
        for block, layer in cache.walk("double_blocks", self.double_blocks):
            img, txt = block(img, txt, vec, pe, layer)
        x = torch.cat((txt, img), dim=1)
        for block, layer in cache.walk("single_blocks", self.single_blocks):
            x = block(x, vec, pe, layer)
        return self.final_layer(cache.hidden(x[:, txt.shape[1] :]), vec)

    def constant(self, y: Tensor, guidance: Tensor | None) -> Tensor:
        """The part of the conditioning (B, D) that is the same at every step."""
        vector = self.vector_in(y)
        if not self.params.guidance_embed:
            return vector
        if guidance is None:
            raise ValueError("this model is distilled for guidance: give its strength, (B,)")
        return vector + self.guidance_in(timestep_embedding(guidance, FREQUENCIES))

    @torch.no_grad()
    def precompute(self, cache: Cache, timesteps: Tensor, y: Tensor, guidance: Tensor | None = None) -> bool:
        """Compute the modulations of all steps of a run at once, where the cache's budget allows; returns whether it did for all blocks.

        timesteps: (S,) in execution order, of the dtype that forward gets; y (B, vec_in_dim) and guidance (B,) as forward will get them.
        Otherwise every step reads the modulations' weights anew (6.5 GB in bfloat16).
        """
        constant = cache.once("vec", lambda: self.constant(y, guidance))
        activated = F.silu(self.time_in(timestep_embedding(timesteps, FREQUENCIES))[:, None] + constant)  # (S, B, D)
        rows = torch.arange(len(y), device=y.device)
        double = [(block.img_mod.lin, block.txt_mod.lin) for block in self.double_blocks]
        single = [block.modulation.lin for block in self.single_blocks]
        stacks = {"double_blocks": double, "single_blocks": single}
        return all([cache.precompute_modulation(name, linears, activated, rows) for name, linears in stacks.items()])
