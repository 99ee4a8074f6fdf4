from __future__ import annotations

from dataclasses import dataclass

from toca.methods.toca import ToCa
from toca.planning.plan import Action, Kind
from toca.planning.spec import HIDDEN, ModelSpec, Site


@dataclass(frozen=True)
class DuCa(ToCa):
    """DuCa (arXiv 2412.18911): ToCa whose cached steps alternate between token-wise ones and ones that skip all layers.

    Places in the shortest cycle of the model's branches decide. A step at which a branch of a longer cycle is due is not skipped.
    """

    name = "duca"
    label = "DuCa"
    ratio: float = 0.05

    def _row(self, spec: ModelSpec, num_steps: int, step: int, phases: dict[int, list[tuple[int, int]]]) -> dict[Site, Action]:
        row = super()._row(spec, num_steps, step, phases)
        first, rest = (self._skips(spec, {length: some[step][place] for length, some in phases.items()}) for place in (0, 1))
        for site in spec.sites():
            if first if site[:2] == (spec.stacks[0].name, 0) else rest:
                row[site] = Action(Kind.SKIP)
        if rest:
            row[HIDDEN] = Action(Kind.REUSE)
        return row

    def _skips(self, spec: ModelSpec, phases: dict[int, int]) -> bool:
        """Whether a step is skipped; phases: of every length of cycle."""
        return all(phases.values()) and (phases[min(phases)] % 2 == 1) == spec.skip_odd
