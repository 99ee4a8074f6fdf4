"""The shapes of DiT, free of torch: named sizes, their `ModelSpec`, and the caching flags of the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from toca.planning.schedule import Bilinear, Cycle
from toca.planning.spec import Branch, Cost, ModelSpec, Spatial, Stack


@dataclass(frozen=True)
class DiTConfig:
    """One DiT. `input_size` is the side of the latent (or picture) the network sees: an int, or (height, width)."""

    depth: int
    hidden_size: int
    num_heads: int
    patch_size: int
    input_size: int | tuple[int, int] = 32
    in_channels: int = 4
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    learn_sigma: bool = True

    def replace(self, **overrides) -> DiTConfig:
        return dataclasses.replace(self, **overrides)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens as (rows, columns)."""
        height, width = (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)


_FAMILIES = {"XL": (28, 1152, 16), "L": (24, 1024, 16), "B": (12, 768, 12), "S": (12, 384, 6)}  # depth, width, heads

CONFIGS = {f"DiT-{family}/{patch}": DiTConfig(*shape, patch) for family, shape in _FAMILIES.items() for patch in (2, 4, 8)}
CONFIGS["DiT-mini"] = DiTConfig(8, 128, 4, 2, in_channels=3, num_classes=20)  # 32 x 32 pixels, no VAE


STRETCHED = Cycle(stretch=(1.4, -0.8), window=(0.2, 0.4, 2))  # long cycles at high noise, short ones late, 2 in the sensitive fifth
DDPM250 = Bilinear(progress=(1.4, -0.8), depth=(1.8, -1.6), branch={"mlp": 2.5})
DDIM50 = Bilinear(progress=(3.0, -4.0), depth=(0.8, 0.4), branch={"mlp": 2.5})


def dit_spec(config: DiTConfig, sampler: Literal["ddpm", "ddim"] = "ddim") -> ModelSpec:
    """A DiT as the engine sees it. The sampler decides which published ratio schedule the name `ToCa` stands for."""
    n, c, p, heads = config.num_tokens, config.hidden_size, config.patch_size, config.num_heads
    hidden = int(c * config.mlp_ratio)
    patch, out = p * p * config.in_channels, p * p * config.out_channels
    attn = Branch(
        "attn",
        tokens=n,
        width=c,
        inputs=(0, 1),
        gate=(2,),
        cost={
            "matmul": Cost(per_token=8 * c * c + 4 * n * c),
            "upstream": Cost(per_token=8 * c * c + 4 * n * c + c + 5 * heads * n),
        },
    )
    mlp = Branch(
        "mlp",
        tokens=n,
        width=c,
        inputs=(3, 4),
        gate=(5,),
        tokenwise=True,
        grid=config.grid,
        scored_by="attn",
        cost={"matmul": Cost(per_token=4 * c * hidden), "upstream": Cost(per_token=4 * c * hidden + 6 * hidden)},
    )
    blocks = Stack(
        "blocks",
        depth=config.depth,
        branches=(attn, mlp),
        modulation=(6, c),
        layer_cost={"matmul": 12 * c * c, "upstream": 6 * c * c + c},  # upstream counts a multiply-add of adaLN once
        norm_cost={"upstream": 2 * n * c},
    )
    return ModelSpec(
        name="dit",
        stacks=(blocks,),
        forward_cost={"matmul": 2 * (n * c * (patch + out) + 256 * c + c * c + 2 * c * c)},  # patches, output, timestep MLP, final adaLN
        hidden=(n, c),
        cycles={"fora": Cycle(), "toca": STRETCHED, "duca": STRETCHED, "taylorseer": Cycle(lead=2, anchor="last_full")},
        ratio_schedules={
            "ToCa": DDIM50 if sampler == "ddim" else DDPM250,
            "ToCa-ddpm250": DDPM250,
            "ToCa-ddim50": DDIM50,
            "linear-layerwise": DDPM250,
        },
        spatial={"toca": Spatial(block=2, bonus=0.6), "duca": Spatial(block=2, bonus=0.8)},
        counts_down=True,
    )
