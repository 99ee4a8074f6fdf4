"""What every caching method is: settings, a plan, a slot, and (if it refreshes single tokens) a way to rank them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toca.planning.plan import Plan
from toca.planning.spec import ModelSpec


@dataclass(frozen=True)
class Ranking:
    """How tokens are ranked. score: an entry of `planning.scores.RATINGS`. age_weight: s3 per step of staleness.

    block, bonus, frames, softmax: s4, by `planning.spec.Spatial` (none if block is 0). overdue: tokens this stale go first, whatever their
    score (0: never).
    upstream_exact: upstream's similarity (input against cached output) and its bonus on negative scores.
    """

    score: str
    age_weight: float = 0.0
    block: int = 0
    bonus: float = 0.0
    frames: int = 1
    softmax: bool = False
    overdue: int = 0
    upstream_exact: bool = False


@dataclass(frozen=True)
class Method:
    """Base of all methods. `forecasts`: slots hold differences, not just the last value."""

    name: ClassVar[str]
    forecasts: ClassVar[bool] = False

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        """The plan of a run of `num_steps` model calls. Raises ValueError on settings that make no sense."""
        raise NotImplementedError

    def ranking(self, spec: ModelSpec) -> Ranking | None:
        return None


def check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
