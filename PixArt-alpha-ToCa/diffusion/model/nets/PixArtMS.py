"""PixArt-alpha at 1024 pixels: told the picture's size and aspect ratio, on grids of any shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion.model.nets.PixArt import PixArt, position_table
from diffusion.model.nets.PixArt_blocks import SizeEmbedder
from pixart_spec import PixArtConfig
from toca.engine.cache import RunCache


class PixArtMS(PixArt):
    """`data_info` of a call: "img_hw" (n, 2), height and width in pixels, and "aspect_ratio" (n, 1); n divides the rows, which repeat."""

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


def PixArtMS_XL_2(**overrides) -> PixArtMS:
    return PixArtMS(PixArtConfig(**dict(input_size=128, lewei_scale=2.0, micro_conditions=True) | overrides))
