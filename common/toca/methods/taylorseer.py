from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toca.planning.checks import check_positive, check_whole
from toca.planning.method import CYCLE_LENGTH, Flag, M, Method, check_run
from toca.planning.plan import Action, Kind, Plan, finish
from toca.planning.spec import HIDDEN, ModelSpec, Site


@dataclass(frozen=True)
class TaylorSeer(Method):
    """TaylorSeer (arXiv 2503.06923): between full steps every branch is forecast by a Taylor series of up to `order` differences.

    interval: cycle length N, in steps.
    order: of the highest difference.
    """

    name = "taylorseer"
    label = "Taylor"
    flags = (CYCLE_LENGTH, Flag("max_order", "order", "order of taylorseer's differences", 1, int, least=0, most=100))
    forecasts = True
    interval: int = 4
    order: int = 4

    def __post_init__(self) -> None:
        check_positive(interval=self.interval)
        check_whole(order=self.order)

    @classmethod
    def from_flags(cls: type[M], given: Mapping[str, Any]) -> M:
        """Its cycle is `interval` where a fork has that flag, as upstream's DiT."""
        return super().from_flags({**given, "fresh_threshold": given.get("interval", given.get("fresh_threshold"))})

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_run(spec, num_steps)
        return finish(spec, self._steps(spec, num_steps), history=True)

    def _steps(self, spec: ModelSpec, num_steps: int) -> Iterator[dict[Site, Action]]:
        cycle = spec.cycle(self.name)
        last = order = 0
        for step, phase in enumerate(cycle.phases(self.interval, num_steps, spec.counts_down)):
            if phase.first == 0:
                gap = step - last if step > max(0, cycle.lead - 2) else 0  # by then there is one full step to differ from
                order = min(self.order, order + 1) if gap else 0
                actions = {site: Action(Kind.FULL, spec.branch(site).tokens, gap, order) for site in spec.sites()}
                last = step
            else:
                actions = {site: Action(Kind.FORECAST, gap=step - last, order=order) for site in spec.sites()}
            yield actions | {HIDDEN: Action(Kind.FULL)}
