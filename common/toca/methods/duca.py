from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toca.methods.toca import ToCa
from toca.planning.plan import Action, Kind
from toca.planning.schedule import Phase
from toca.planning.spec import HIDDEN, ModelSpec, Site


@dataclass(frozen=True)
class DuCa(ToCa):
    """DuCa (arXiv 2412.18911): ToCa whose cached steps alternate between token-wise ones and ones that skip all layers.

    Places in the shortest cycle of the model's branches decide. A step at which a branch of a longer cycle is due is not skipped.
    """

    name = "duca"
    label = "DuCa"
    ratio: float = 0.05

    def _actions(self, spec: ModelSpec, num_steps: int, step: int, phases: Mapping[int, Sequence[Phase]]) -> dict[Site, Action]:
        actions = super()._actions(spec, num_steps, step, phases)
        first = self._skips(spec, {length: some[step].first for length, some in phases.items()})
        rest = self._skips(spec, {length: some[step].rest for length, some in phases.items()})
        for site in spec.sites():
            if first if site[:2] == (spec.stacks[0].name, 0) else rest:
                actions[site] = Action(Kind.SKIP)
        if rest:
            actions[HIDDEN] = Action(Kind.REUSE)
        return actions

    def _skips(self, spec: ModelSpec, places: Mapping[int, int]) -> bool:
        """Whether a layer is skipped; places: its place in the cycles of every length."""
        return all(places.values()) and (places[min(places)] % 2 == 1) == spec.skip_odd
