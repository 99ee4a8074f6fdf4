"""The shapes of PixArt-alpha, free of torch: the released models and their `ModelSpec`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from toca.planning.schedule import Bilinear, Cycle
from toca.planning.spec import Branch, Cost, ModelSpec, PublishedCode, Spatial, Stack

FREQUENCIES = 256  # numbers of a sinusoidal embedding
VAE_STRIDE = 8


@dataclass(frozen=True)
class PixArtConfig:
    """One PixArt-alpha, by upstream's names. The defaults are XL/2 at 256 pixels.

    input_size: side of the latent that the position table is made for. lewei_scale: positions are divided by it.
    micro_conditions: the model is told the picture's size and aspect ratio, and takes other grids than the square one (PixArtMS).
    """

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    pred_sigma: bool = True
    caption_channels: int = 4096
    model_max_length: int = 120
    lewei_scale: float = 1.0
    micro_conditions: bool = False

    def replace(self, **overrides) -> PixArtConfig:
        return dataclasses.replace(self, **overrides)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.pred_sigma else 1)

    @property
    def base_size(self) -> int:
        """Side of the token grid that the position table is made for."""
        return self.input_size // self.patch_size

    def grid(self, latent_hw: tuple[int, int] | None = None) -> tuple[int, int]:
        """Tokens as (rows, columns) of a latent, by default of the square one."""
        height, width = latent_hw or (self.input_size, self.input_size)
        return height // self.patch_size, width // self.patch_size


CONFIGS: dict[int, PixArtConfig] = {  # the released models, by --image_size
    256: PixArtConfig(),
    512: PixArtConfig(input_size=64),
    1024: PixArtConfig(input_size=128, lewei_scale=2.0, micro_conditions=True),
}

PUBLISHED_RATIO = Bilinear(progress=(1.9, -1.8), depth=(1.6, -1.2), branch={"cross_attn": 0.6, "mlp": 1.6})
CONSTANT = Cycle()
SHRINKING = Cycle(stretch=(0.8, 0.4))  # cycles get shorter towards the picture


def pixart_spec(
    config: PixArtConfig, latent_hw: tuple[int, int] | None = None, text_tokens: int | None = None, guided: bool = True
) -> ModelSpec:
    """A PixArt-alpha as the engine sees it.

    latent_hw: height and width of the latent, by default the square one. text_tokens: of the texts as the model gets them, padding
    included (`trim_text` leaves as many as the longest has), by default the longest possible. guided: the batch has two halves, with and
    without the text, that choose the same tokens.

    Branches: self-attention, never by token; cross-attention and MLP by token, rated by the entropy of the cross-attention. FLOPs: the
    counter `matmul` computes what depends on the text alone once, `upstream` at every step, as the published code does.
    """
    c, length = config.hidden_size, config.model_max_length if text_tokens is None else text_tokens
    grid = config.grid(latent_hw)
    n = grid[0] * grid[1]
    mlp = 4 * c * int(c * config.mlp_ratio)
    text_keys = 4 * c * c * length
    tokenwise = dict(tokens=n, width=c, tokenwise=True, grid=grid, scored_by="attn", entropy_by="cross_attn")
    branches = (
        Branch("attn", tokens=n, width=c, cost=_both(8 * c * c + 4 * n * c)),
        Branch("cross_attn", cost=_both(4 * c * c + 4 * length * c, upstream_fixed=text_keys), **tokenwise),
        Branch("mlp", cost=_both(mlp), **tokenwise),
    )
    embedder = 2 * (FREQUENCIES * c + c * c)
    micro = 6 * (FREQUENCIES * (c // 3) + (c // 3) ** 2) if config.micro_conditions else 0  # of height, width and aspect ratio
    text = 2 * length * (config.caption_channels * c + c * c)
    every_step = 2 * n * c * config.patch_size**2 * (config.in_channels + config.out_channels) + embedder + 12 * c * c
    return ModelSpec(
        name="pixart",
        stacks=(Stack("blocks", config.depth, branches, modulation=(0, c), layer_cost={}, once=2 * length * c),),
        forward_cost={"matmul": every_step, "upstream": every_step + text + micro},
        run_cost={"matmul": text + micro + config.depth * text_keys},
        once=(length * c + (c if config.micro_conditions else 0), 0),
        hidden=(n, c),
        cycles={"fora": CONSTANT, "toca": SHRINKING, "duca": CONSTANT, "taylorseer": Cycle(lead=2, anchor="last_full")},
        ratio_schedules={"ToCa": PUBLISHED_RATIO, "linear-layerwise": PUBLISHED_RATIO},
        spatial={"toca": Spatial(block=4, bonus=0.4), "duca": Spatial(block=4, bonus=0.4)},
        coupled_rows=2 if guided else 1,
        published=PublishedCode(full_steps_only_global=frozenset({"toca"})),
    )


def _both(per_token: int, upstream_fixed: int = 0) -> dict[str, Cost]:
    """The same in both counters, but for what upstream computes even where it refreshes no token."""
    return {"matmul": Cost(per_token=per_token), "upstream": Cost(upstream_fixed, per_token, reuse=upstream_fixed)}
