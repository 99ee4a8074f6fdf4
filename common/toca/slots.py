"""What stands in for tokens that are not computed: the last value, or a Taylor forecast."""

from __future__ import annotations

import math

from torch import Tensor

from toca.plan import Action


class Last:
    """The last output of a branch. It takes ownership: `put` keeps the tensor itself, and `refresh` writes into it."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.value is None else self.value.nbytes

    def prepare(self, action: Action) -> None:
        """Free what the coming full step will replace."""
        self.value = None

    def put(self, value: Tensor, action: Action) -> None:
        self.value = value if action.keep else None

    def refresh(self, rows: Tensor, values: Tensor) -> None:
        """Overwrite flat rows (R * K,) of the (R * N, C) view by values (R, K, C)."""
        self.value.view(-1, self.value.shape[-1]).index_copy_(0, rows, values.flatten(0, 1))

    def recall(self, action: Action) -> Tensor:
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
