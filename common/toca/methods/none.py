from __future__ import annotations

from dataclasses import dataclass

from toca.planning.method import Method, check_run
from toca.planning.plan import Plan, finish, full_step
from toca.planning.spec import ModelSpec


@dataclass(frozen=True)
class NoCaching(Method):
    """Every step full, nothing stored: the uncached run."""

    name = "none"

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_run(spec, num_steps)
        return finish(spec, [full_step(spec)] * num_steps)
