"""PixArt-alpha (Chen et al., arXiv 2310.00426): a diffusion transformer with cross-attention to a text.

Parameter names are those of the official checkpoints. Without a cache (`NO_CACHE`, the default) this is the plain model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from pixart.blocks import CaptionEmbedder, PixArtBlock, SizeEmbedder, T2IFinalLayer
from pixart.spec import PixArtConfig
from toca.engine.cache import NO_CACHE, RunCache
from toca.nn.layers import PatchEmbed, TimestepEmbedder, sincos_2d, unpatchify


class PixArt(nn.Module):
    """PixArt on square pictures. Predicts noise and, with `pred_sigma`, the variance of latents.

    A cached run is a `Cache` on `pixart_spec(model.config, latent_hw, text_tokens, guided)`, passed to every call:

        y, mask = trim_text(y, mask)
        with Cache(pixart_spec(model.config, text_tokens=y.shape[1]), ToCa(interval=3, ratio=0.3), num_steps) as cache:
            ...  # num_steps calls model(x, timestep, y, mask, cache=cache)

    What no step changes (embedded text, its keys and values in every block) is computed at the first call and kept: a cache belongs to
    one set of texts.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
        self.t_embedder = TimestepEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(config.caption_channels, width, config.model_max_length)
        self.register_buffer("pos_embed", position_table(config, config.grid()))
        self.blocks = nn.ModuleList(PixArtBlock(width, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = T2IFinalLayer(width, config.patch_size, config.out_channels)

    @property
    def dtype(self) -> torch.dtype:
        return self.x_embedder.proj.weight.dtype

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        data_info: Mapping[str, Tensor] | None = None,
        cache: RunCache = NO_CACHE,
    ) -> Tensor:
        """Noise and variance (R, out_channels, H, W) of latents x (R, in_channels, H, W) at timesteps (R,) in 0..999, fractions allowed.

        y: text features (R, L, caption_channels), or (R, 1, L, caption_channels). mask (R, L), nonzero for real text tokens, or of fewer
        rows, which then repeat; by default all are real. data_info: of PixArtMS. Raises ValueError if x does not fit the model's grid.
        """
        grid = self.config.grid(tuple(x.shape[2:]))
        positions = self.positions(grid)
        y = y.squeeze(1) if y.ndim == 4 else y
        text = cache.once("text", lambda: self.y_embedder(y.to(self.dtype)))
        if mask is not None:
            mask = mask.reshape(-1, y.shape[1]).bool().repeat(len(y) // (mask.numel() // y.shape[1]), 1)
        t = self.conditioning(timestep, data_info, len(x), cache)
        t0 = self.t_block(t).unflatten(-1, (6, -1))
        x = self.x_embedder(x.to(self.dtype)) + positions
        cache.step(x)
        for block, layer in cache.walk("blocks", self.blocks):
            x = block(x, text, t0, mask, layer)
        return unpatchify(self.final_layer(cache.hidden(x), t), grid, self.config.patch_size)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position table (1, N, D) of a grid. Raises ValueError on any but the model's own."""
        if grid != self.config.grid():
            raise ValueError(f"this model takes latents of {self.config.input_size} x {self.config.input_size}, got a token grid {grid}")
        return self.pos_embed

    def conditioning(self, timestep: Tensor, data_info: Mapping[str, Tensor] | None, rows: int, cache: RunCache) -> Tensor:
        """What modulates all layers, (R, D)."""
        return self.t_embedder(timestep)

    def forward_with_dpmsolver(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        data_info: Mapping[str, Tensor] | None = None,
        cache: RunCache = NO_CACHE,
    ) -> Tensor:
        """The noise alone, (R, in_channels, H, W): the solver guides."""
        return self.forward(x, timestep, y, mask, data_info, cache)[:, : self.config.in_channels]

    def forward_with_cfg(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        cfg_scale: float,
        mask: Tensor | None = None,
        data_info: Mapping[str, Tensor] | None = None,
        cache: RunCache = NO_CACHE,
    ) -> Tensor:
        """Classifier-free guidance e = e_u + cfg_scale (e_c - e_u) on a batch [cond half; uncond half], in float32.

        The second half of x is ignored: both see the first. Only three channels are guided, as in the published results; the rest and the
        variance stay those of each half.
        """
        half = x[: len(x) // 2]
        out = self.forward(torch.cat([half, half]), timestep, y, mask, data_info, cache).float()
        cond, uncond = out[:, :3].chunk(2)
        eps = uncond + cfg_scale * (cond - uncond)
        return torch.cat([eps.repeat(2, 1, 1, 1), out[:, 3:]], dim=1)


class PixArtMS(PixArt):
    """PixArt at 1024 pixels: told the picture's size and aspect ratio, on grids of any shape.

    `data_info` of a call: "img_hw" (n, 2), height and width in pixels, and "aspect_ratio" (n, 1); n divides the rows, which repeat.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__(config)
        self.csize_embedder = SizeEmbedder(config.hidden_size // 3)
        self.ar_embedder = SizeEmbedder(config.hidden_size // 3)
        self._table: tuple[tuple[int, int], Tensor] | None = None  # of the last grid that was not square

    def positions(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.config.grid():
            return self.pos_embed
        like = self.pos_embed
        if not self._table or self._table[0] != grid or (self._table[1].device, self._table[1].dtype) != (like.device, like.dtype):
            self._table = grid, position_table(self.config, grid).to(like)
        return self._table[1]

    def conditioning(self, timestep: Tensor, data_info: Mapping[str, Tensor] | None, rows: int, cache: RunCache) -> Tensor:
        return self.t_embedder(timestep) + cache.once("sizes", lambda: self.sizes(data_info, rows))

    def sizes(self, data_info: Mapping[str, Tensor] | None, rows: int) -> Tensor:
        """The embedded size and aspect ratio of every row, (R, D). Raises ValueError if they are missing."""
        if not data_info or not {"img_hw", "aspect_ratio"} <= data_info.keys():
            raise ValueError('this model needs data_info with "img_hw" and "aspect_ratio"')
        size, ratio = (data_info[name].repeat(rows // len(data_info[name]), 1) for name in ("img_hw", "aspect_ratio"))
        return torch.cat([self.csize_embedder(size), self.ar_embedder(ratio)], dim=1)


def position_table(config: PixArtConfig, grid: tuple[int, int]) -> Tensor:
    """Sine-cosine features (1, N, D) of the column in the first half, of the row in the second, in float32.

    Any grid spans the coordinates of the square one, 0..base_size / lewei_scale; they are rounded to float32, as upstream's are.
    """
    along = [np.arange(side, dtype=np.float32) / np.float32(side / config.base_size) / np.float32(config.lewei_scale) for side in grid]
    rows, columns = (axis.astype(np.float64) for axis in along)
    return torch.from_numpy(sincos_2d(config.hidden_size, rows, columns)).float()[None]


def trim_text(y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Leave out the padding that no row needs: y (R, 120, C) and mask (R, 120), real tokens first -> y (R, L, C) and mask (R, L) of the
    longest text, or None if all are as long. Reads the lengths from the device: call it once, before a run.

    Raises ValueError on a text without a token: nothing could be attended to.
    """
    lengths = mask.sum(dim=1)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise ValueError("a text has no token; even an empty prompt has the tokenizer's end token")
    return y[:, :longest], None if shortest == longest else mask[:, :longest]


def PixArt_XL_2(**overrides) -> PixArt:
    return PixArt(PixArtConfig(**overrides))


def PixArtMS_XL_2(**overrides) -> PixArtMS:
    return PixArtMS(PixArtConfig(**dict(input_size=128, lewei_scale=2.0, micro_conditions=True) | overrides))
