from __future__ import annotations

from dataclasses import dataclass

from toca.planning.checks import check_positive
from toca.planning.method import CYCLE_LENGTH, Method, check_run
from toca.planning.plan import Action, Kind, Plan, finish, full_step
from toca.planning.spec import ModelSpec


@dataclass(frozen=True)
class FORA(Method):
    """FORA (arXiv 2407.01425): every `interval`-th step is full, all outputs are reused in between."""

    name = "fora"
    label = "FORA"
    flags = (CYCLE_LENGTH,)
    interval: int = 3

    def __post_init__(self) -> None:
        check_positive(interval=self.interval)

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_run(spec, num_steps)
        phases = spec.cycle(self.name).phases(self.interval, num_steps, spec.counts_down)
        full = full_step(spec)
        reuse = full | {site: Action(Kind.REUSE) for site in spec.sites()}
        return finish(spec, [reuse if phase.first else full for phase in phases])
