"""What stands in for tokens that are not computed: the last value, or a Taylor forecast."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from toca.planning.plan import Action


def gather(x: Tensor, rows: Tensor) -> Tensor:
    """Rows (R * K,) of the (R * N, ...) view of x (R, N, ...), as (R, K, ...)."""
    return x.flatten(0, 1).index_select(0, rows).unflatten(0, (x.shape[0], -1))


class Last:
    """The last output of a branch. It takes ownership: `put` keeps the tensor itself, and `refresh` writes into it."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.parts: list[Tensor] = []  # in its place: the rows that each coming step reads

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts) + (0 if self.value is None else self.value.nbytes)

    def prepare(self, action: Action) -> None:
        """Free what the coming full step will replace."""
        self.value, self.parts = None, []

    def put(self, value: Tensor, action: Action) -> None:
        self.value = value if action.keep else None

    def pack(self, chosen: Iterable[Tensor]) -> None:
        """Keep some rows alone: flat rows (R * K,) for every step that will recall the value."""
        self.value, self.parts = None, [gather(self.value, rows) for rows in chosen]

    def refresh(self, rows: Tensor, values: Tensor) -> None:
        """Overwrite flat rows (R * K,) of the (R * N, C) view by values (R, K, C)."""
        self.value.view(-1, self.value.shape[-1]).index_copy_(0, rows, values.flatten(0, 1))

    def recall(self, action: Action) -> Tensor:
        """The value (R, N, C), or the rows of it (R, K, C) that were kept for this step."""
        if self.parts:
            return self.parts.pop(0)
        value = self.value
        if not action.keep:
            self.value = None
        return value


class Taylor:
    """Finite differences of a branch's output over full steps: f_0 the output, f_{k+1} = (f_k now - f_k before) / gap."""

    def __init__(self) -> None:
        self.factors: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        return sum(factor.nbytes for factor in self.factors)

    def prepare(self, action: Action) -> None:
        if not action.gap:
            self.factors = []

    def put(self, value: Tensor, action: Action) -> None:
        """A gap of 0 starts a new history."""
        if not action.keep:
            self.factors = []
            return
        new = value
        for k in range(action.order):
            old, self.factors[k] = self.factors[k], new
            new = old.neg_().add_(new).div_(action.gap)
        self.factors[action.order :] = [new]

    def recall(self, action: Action) -> Tensor:
        """sum over k of f_k gap^k / k!"""
        value = self.factors[0]
        for k in range(1, action.order + 1):
            value = value.add(self.factors[k], alpha=action.gap**k / math.factorial(k))
        if not action.keep:
            self.factors = []
        return value


Slot = Last | Taylor
