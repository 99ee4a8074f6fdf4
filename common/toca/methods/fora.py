from __future__ import annotations

from dataclasses import dataclass

from toca.planning.method import CYCLE_LENGTH, Method, check_positive
from toca.planning.plan import Action, Kind, Plan, finish
from toca.planning.spec import HIDDEN, ModelSpec


@dataclass(frozen=True)
class FORA(Method):
    """FORA (arXiv 2407.01425): every `interval`-th step full, all outputs reused in between."""

    name = "fora"
    label = "FORA"
    flags = (CYCLE_LENGTH,)
    interval: int = 3

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_positive(interval=self.interval, num_steps=num_steps)
        phases = spec.cycle(self.name).phases(self.interval, num_steps, spec.counts_down)
        full = {site: Action(Kind.FULL, spec.branch(site).tokens) for site in spec.sites()}
        reuse = {site: Action(Kind.REUSE) for site in spec.sites()}
        hidden = {HIDDEN: Action(Kind.FULL)}
        return finish(spec, [(reuse if phase.first else full) | hidden for phase in phases])
