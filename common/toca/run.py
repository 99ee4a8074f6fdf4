"""A sampling run before it starts: what `toca plan`, `toca flops` and `toca memory` need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from toca.methods.base import Method
from toca.plan import Plan
from toca.spec import ModelSpec


@dataclass(frozen=True)
class PlannedRun:
    """A model at one resolution, a method and a number of steps. rows_per_image: batch rows of an image, 2 with guidance."""

    title: str
    spec: ModelSpec
    method: Method
    num_steps: int
    rows_per_image: int = 1

    @cached_property
    def plan(self) -> Plan:
        return self.method.plan(self.spec, self.num_steps)
