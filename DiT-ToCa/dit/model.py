"""DiT, the diffusion transformer of Peebles & Xie (arXiv 2212.09748), with one engine call per sub-layer.

Parameter names are those of the official checkpoints. Without a cache (`NO_CACHE`, the default) this is the plain model, as in training.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from dit.spec import CONFIGS, DiTConfig
from toca.engine.cache import NO_CACHE, Cache, LayerCache, RunCache, UncachedLayer
from toca.nn.layers import Mlp, PatchEmbed, SelfAttention, TimestepEmbedder, layer_norm, modulate, sincos_2d, unpatchify


class LabelEmbedder(nn.Module):
    """Class embeddings; the last row is the null label of classifier-free guidance and exists only with label dropout."""

    def __init__(self, num_classes: int, hidden_size: int, dropout_prob: float) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + (dropout_prob > 0), hidden_size)
        self.num_classes = num_classes
        self.dropout_prob = dropout_prob

    def forward(self, labels: Tensor, train: bool = False) -> Tensor:
        if train and self.dropout_prob > 0:
            drop = torch.rand(labels.shape, device=labels.device) < self.dropout_prob
            labels = torch.where(drop, self.num_classes, labels)
        return self.embedding_table(labels)  # (R, D)


class DiTBlock(nn.Module):
    """A transformer block with adaptive layer norm, zero-initialised (adaLN-Zero)."""

    uncached = UncachedLayer("attn", "mlp")

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = SelfAttention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio), hidden_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))

    def forward(self, x: Tensor, c: Tensor, cache: LayerCache = uncached) -> Tensor:
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = cache.modulation(self.adaLN_modulation[1], F.silu(c))  # (R, 1, D)

        def attn(x: Tensor) -> Tensor:
            return self.attn(modulate(self.norm1(x), shift_msa, scale_msa), cache)

        def mlp(x: Tensor) -> Tensor:
            return self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

        x = torch.addcmul(x, gate_msa, cache.attn(attn, x))  # x + gate * attn(x), one pass over memory
        x = torch.addcmul(x, gate_mlp, cache.mlp(mlp, x))
        return x  # (R, N, D)


class FinalLayer(nn.Module):
    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))  # (R, N, p * p * out_channels)


class DiT(nn.Module):
    """Diffusion transformer over latents (or pixels) (R, in_channels, H, W), predicting noise and, with `learn_sigma`, the variance."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.in_channels = config.in_channels
        self.out_channels = config.out_channels
        self.num_classes = config.num_classes

        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, config.hidden_size)
        self.t_embedder = TimestepEmbedder(config.hidden_size)
        self.y_embedder = LabelEmbedder(config.num_classes, config.hidden_size, config.class_dropout_prob)
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, config.hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(DiTBlock(config.hidden_size, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.hidden_size, config.patch_size, config.out_channels)
        if not self.pos_embed.is_meta:
            self.initialize_weights()

    def initialize_weights(self) -> None:
        """Xavier-uniform linears, zero biases; adaLN and output layers zero, so that every block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.pos_embed.data.copy_(torch.from_numpy(sincos_2d(self.config.hidden_size, *map(np.arange, self.config.grid))))
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        for weight in (self.y_embedder.embedding_table.weight, self.t_embedder.mlp[0].weight, self.t_embedder.mlp[2].weight):
            nn.init.normal_(weight, std=0.02)
        final = self.final_layer
        for linear in (*(block.adaLN_modulation[-1] for block in self.blocks), final.adaLN_modulation[-1], final.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def unpatchify(self, x: Tensor) -> Tensor:
        return unpatchify(x, self.config.grid, self.config.patch_size)  # (R, N, p * p * C) -> (R, C, H, W)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, cache: RunCache = NO_CACHE) -> Tensor:
        """Predict (R, out_channels, H, W) from x (R, in_channels, H, W), timesteps t (R,) in 0..999 and labels y (R,)."""
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y, self.training)
        cache.step(x)
        for block, layer in cache.walk("blocks", self.blocks):
            x = block(x, c, layer)
        x = self.final_layer(cache.hidden(x), c)
        return self.unpatchify(x)

    def forward_with_cfg(
        self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float, guide_all_channels: bool = False, cache: RunCache = NO_CACHE
    ) -> Tensor:
        """Classifier-free guidance on a batch [cond half; uncond half] of one latent each: e = e_u + cfg_scale (e_c - e_u).

        Only the first three channels are guided, as in the published results; `guide_all_channels` guides every noise channel.
        """
        half = x[: len(x) // 2]
        out = self.forward(torch.cat([half, half]), t, y, cache)
        guided = self.in_channels if guide_all_channels else 3
        cond, uncond = out[:, :guided].float().chunk(2)  # guidance amplifies what half precision rounds away
        eps = uncond + cfg_scale * (cond - uncond)
        return torch.cat([eps.repeat(2, 1, 1, 1), out[:, guided:].float()], dim=1)

    @torch.no_grad()
    def precompute_modulation(self, cache: Cache, timesteps: Tensor, y: Tensor) -> None:
        """Compute the modulations of all steps of a run at once, where the cache's budget allows.

        timesteps: (S,) original timesteps in execution order; y: (R,) labels as every forward of the run will get them.
        """
        labels, row_of = torch.unique(y, return_inverse=True)  # the null label's rows are all alike
        c = self.t_embedder(timesteps)[:, None] + self.y_embedder(labels)  # (S, U, D)
        cache.precompute_modulation("blocks", [block.adaLN_modulation[1] for block in self.blocks], F.silu(c), row_of)


def _constructor(name: str):
    def build(**overrides) -> DiT:
        return DiT(CONFIGS[name].replace(**overrides))

    return build


DiT_models = {name: _constructor(name) for name in CONFIGS}
