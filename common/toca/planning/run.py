"""A sampling run before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from toca.planning.checks import check_kind, check_positive
from toca.planning.method import Method, check_run
from toca.planning.plan import Plan
from toca.planning.spec import ModelSpec


@dataclass(frozen=True)
class PlannedRun:
    """A model at one resolution, a method and a number of steps.

    title: one line for people.
    rows_per_image: batch rows of an image, 2 with guidance.
    """

    title: str
    spec: ModelSpec
    method: Method
    num_steps: int
    rows_per_image: int = 1

    def __post_init__(self) -> None:
        check_kind(str, "a text", title=self.title)
        check_kind(Method, method=self.method)
        check_run(self.spec, self.num_steps)
        check_positive(rows_per_image=self.rows_per_image)

    @cached_property
    def plan(self) -> Plan:
        """Raises ValueError on settings that make no sense."""
        return self.method.plan(self.spec, self.num_steps)
