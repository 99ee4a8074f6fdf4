"""Which tokens matter: base scores per token, before staleness (s3) and the spatial bonus (s4) of `toca.engine.selection`.

Only tensor methods are used, so that plans and command lines can know the scores without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Observed = Literal["nothing", "mass", "entropy", "keys", "values", "input", "change"]


def unseen(*observed: Tensor) -> Tensor:
    raise TypeError("a score that observes nothing has no base")


@dataclass(frozen=True)
class Score:
    """A rule that scores tokens: the higher, the sooner a token is refreshed. With neither base nor draw staleness alone decides.

    observes: what `base` gets. At full steps: "mass" (R, N), the attention each token receives, or "keys" or "values" (R, H, N, d).
        Whenever cross-attention computes tokens: "entropy" (R, K) of the attention they pay. Whenever tokens are chosen: "input" x
        (R, N, C), or "change" (x, x at the last refresh).
    base: makes a number per token (R, N) of that, which is kept.
    random: weight of a uniform draw on top.
    scale: makes bases (..., N) comparable with staleness; None where they are.
    couples: rows of one item (`ModelSpec.coupled_rows`) have the mean of their bases in common, and choose the same tokens.
    """

    observes: Observed
    base: Callable[..., Tensor] = unseen
    random: float = 0.0
    scale: Callable[[Tensor], Tensor] | None = None
    couples: bool = False

    @property
    def from_attention(self) -> bool:
        return self.observes in ("mass", "entropy", "keys", "values")

    @property
    def from_input(self) -> bool:
        return self.observes in ("input", "change")


def normalised(score: Tensor) -> Tensor:
    """score (..., N) over its L2 norm along the tokens, which counts as at least 1e-12."""
    return score / score.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def received_share(mass: Tensor) -> Tensor:
    """Attention received, relative to the token that receives most; for `compress`, at half weight."""
    return 0.5 * mass / mass.amax(dim=-1, keepdim=True)


def small_values(v: Tensor) -> Tensor:
    """DuCa's kv-norm: sum over heads of 1 - ||v||; may be negative."""
    return (1 - v.float().norm(dim=-1)).sum(dim=1)


def mean_head_norm(heads: Tensor) -> Tensor:
    """Length of every token's key or value, (R, H, N, d), averaged over heads."""
    return heads.float().norm(dim=-1).mean(dim=1)


def undecided(entropy: Tensor) -> Tensor:
    """s2: 1 + H of the attention a token pays to the text; those whose attention is spread the most go first."""
    return normalised(1 + entropy)


def input_norm(x: Tensor) -> Tensor:
    return normalised(x.float().norm(dim=-1))


def change(x: Tensor, reference: Tensor) -> Tensor:
    """1 - cosine similarity of every token with its reference."""
    x, reference = x.float(), reference.float()
    lengths = (x.norm(dim=-1) * reference.norm(dim=-1)).clamp_min(1e-8)
    return normalised(1 - (x * reference).sum(dim=-1) / lengths)


SCORES: dict[str, Score] = {
    "attention": Score("mass", normalised),  # s1: column sums of the head-averaged attention map
    "kv-norm": Score("values", small_values, scale=normalised, couples=True),
    "k-norm": Score("keys", mean_head_norm, scale=normalised, couples=True),  # before normalisation and rotary embeddings
    "v-norm": Score("values", mean_head_norm, scale=normalised, couples=True),
    "similarity": Score("change", change),
    "norm": Score("input", input_norm),
    "random": Score("nothing", random=1.0, couples=True),
    "compress": Score("mass", received_share, random=0.5),
    "age": Score("nothing", couples=True),  # s3 alone: tokens are refreshed in turns
}
ALL_SCORES: dict[str, Score] = {  # what a ranking may name: "attention" is "entropy" where cross-attention scores tokens
    **SCORES,
    "entropy": Score("entropy", lambda entropy: entropy, scale=undecided, couples=True),
}
