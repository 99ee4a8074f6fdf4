"""What stands in for tokens that are not computed: the last value, or a Taylor forecast."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from toca.planning.plan import Action


def gather(x: Tensor, chosen: Tensor) -> Tensor:
    """Tokens of x (R, N, ...), flat indices (R * K,) into (R * N), as (R, K, ...)."""
    return x.flatten(0, 1).index_select(0, chosen).unflatten(0, (x.shape[0], -1))


def scatter(x: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Overwrite these tokens of x (R, N, C) by values (R, K, C)."""
    x.view(-1, x.shape[-1]).index_copy_(0, chosen, values.flatten(0, 1))


class Last:
    """The last output of a branch. It takes ownership: `put` keeps the tensor itself, and refreshed tokens are written into it."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.parts: list[Tensor] = []  # in its place: the tokens that each coming step reads
        self.packed = False  # since the last full step

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts) + (0 if self.value is None else self.value.nbytes)

    @property
    def newest(self) -> Tensor:
        """The whole value (R, N, C), for tokens to be written into. Raises RuntimeError if nothing is stored."""
        if self.value is None:
            raise RuntimeError("nothing is stored: the plan reads a branch that was not kept")
        return self.value

    def prepare(self, action: Action) -> None:
        """Free what the coming full step will replace."""
        self.value, self.parts, self.packed = None, [], False

    def put(self, value: Tensor, action: Action) -> None:
        self.value = value if action.keep else None

    def pack(self, chosen: Sequence[Tensor]) -> None:
        """Keep some tokens alone: flat indices (R * K,) of those that each step which will recall the value reads."""
        self.parts = [gather(self.newest, some) for some in chosen]
        self.value, self.packed = None, True

    def recall(self, action: Action) -> Tensor:
        """The value (R, N, C), or the tokens of it (R, K, C) that were kept for this step."""
        if self.packed:
            return self.parts.pop(0)
        value = self.newest
        if not action.keep:
            self.value = None
        return value


class Taylor:
    """Finite differences of a branch's output over full steps: f_0 the output, f_{k+1} = (f_k now - f_k before) / gap."""

    packed = False

    def __init__(self) -> None:
        self.factors: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        return sum(factor.nbytes for factor in self.factors)

    @property
    def newest(self) -> Tensor:
        """f_0 (R, N, C)."""
        return self.factors[0]

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
            new = new.sub(old).div_(action.gap)  # not in place of the old: whoever got that as an output may hold it
        self.factors[action.order :] = [new]

    def recall(self, action: Action) -> Tensor:
        """sum over k of f_k gap^k / k!, by Horner's rule: the powers of a long gap are beyond float16."""
        value = self.factors[action.order]
        for k in range(action.order, 0, -1):
            value = self.factors[k - 1].add(value, alpha=action.gap / k)
        if not action.keep:
            self.factors = []
        return value


Slot = Last | Taylor
