from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from toca.planning.checks import check_all, check_whole, check_wholes
from toca.planning.method import Flag, Method, check_run
from toca.planning.plan import Action, Kind, Plan, finish
from toca.planning.spec import HIDDEN, ModelSpec, Site

FILLS = ("branches", "hidden")


def numbers(text: str) -> tuple[int, ...]:
    """The type of a flag like 0,2,4,12."""
    return tuple(int(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@dataclass(frozen=True)
class Scheduled(Method):
    """Full steps chosen one by one, and what fills the steps between them, chosen per segment: the form of a calibrated plan.

    full: the full steps, the first of them 0.
    fill: of the segment after every full step, or one for all: "branches", every branch is forecast; "hidden", no layer runs and the
        state after the last one is forecast, for which two states are kept and no branch.
    order: of the highest difference; 0 reuses the last value.
    """

    name = "scheduled"
    label = "Scheduled"
    flags = (
        Flag("full_steps", "full", "full steps of scheduled, such as 0,2,4,12; the first is 0", type=numbers),
        Flag("fill", "fill", "between them, branches or hidden; for all segments, or one for each: branches,hidden,...", FILLS[:1], words),
        Flag("fill_order", "order", "order of scheduled's differences; 0 reuses", 1, int, least=0, most=10, in_name=False),
    )
    forecasts = True
    full: tuple[int, ...] = (0,)
    fill: tuple[str, ...] = ("branches",)
    order: int = 1

    def __post_init__(self) -> None:
        check_wholes(full=self.full)
        check_all(str, fill=self.fill)
        check_whole(order=self.order)
        if not self.full or self.full[0] != 0 or any(a >= b for a, b in pairwise(self.full)):
            raise ValueError(f"full steps must rise from 0, got {self.full}")
        if unknown := sorted({fill for fill in self.fill if fill not in FILLS}):
            raise ValueError(f"a segment is filled by {' or '.join(FILLS)}, got {unknown[0]!r}")
        if len(self.fill) not in (1, len(self.full)):
            raise ValueError(f"{len(self.full)} full steps need one fill, or as many, got {len(self.fill)}")

    @classmethod
    def from_flags(cls, given: Mapping[str, Any]) -> Scheduled:
        if given.get("full_steps") is None:
            raise ValueError("scheduled needs its full steps, such as 0,2,4,12, got None")
        return super().from_flags(given)

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        """Raises ValueError if the run is shorter than its last full step."""
        check_run(spec, num_steps)
        if self.full[-1] >= num_steps:
            raise ValueError(f"full steps must be below {num_steps}, the number of steps, got {self.full[-1]}")
        return finish(spec, self._steps(spec, num_steps), history=True)

    def _steps(self, spec: ModelSpec, num_steps: int) -> Iterator[dict[Site, Action]]:
        fills = self.fill * len(self.full) if len(self.fill) == 1 else self.fill
        last = 0
        for place, (start, end) in enumerate(pairwise((*self.full, num_steps))):
            gap, order = start - last, min(place, self.order)
            yield {site: Action(Kind.FULL, spec.branch(site).tokens, gap, order) for site in spec.sites()} | {
                HIDDEN: Action(Kind.FULL, gap=gap, order=order)
            }
            for step in range(start + 1, end):
                forecast = Action(Kind.FORECAST, gap=step - start, order=order)
                if fills[place] == "hidden":
                    yield dict.fromkeys(spec.sites(), Action(Kind.SKIP)) | {HIDDEN: forecast}
                else:
                    yield dict.fromkeys(spec.sites(), forecast) | {HIDDEN: Action(Kind.PARTIAL)}
            last = start
