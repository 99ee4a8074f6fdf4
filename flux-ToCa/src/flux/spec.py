"""The shapes of FLUX, free of torch: named models and their `ModelSpec`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toca.planning.schedule import At, Bilinear, Cycle
from toca.planning.spec import Branch, Cost, ModelSpec, PublishedCode, Stack

CELL = 16  # pixels of a token's side: the autoencoder's 8, two latents packed
FREQUENCIES = 256  # numbers of a sinusoidal embedding
LORA_RANK = 128  # of the released adapters, where a linear is not smaller


@dataclass(frozen=True)
class FluxParams:
    """One FLUX transformer, by upstream's names. The defaults are those of all released models.

    in_channels: of a packed latent and what it is conditioned on. axes_dim: rotary dimensions of a head per axis (index, row, column).
    """

    in_channels: int = 64
    out_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    mlp_ratio: float = 4.0
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: int = 10_000
    qkv_bias: bool = True
    guidance_embed: bool = True

    def replace(self, **overrides) -> FluxParams:
        return replace(self, **overrides)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_hidden(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)


DEV = FluxParams()
CONTROL = DEV.replace(in_channels=128)  # a packed latent and a packed map of edges or depths

CONFIGS: dict[str, FluxParams] = {
    "flux-dev": DEV,
    "flux-dev-krea": DEV,
    "flux-schnell": DEV.replace(guidance_embed=False),
    "flux-dev-canny": CONTROL,
    "flux-dev-depth": CONTROL,
    "flux-dev-canny-lora": CONTROL,
    "flux-dev-depth-lora": CONTROL,
    "flux-dev-fill": DEV.replace(in_channels=384),  # latent, masked picture, mask
}
TXT_TOKENS = {"flux-schnell": 256, "flux-dev-fill": 128}  # 512 in the others


def txt_tokens(name: str) -> int:
    """Length of the text sequence of a named model."""
    return TXT_TOKENS.get(name, 512)


SHARES = {"img_mlp": 0.4, "txt_mlp": 0.4, "total": 1.6}  # of the base ratio: single blocks matter more
PUBLISHED_SPAN = 27  # upstream's layer schedule, made for 28 layers, counts on to layer 37


def published_ratio(at: At) -> float:
    return (1.5 - at.layer / PUBLISHED_SPAN) * SHARES[at.branch]


@dataclass(frozen=True)
class Products:
    """FLOPs of one token in a linear; rank: of an adapter beside every linear, 0 without."""

    rank: int = 0

    def __call__(self, inputs: int, outputs: int) -> int:
        return 2 * inputs * outputs + 2 * min(self.rank, inputs, outputs) * (inputs + outputs)


def flux_spec(params: FluxParams, img_tokens: int, txt_tokens: int, lora_rank: int = 0) -> ModelSpec:
    """A FLUX as the engine sees it, for a picture of `img_tokens` packed latent patches and a text of `txt_tokens`.

    lora_rank: of an adapter that is kept beside the weights, which costs FLOPs (counter "matmul").

    Double blocks: one joint attention, its output projected per stream, text first; an MLP per stream. Single blocks: `attn` is what
    attention adds to the block's output, `total` the whole output before the gate.
    Ratio schedules: `ToCa` is the published one, `ToCa-depth` stretches it over the depth of each stack.
    Counters: "projected" is the published code's, of a code that caches attention after its projection and modulates double blocks
    even where it skips them: that of later papers' totals.
    """
    cycle = Cycle(lead=3, anchor="last_full")
    h, n, t = params.hidden_size, img_tokens, txt_tokens
    linear, plain = Products(lora_rank), Products()

    def every_step(linear: Products) -> int:
        ends = n * (linear(params.in_channels, h) + linear(h, params.out_channels)) + linear(h, 2 * h)
        return ends + linear(FREQUENCIES, h) + linear(h, h)

    def once(linear: Products) -> int:
        embedded = t * linear(params.context_in_dim, h) + linear(params.vec_in_dim, h) + linear(h, h)
        return embedded + (linear(FREQUENCIES, h) + linear(h, h) if params.guidance_embed else 0)

    upstream = every_step(plain) + once(plain) + 4 * n * h
    return ModelSpec(
        name="flux",
        stacks=(_double_blocks(params, n, t, linear), _single_blocks(params, n + t, linear)),
        forward_cost={"matmul": every_step(linear), "upstream": upstream, "projected": upstream + params.depth * 24 * h * h},
        hidden=(n, h),
        cycles={"fora": Cycle(anchor="last_full"), "toca": cycle, "duca": cycle, "taylorseer": cycle},
        run_cost={"matmul": once(linear)},
        once=((t + 1) * h, 8 * (n + t) * params.head_dim // 2),  # embedded text and vector; complex64 rotations
        ratio_schedules={
            "ToCa": published_ratio,
            "ToCa-depth": Bilinear(depth=(1.5, -1.0), branch=SHARES),
            "linear-layerwise": Bilinear(progress=(1.6 * 1.9, 1.6 * -1.8), depth=(1.6, -1.2)),
        },
        skip_odd=True,
        published=PublishedCode(keeps_maps=False, printed_units=(1e12, 1e9)),
    )


def _costs(matmul: int, upstream: int, upstream_reuse: int = 0) -> dict[str, Cost]:
    """Of one token, by counter. upstream_reuse: what the published code computes where the output is cached."""
    return {
        "matmul": Cost(per_token=matmul),
        "upstream": Cost(per_token=upstream, reuse=upstream_reuse),
        "projected": Cost(per_token=upstream),
    }


def _double_blocks(params: FluxParams, n: int, t: int, linear: Products) -> Stack:
    h, mlp = params.hidden_size, params.mlp_hidden
    products = 4 * (t + n) * h  # of attention, for one token

    def mlp_branch(name: str, tokens: int, scored_from: int, first_chunk: int) -> Branch:
        return Branch(
            name,
            tokens=tokens,
            width=h,
            cost=_costs(linear(h, mlp) + linear(mlp, h), 4 * h * mlp + 4 * h + mlp),
            inputs=(first_chunk, first_chunk + 1),
            gate=(first_chunk + 2,),
            tokenwise=True,
            scored_by="attn",
            scored_from=scored_from,
        )

    attn = Branch(
        "attn",
        tokens=t + n,
        width=h,
        # upstream projects at every step
        cost=_costs(linear(h, 3 * h) + linear(h, h) + products, 8 * h * h + 4 * h + products, 2 * (t + n) * h * h),
        inputs=(0, 1, 6, 7),
        gate=(2, 8),
    )
    return Stack(
        "double_blocks",
        depth=params.depth,
        branches=(attn, mlp_branch("img_mlp", n, scored_from=t, first_chunk=3), mlp_branch("txt_mlp", t, scored_from=0, first_chunk=9)),
        modulation=(12, h),
        layer_cost={"matmul": 2 * linear(h, 6 * h), "upstream": 24 * h * h},  # "projected" has it in every forward
    )


def _single_blocks(params: FluxParams, tokens: int, linear: Products) -> Stack:
    h, mlp = params.hidden_size, params.mlp_hidden
    products = 4 * tokens * h
    attn_cost = _costs(linear(h, 3 * h) + linear(h, h) + products, 6 * h * h + products)
    attn = Branch("attn", tokens, h, attn_cost, inputs=(0, 1), feeds="total")
    total = Branch(
        "total",
        tokens=tokens,
        width=h,
        # upstream: the attention part of linear2 once more
        cost=_costs(linear(h, mlp) + linear(mlp, h), 4 * h * mlp + 2 * h * h + 4 * h + mlp),
        inputs=(0, 1),
        gate=(2,),
        tokenwise=True,
        scored_by="attn",
    )
    return Stack(
        "single_blocks",
        depth=params.depth_single_blocks,
        branches=(attn, total),
        modulation=(3, h),
        layer_cost={"matmul": linear(h, 3 * h), "upstream": 6 * h * h, "projected": 6 * h * h},
    )
