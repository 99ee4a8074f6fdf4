from __future__ import annotations

from dataclasses import dataclass

from toca.planning.method import Method, check_positive
from toca.planning.plan import Action, Kind, Plan, finish
from toca.planning.spec import HIDDEN, ModelSpec


@dataclass(frozen=True)
class NoCaching(Method):
    """Every step full, nothing stored: the uncached run."""

    name = "none"

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_positive(num_steps=num_steps)
        row = {site: Action(Kind.FULL, spec.branch(site).tokens) for site in spec.sites()}
        return finish(spec, [row | {HIDDEN: Action(Kind.FULL)}] * num_steps)
