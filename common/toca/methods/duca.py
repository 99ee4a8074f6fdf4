from __future__ import annotations

from dataclasses import dataclass

from toca.methods.toca import ToCa
from toca.plan import Action, Kind
from toca.spec import HIDDEN, Branch, ModelSpec, Site


@dataclass(frozen=True)
class DuCa(ToCa):
    """DuCa (arXiv 2412.18911): ToCa whose cached steps alternate between token-wise ones and ones that skip all layers."""

    name = "duca"
    ratio: float = 0.05

    def _skips(self, spec: ModelSpec, phase: int) -> bool:
        return phase > 0 and (phase % 2 == 1) == spec.skip_odd

    def _action(self, spec: ModelSpec, branch: Branch, phase: int, tokens: int) -> Action:
        return Action(Kind.SKIP) if self._skips(spec, phase) else super()._action(spec, branch, phase, tokens)

    def _row(self, spec: ModelSpec, num_steps: int, step: int, phases: dict[int, list[tuple[int, int]]]) -> dict[Site, Action]:
        row = super()._row(spec, num_steps, step, phases)
        if all(self._skips(spec, by_scale[step][1]) for by_scale in phases.values()):
            row[HIDDEN] = Action(Kind.REUSE)
        return row
