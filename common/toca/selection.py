"""Which tokens a partial step refreshes: base score + staleness (s3) + spatial bonus (s4), ranked for all layers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from toca.methods.base import Ranking
from toca.plan import Kind, Plan
from toca.scoring import RATINGS
from toca.shards import WHOLE, Whole
from toca.spec import Branch, Stack

Uniform = Callable[[int, range], Tensor]  # (step, layers) -> (layers, R, N) draws in [0, 1)


def spatial_bonus(
    score: Tensor, grid: tuple[int, int], block: int, bonus: float, upstream_exact: bool = False, frames: int = 1
) -> Tensor:
    """s4: in every cell of the grid, block x block tokens over some frames, the best token's score S becomes S + bonus |S| (upstream:
    S + bonus S).

    score: (..., N) with N = all frames * rows * columns of the grid. Cells cut off at a border count as cells; of equals the first in
    reading order wins.
    """
    t, h, w = score.shape[-1] // (grid[0] * grid[1]), *grid
    padding = (0, -w % block, 0, -h % block, 0, -t % frames)
    padded = F.pad(score.unflatten(-1, (t, h, w)), padding, value=-torch.inf)
    cells = padded.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).unflatten(-5, (-1, frames)).movedim((-5, -3), (-3, -2))
    cell = cells.shape[-3:]  # of (..., t/f, h/b, w/b, f, b, b)
    best = F.one_hot(cells.flatten(-3).argmax(dim=-1), cell.numel()).unflatten(-1, cell).bool()
    winners = best.movedim((-3, -2), (-5, -3)).flatten(-6, -5).flatten(-4, -3).flatten(-2)[..., :t, :h, :w].flatten(-3)
    return torch.where(winners, score + bonus * (score if upstream_exact else score.abs()), score)


def softmax_bonus(score: Tensor, grid: tuple[int, int], block: int, bonus: float) -> Tensor:
    """s4 as published for video: the bonus goes to the softmax of every frame's scores, zeros at the borders making cells whole."""
    h, w = grid
    padded = F.pad(score.unflatten(-1, (-1, h, w)), (0, -w % block, 0, -h % block))
    share = spatial_bonus(padded.flatten(-2).softmax(dim=-1), padded.shape[-2:], block, bonus)
    return share.unflatten(-1, padded.shape[-2:])[..., :h, :w].flatten(-3)


def hashed_uniform(seeds: Tensor, tokens: int) -> Uniform:
    """Draws that depend on (seed of the row, step, layer, token) alone: the same in any batch, and no generator's state moves.

    seeds: (R,) int64. The mixing function is splitmix64's.
    """
    def mix(x: Tensor) -> Tensor:
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
            x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
        return x ^ ((x >> 31) & ((1 << 33) - 1))

    def draw(step: int, layers: range) -> Tensor:
        layer = torch.arange(layers.start, layers.stop, device=seeds.device)
        token = torch.arange(tokens, device=seeds.device)
        x = mix(mix(mix(seeds + step)[None] + layer[:, None])[..., None] + token)
        return ((x >> 40) & 0xFFFFFF).float() / 2**24

    return draw


def _spans(layers: Sequence[int]) -> list[slice]:
    """Ascending layers as slices of neighbours: one write for many layers."""
    runs = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda at: at[1] - at[0])]
    return [slice(run[0], run[-1] + 1) for run in runs]


