"""The shapes of Open-Sora's STDiT3, free of torch: named models and their `ModelSpec`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from toca.planning.schedule import Bilinear, Cycle
from toca.planning.spec import Branch, Cost, ModelSpec, PublishedCode, Spatial, Stack

FREQUENCIES = 256  # numbers of a sinusoidal embedding


@dataclass(frozen=True)
class STDiT3Config:
    """One STDiT3, by upstream's names. The defaults are those of STDiT3-XL/2."""

    depth: int = 28
    hidden_size: int = 1152
    num_heads: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    in_channels: int = 4
    pred_sigma: bool = True
    mlp_ratio: float = 4.0
    qk_norm: bool = True
    caption_channels: int = 4096
    model_max_length: int = 300
    input_sq_size: int = 512

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads % 2 or self.hidden_size % 4:
            raise ValueError(f"hidden size {self.hidden_size} must be a multiple of 4 and split into {self.num_heads} heads of even width")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> STDiT3Config:
        """Of a config.json. Entries that change nothing in inference are ignored; the rest is an error."""
        own = {field.name for field in fields(cls)}
        if values.get("skip_y_embedder"):
            raise ValueError("skip_y_embedder: texts embedded elsewhere are not supported")
        if unknown := sorted(values.keys() - own - IGNORED):
            raise ValueError(f"unknown STDiT3 settings {', '.join(unknown)}: known are {', '.join(sorted(own))}")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in own}
        for field in fields(cls):
            if not _alike(value := given.get(field.name, field.default), field.default):
                raise ValueError(f"{field.name} of an STDiT3 must be like {field.default!r}, got {value!r}")
        return cls(**given)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.pred_sigma else 1)

    def grid(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens (frames, rows, columns) of a latent of that size; what is left over at an end makes a token too."""
        return tuple(math.ceil(size / patch) for size, patch in zip(latent, self.patch_size, strict=True))


def _alike(value: Any, default: Any) -> bool:
    """Whether a setting is of the kind of its default: a truth, a number above 0 of its type, or as many of them."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and len(value) == len(default) and all(map(_alike, value, default))
    if isinstance(default, bool):
        return isinstance(value, bool)
    return isinstance(value, int | type(default)) and not isinstance(value, bool) and value > 0


IGNORED = {
    "architectures", "class_dropout_prob", "drop_path", "enable_flash_attn", "enable_layernorm_kernel", "enable_sequence_parallelism",
    "force_huggingface", "freeze_y_embedder", "input_size", "model_type", "only_train_temporal", "skip_y_embedder", "torch_dtype",
    "transformers_version",
}  # fmt: skip

CONFIGS = {"STDiT3-XL/2": STDiT3Config(), "STDiT3-3B/2": STDiT3Config(hidden_size=1872, num_heads=26)}


PUBLISHED = Bilinear(branch={"mlp": 1.495, "cross_attn": -0.005})  # below zero: cross-attention is never refreshed in part


def opensora_spec(
    config: STDiT3Config,
    latent: tuple[int, int, int],
    text_tokens: int,
    cycles: tuple[int, int, int, int] | None = None,
    bonus: float = 0.0,
    bonus_frames: int = 1,
) -> ModelSpec:
    """An STDiT3 as the engine sees it, for a latent (frames, rows, columns) and prompts of at most `text_tokens`.

    Spatial and temporal layers take turns; each has self-attention, cross-attention to the text, and an MLP. Cross-attention follows a
    cycle twice as long as the others', unless `cycles` says the lengths for spatial attention, temporal attention, cross-attention, MLP.
    bonus, bonus_frames: of s4, and how far in time its cells reach. A batch has two halves, prompts and null captions, that may choose the
    same tokens.

    Counter "matmul" is that of the published code: the text embedded at full length and projected at every step, cross-attention of a
    guided pair over both texts. "executed" is ours: the text once, each row its own.
    """
    frames, rows, columns = config.grid(latent)
    c, n, t = config.hidden_size, frames * rows * columns, text_tokens
    p = math.prod(config.patch_size)
    patches = 2 * n * c * p * (config.in_channels + config.out_channels)
    times = 2 * (FREQUENCIES * c + c * c) + 12 * c * c  # of the timestep, and the modulation all layers share
    fps, caption = 2 * (FREQUENCIES * c + c * c), 2 * (config.caption_channels * c + c * c)
    matmul = patches + times + fps + config.model_max_length * caption
    cycle = Cycle(lead=3)
    spatial, temporal, cross, mlp = cycles or (None,) * 4
    return ModelSpec(
        name="opensora",
        stacks=(
            _stack("spatial_blocks", config, (frames, rows, columns), rows * columns, t, (spatial, cross, mlp)),
            _stack("temporal_blocks", config, (frames, rows, columns), frames, t, (temporal, cross, mlp)),
        ),
        forward_cost={"matmul": matmul, "upstream": matmul + 4 * n * c, "executed": patches + times},
        hidden=(n, c),
        cycles={"fora": cycle, "toca": cycle, "duca": cycle, "taylorseer": Cycle(lead=3, anchor="last_full")},
        run_cost={"executed": fps + t * caption + 2 * config.depth * 4 * t * c * c},
        once=(c + t * c, t),  # embedded fps and text; the text's mask
        ratio_schedules={"ToCa": PUBLISHED},
        spatial=dict.fromkeys(("toca", "duca"), Spatial(block=2, bonus=bonus, frames=bonus_frames)),
        coupled_rows=2,
        uncoupled=frozenset({"keys", "values"}),
        published=PublishedCode(softmax_bonus=True, map_keys={"cross_attn": 2 * t}, printed_units=(1e12,)),  # maps of a guided pair
    )


def _stack(name: str, config: STDiT3Config, grid: tuple[int, int, int], attended: int, t: int, cycles: tuple[int | None, ...]) -> Stack:
    """attended: tokens that one token's self-attention sees. t: of the text. cycles: of attention, cross-attention, MLP."""
    c, hidden, n = config.hidden_size, int(config.hidden_size * config.mlp_ratio), math.prod(grid)
    attention = 8 * c * c + 4 * attended * c
    text = 4 * t * c * c  # keys and values
    attn = Branch(
        "attn",
        cost={"matmul": Cost(per_token=attention), "upstream": Cost(per_token=attention + 4 * c)},
        tokens=n,
        width=c,
        interval=cycles[0],
    )
    published = Cost(fixed=text, per_token=4 * c * c + 8 * t * c, reuse=text)
    tokenwise = dict(tokens=n, width=c, tokenwise=True, grid=grid[1:], scored_by="attn", entropy_by="cross_attn")
    cross_attn = Branch(
        "cross_attn",
        cost={"matmul": published, "upstream": published, "executed": Cost(per_token=4 * c * c + 4 * t * c)},
        interval_scale=2,
        interval=cycles[1],
        **tokenwise,
    )
    norm = 4 * n * c  # of all tokens, however few are refreshed
    mlp = Branch(
        "mlp",
        cost={"matmul": Cost(per_token=4 * c * hidden), "upstream": Cost(norm, 4 * c * hidden + hidden, norm)},
        interval=cycles[2],
        **tokenwise,
    )
    return Stack(name, config.depth, (attn, cross_attn, mlp), modulation=(0, c), layer_cost={}, once=2 * t * c)
