"""A residual stream whose terms are added only when somebody reads it, all in one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 6  # terms that may wait: each is read once more wherever single tokens are taken
CPU_TILE = 2**17  # numbers of the stream that are summed at a time: what a core's cache holds


class Stream:
    """x + sum of gate_i y_i. Between full steps most terms are recalled, and nobody reads more than single tokens of the sum.

    x, y: (R, N, C). gate: (R, F, C), one for each of F equal runs of tokens, or None for one.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.terms: list[tuple[Tensor, Tensor | None]] = []

    def add(self, y: Tensor, gate: Tensor | None = None) -> None:
        self.terms.append((y, gate))
        if len(self.terms) == MOST:
            self.whole()

    def whole(self) -> Tensor:
        """All of it. The tensor is never written to again."""
        if self.terms:
            self.x, self.terms = _sum(self.x, self.terms), []
        return self.x

    def take(self, rows: Tensor) -> Tensor:
        """Flat rows (R * K,) of the (R * N, C) view, as (R, K, C)."""
        total = self.x.flatten(0, 1).index_select(0, rows)
        for y, gate in self.terms:
            values = y.flatten(0, 1).index_select(0, rows)
            if gate is None:
                total += values
            else:
                total.addcmul_(gate.flatten(0, 1).index_select(0, rows // (y.shape[1] // gate.shape[1])), values)
        return total.unflatten(0, (len(self.x), -1))


def whole(x: Tensor | Stream) -> Tensor:
    return x.whole() if isinstance(x, Stream) else x


def _sum(x: Tensor, terms: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    if x.is_cuda or len(terms) == 1 or torch.is_grad_enabled():
        for y, gate in terms:
            x = _plus(x, y, gate)
        return x
    out, runs = torch.empty_like(x), max(1 if gate is None else gate.shape[1] for _, gate in terms)
    size = x.shape[1] // runs
    tile = max(1, CPU_TILE // x.shape[2])
    for row in range(len(x)):
        for run in range(runs):
            for start in range(run * size, (run + 1) * size, tile):
                some = slice(start, min(start + tile, (run + 1) * size))
                part, before = out[row, some], x[row, some]
                for y, gate in terms:
                    if gate is None:
                        torch.add(before, y[row, some], out=part)
                    else:
                        torch.addcmul(before, gate[row, run if gate.shape[1] > 1 else 0], y[row, some], out=part)
                    before = part
    return out


def _plus(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    if gate is None:
        return x + y
    runs = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, runs), gate[:, :, None], y.unflatten(1, runs)).flatten(1, 2)