class Selector:
    """Ranks the tokens of one branch in every layer of a stack, and keeps their staleness.

    `chosen[layer]`: flat row indices (R * K,) into (R * N) of the tokens to refresh at the current step.
    uniform: the draws of scores that need any.
    """

    def __init__(
        self, stack: Stack, branch: Branch, plan: Plan, ranking: Ranking, rows: int, device: torch.device, uniform: Uniform | None
    ) -> None:
        actions = [[row[stack.name, layer, branch.name] for layer in range(stack.depth)] for row in plan.steps]
        self.counts = [[a.tokens if a.kind is Kind.PARTIAL else 0 for a in step] for step in actions]
        whole = [[a.kind is Kind.FULL or a.tokens == branch.tokens for a in step] for step in actions]
        self.whole = [_spans([layer for layer, computed in enumerate(step) if computed]) for step in whole]
        self.ages = [any(a.kind in (Kind.PARTIAL, Kind.REUSE) for a in step) for step in actions]
        self.needed = any(0 < count < branch.tokens for step in self.counts for count in step)
        if not self.needed:
            return
        self.branch, self.ranking, self.score, self.uniform = branch, ranking, RATINGS[ranking.score], uniform
        self.scorer = branch.scorer(self.score.observes) if self.score.from_attention else None
        self.rows = rows // plan.spec.rated_together(self.score)  # of scores and choices; the others repeat them
        self.known = [_spans(self._rated_before(stack, plan, step)) for step in range(plan.num_steps)]
        self.count_table = torch.tensor(self.counts, device=device)[:, :, None, None]  # (S, L, 1, 1)
        self.position = torch.arange(branch.tokens, device=device)
        self.row_offset = torch.arange(rows, device=device)[:, None] * branch.tokens
        self.base = torch.zeros(stack.depth if self.score.from_attention else 0, self.rows, branch.tokens, device=device)
        self.refreshed_at = torch.zeros(stack.depth, self.rows, branch.tokens, dtype=torch.int32, device=device)
        self.tick = 0
        self.chosen: list[Tensor | None] = [None] * stack.depth

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        if not self.needed:
            return 0
        chosen = [rows for rows in self.chosen if rows is not None]
        return sum(t.nbytes for t in (self.base, self.refreshed_at, self.count_table, self.position, self.row_offset, *chosen))

    @property
    def staleness(self) -> Tensor:
        """(L, R, N) cached steps since every token was last computed."""
        return self.tick - self.refreshed_at

    def _rated_before(self, stack: Stack, plan: Plan, step: int) -> list[int]:
        """Layers that refresh tokens at a step and whose scores are known when it begins."""
        if self.score.from_input:
            return []
        other = self.scorer if self.scorer != self.branch.name else None  # its own attention comes too late for its own choice
        row = plan.steps[step]
        return [layer for layer, count in enumerate(self.counts[step]) if count and not (other and row[stack.name, layer, other].score)]

    def begin(self, step: int) -> None:
        """Open a step: staleness grows, layers computed whole become fresh, and layers whose scores are known are ranked together."""
        self.step = step
        self.tick += self.ages[step]
        self.chosen = [None] * len(self.chosen)
        for span in self.whole[step]:
            self.refreshed_at[span] = self.tick
        for span in self.known[step]:
            self._choose(range(span.start, span.stop))

    def observe(self, layer: int, seen: Tensor, refreshed: Tensor | None = None, shards: Whole = WHOLE) -> None:
        """Take in what the scoring branch saw: attention mass or entropy (R, N'), or keys or values (R, H, N', d), of this branch's tokens
        and maybe others, or of those it `refreshed`, flat rows (R * N') of (R * N); of tokens split among processes, the part seen here.
        Rank by it at once if the layer refreshes tokens of this branch later in this very step."""
        if refreshed is None:
            tokens_dim = 2 if self.score.observes in ("keys", "values") else 1
            seen = seen.narrow(tokens_dim, self.branch.scored_from, shards.local(self.branch.tokens))
        base = self.score.base(seen)
        base = shards.join(base) if refreshed is None else shards.collect(base, refreshed)
        base = base.unflatten(0, (-1, self.rows)).mean(dim=0) if len(base) > self.rows else base
        if refreshed is None:
            self.base[layer] = base
        else:
            self.base[layer].view(-1).index_copy_(0, refreshed[: base.numel()], base.flatten())
        if self.counts[self.step][layer] and self.scorer != self.branch.name:
            self._choose(range(layer, layer + 1))

    def look(self, layer: int, x: Tensor, reference: Tensor | None) -> None:
        """Rank a layer whose score depends on its input x (R, N, C)."""
        args = (x, reference) if self.score.observes == "change" else (x,)
        self._choose(range(layer, layer + 1), self.score.base(*args)[None])

    def scores(self, layers: range, base: Tensor | None = None) -> Tensor:
        """(layers, R, N) scores in float32: base + age_weight * staleness, then the bonus of the best token of a cell."""
        if base is None and self.score.from_attention:
            base = self.base[layers.start : layers.stop]
        if self.score.rating:
            base = self.score.rating(base)
        if self.score.random:
            draw = self.score.random * self.uniform(self.step, layers)[:, : self.rows]
            base = draw if base is None else base + draw
        age = self.tick - 1 - self.refreshed_at[layers.start : layers.stop]
        if base is None:
            return age.float()
        score = base + self.ranking.age_weight * age if self.ranking.age_weight else base
        if self.ranking.block and self.branch.grid:
            score = self._with_bonus(score, self.ranking)
        if self.ranking.overdue:
            score = torch.where(age + 1 >= self.ranking.overdue, score + 1e4 * (age + 1), score)
        return score

    def _with_bonus(self, score: Tensor, ranking: Ranking) -> Tensor:
        if ranking.upstream_exact and ranking.softmax:
            return softmax_bonus(score, self.branch.grid, ranking.block, ranking.bonus)
        return spatial_bonus(score, self.branch.grid, ranking.block, ranking.bonus, ranking.upstream_exact, ranking.frames)

    def _choose(self, layers: range, base: Tensor | None = None) -> None:
        """Rank by descending score, equals in token order, and note the first K of every layer as refreshed."""
        order = self.scores(layers, base).sort(dim=-1, descending=True, stable=True).indices
        counts = self.count_table[self.step, layers.start : layers.stop]
        chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, (self.position < counts).expand_as(order))
        self.refreshed_at[layers.start : layers.stop].masked_fill_(chosen, self.tick)
        flat = order.repeat(1, len(self.row_offset) // self.rows, 1) + self.row_offset
        for layer, rows in zip(layers, flat, strict=True):
            some = rows[:, : self.counts[self.step][layer]]
            self.chosen[layer] = some.clone(memory_format=torch.contiguous_format).flatten()  # not a view, which would hold all rows
