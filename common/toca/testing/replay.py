"""What the engine did in a run: how it ranked tokens, which it chose, what single branches took in and gave."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from torch import Tensor

from toca.engine.cache import BranchCache, Cache, CachedLayer
from toca.engine.selection import Selector, Uniform

if TYPE_CHECKING:
    import pytest

Place = tuple[int, str, int, str]  # (step, stack, layer, branch)


@dataclass
class Recorder:
    """Listens to one cache; its owner calls `look` after every step.

    inspected: the places of which `inside` is kept.
    scores: (R', N) each, before and after the bonus of the best token of a cell (s4); R' rows choose for themselves.
    chosen: (R, N) bool, the tokens refreshed.
    ages: (L, R', N) after a step, how many cached steps ago every token was computed; by (step, stack, branch).
    inside: a branch's `input` and `output`, and the `stored` output before, if any.
    attended: q, k, v and mask of attention in the inspected layers, of all their branches that ran any.
    """

    cache: Cache
    inspected: Collection[Place] = ()
    scores: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    chosen: dict[Place, Tensor] = field(default_factory=dict)
    ages: dict[tuple[int, str, str], Tensor] = field(default_factory=dict)
    inside: dict[Place, dict[str, Tensor]] = field(default_factory=dict)
    attended: dict[Place, tuple[Tensor | None, ...]] = field(default_factory=dict)

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Overhear the engine's branches, attention and ranking until the patch is undone."""
        run, attend, rank = BranchCache.__call__, CachedLayer.attend, Selector.scores
        layers = {place[1:3] for place in self.inspected}

        def branch(cache: BranchCache, f: Any, x: Tensor, *per_token: Tensor, **beside: Any) -> Tensor | None:
            layer = cache.layer
            place = layer.cache.index, layer.stack.name, layer.index, cache.branch.name
            if layer.cache is not self.cache or place not in self.inspected:
                return run(cache, f, x, *per_token, **beside)
            stored = getattr(cache.slot, "value", None)
            self.inside[place] = dict(input=x.clone()) | ({} if stored is None else dict(stored=stored.clone()))
            output = run(cache, f, x, *per_token, **beside)
            self.inside[place]["output"] = output.clone()
            return output

        def attention(layer: CachedLayer, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **beside: Any) -> Tensor:
            if (layer.stack.name, layer.index) in layers and layer.running:
                self.attended[layer.cache.index, layer.stack.name, layer.index, layer.running.branch.name] = q, k, v, mask
            return attend(layer, q, k, v, mask, **beside)

        def scores(selector: Selector, step: int, layers: range, *inputs: Tensor | None) -> Tensor:
            final, ranking = rank(selector, step, layers, *inputs), selector.ranking
            selector.ranking = replace(ranking, block=0)
            before = rank(selector, step, layers, *inputs).clone()
            selector.ranking = ranking
            name = next(stack.name for stack in self.cache.spec.stacks if self._selector(stack.name, selector.branch.name) is selector)
            for layer, pair in zip(layers, zip(before, final.clone())):
                self.scores[step, name, layer, selector.branch.name] = pair
            return final

        patch.setattr(BranchCache, "__call__", branch)
        patch.setattr(CachedLayer, "attend", attention)
        patch.setattr(Selector, "scores", scores)

    def look(self) -> None:
        """Note what the step that ends here chose."""
        step = self.cache.index
        for stack in self.cache.spec.stacks:
            for branch in stack.branches:
                if not (selector := self._selector(stack.name, branch.name)):
                    continue
                self.ages[step, stack.name, branch.name] = selector.staleness.clone()
                for layer, flat in enumerate(selector.chosen):
                    if flat is not None:
                        mask = torch.zeros(selector.rows * branch.tokens, dtype=torch.bool).index_fill_(0, flat, True)
                        self.chosen[step, stack.name, layer, branch.name] = mask.view(selector.rows, -1)

    def ages_around(self, place: Place) -> tuple[Tensor | None, Tensor]:
        """(R', N) before and after a step; None before the first."""
        step, stack, layer, branch = place
        before = self.ages.get((step - 1, stack, branch))
        return None if before is None else before[layer], self.ages[step, stack, branch][layer]

    def _selector(self, stack: str, branch: str) -> Selector | None:
        known = any(name == branch for name in (b.name for b in self.cache.spec.stack(stack).branches))
        return self.cache.selector(stack, branch) if known else None


def indices(chosen: Tensor) -> Tensor:
    """A mask (R, N) as ascending token numbers (R, K)."""
    return chosen.nonzero()[:, 1].view(len(chosen), -1)


def margins(scores: tuple[Tensor, Tensor], chosen: Tensor, grid: tuple[int, int], block: int) -> tuple[float, float]:
    """Smallest gaps: of the last chosen and the first rejected score, and of the two best of a block x block cell before its bonus."""
    before, final = scores
    chosen = chosen[: len(final)]
    rejected = final.masked_fill(chosen, -math.inf).amax(dim=-1)
    cells = before.unflatten(-1, grid).unfold(-2, block, block).unfold(-2, block, block).flatten(-2)
    best = cells.topk(2, dim=-1).values
    return (final.masked_fill(~chosen, math.inf).amin(dim=-1) - rejected).min().item(), (best[..., 0] - best[..., 1]).min().item()


def drawn(given: Mapping[tuple[int, int], Tensor]) -> Uniform:
    """The uniform draws of another run, (R, N) by (step, layer), for `Cache`."""
    return lambda step, layers: torch.stack([given[step, layer] for layer in layers])


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """What modules give, by the names they have here, the last call of each."""
    seen: dict[str, Any] = {}
    hooks = [module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out})) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
