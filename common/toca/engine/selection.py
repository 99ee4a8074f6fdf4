"""Which tokens a partial step refreshes: base score + staleness (s3) + spatial bonus (s4), ranked for all layers at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from toca.engine.token_shards import WHOLE, Whole
from toca.planning.method import Ranking
from toca.planning.plan import Kind, Plan
from toca.planning.ranking import Batch, Timeline, spans
from toca.planning.spec import Branch, Stack

Uniform = Callable[[int, range], Tensor]  # (step, layers) -> (layers, R, N) draws in [0, 1)


def spatial_bonus(score: Tensor, grid: tuple[int, int], block: int, bonus: float, upstream_exact: bool = False, frames: int = 1) -> Tensor:
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
    whole = h + -h % block, w + -w % block
    padded = F.pad(score.unflatten(-1, (-1, h, w)), (0, whole[1] - w, 0, whole[0] - h))
    share = spatial_bonus(padded.flatten(-2).softmax(dim=-1), whole, block, bonus)
    return share.unflatten(-1, whole)[..., :h, :w].flatten(-3)


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


def ranked_by(scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (..., N) by descending score, equals in their order, and a mask (..., N) of those at the places that are `chosen`, bool."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return order, torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order, chosen.expand_as(order))


def selector_for(
    plan: Plan, stack: Stack, branch: Branch, ranking: Ranking | None, rows: int, device: torch.device, uniform: Uniform | None = None
) -> Selector | None:
    """What ranks the tokens of a branch; None if the plan never chooses between them. uniform: the draws of scores that need any."""
    if ranking is None or not plan.selects(stack, branch):
        return None
    return Selector(Timeline(plan, stack, branch, ranking.rule), ranking, rows, device, uniform)


class Selector:
    """Ranks the tokens of one branch in every layer of a stack, for whole cycles ahead where it can, and keeps their staleness.

    `chosen[layer]`: the tokens to refresh at the current step, as flat indices (R * K,) into (R * N); `ranked[step]`: the same of that
    step. Rows that are scored together choose the same tokens: `distinct` of all rows choose for themselves, the others repeat them.
    """

    def __init__(self, timeline: Timeline, ranking: Ranking, rows: int, device: torch.device, uniform: Uniform | None) -> None:
        plan, depth = timeline.plan, timeline.stack.depth
        self.branch, self.ranking, self.score, self.uniform = timeline.branch, ranking, timeline.score, uniform
        if self.score.random and uniform is None:
            raise ValueError(f"the score {ranking.score!r} needs draws")
        tokens = self.branch.tokens
        actions = [[timeline.action(step, layer) for layer in range(depth)] for step in range(plan.num_steps)]
        whole = [[a.kind is Kind.FULL or a.tokens == tokens for a in step] for step in actions]
        self.whole = [list(spans([layer for layer, computed in enumerate(step) if computed])) for step in whole]
        self.ticks = list(accumulate(int(any(a.kind in (Kind.PARTIAL, Kind.REUSE) for a in step)) for step in actions))  # cached steps
        self.batches, self.counts = timeline.batches, timeline.counts
        self.scorer = self.branch.scorer(self.score.observes) if self.score.from_attention else None
        self.rows, self.distinct = rows, rows // plan.spec.scored_together(self.score)
        self.count_table = torch.tensor(self.counts, device=device)[:, :, None, None]  # (S, L, 1, 1)
        self.position = torch.arange(tokens, device=device)
        self.row_offset = torch.arange(rows, device=device)[:, None] * tokens
        self.base = torch.zeros(depth if self.score.from_attention else 0, self.distinct, tokens, device=device)
        self.refreshed_at = torch.zeros(depth, self.distinct, tokens, dtype=torch.int32, device=device)  # in ticks
        self.step = 0
        self.ranked: list[list[Tensor | None]] = [[None] * depth for _ in actions]
        self._coming: list[list[tuple[slice, Tensor]]] = [[] for _ in actions]  # layers, and the mask of what they will refresh

    @property
    def chosen(self) -> list[Tensor | None]:
        return self.ranked[self.step]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors held."""
        ranked = [chosen for step in self.ranked for chosen in step if chosen is not None]
        masks = [mask for step in self._coming for _, mask in step]
        return sum(t.nbytes for t in (self.base, self.refreshed_at, self.count_table, self.position, self.row_offset, *ranked, *masks))

    @property
    def staleness(self) -> Tensor:
        """(L, R', N) cached steps since every token was last computed, of the distinct rows."""
        return self.ticks[self.step] - self.refreshed_at

    def begin(self, step: int) -> None:
        """Open a step: staleness grows, what it computes becomes fresh, and layers whose scores are known are ranked together."""
        if step:
            self.ranked[step - 1] = [None] * len(self.chosen)
        self.step, tick = step, self.ticks[step]
        for layers in self.whole[step]:
            self.refreshed_at[layers.start : layers.stop] = tick
        for span, mask in self._coming[step]:
            self.refreshed_at[span].masked_fill_(mask, tick)
        self._coming[step] = []
        for batch in self.batches[step]:
            if not batch.waits:
                self._rank(batch)

    def observe(self, layer: int, seen: Tensor, refreshed: Tensor | None = None, shards: Whole = WHOLE) -> None:
        """Take in what the scoring branch saw, and rank the layers that wait for it once the last of them is seen.

        seen: attention mass or entropy (R, N'), or keys or values (R, H, N', d), of this branch's tokens and maybe others; of tokens split
        among processes, the part seen here.
        refreshed: flat indices (R * N') into (R * N), if `seen` is of those tokens alone.
        """
        if refreshed is None:
            tokens_dim = 2 if self.score.observes in ("keys", "values") else 1
            seen = seen.narrow(tokens_dim, self.branch.scored_from, shards.local(self.branch.tokens))
        base = self.score.base(seen)
        base = shards.join(base) if refreshed is None else shards.collect(base, refreshed)
        base = base.unflatten(0, (-1, self.distinct)).mean(dim=0) if len(base) > self.distinct else base
        if refreshed is None:
            self.base[layer] = base
        else:
            self.base[layer].view(-1).index_copy_(0, refreshed[: base.numel()], base.flatten())
        self._rank_waiting(layer)

    def look(self, layer: int, x: Tensor, reference: Tensor | None) -> None:
        """Rank a layer whose score depends on its input x (R, N, C)."""
        args = (x, reference) if self.score.observes == "change" else (x,)
        self._rank_waiting(layer, self.score.base(*args)[None])

    def packed_with(self, layer: int) -> Batch | None:
        """The layers that this step has ranked, if what feeds them is to be packed, and this is the last of them."""
        return next((batch for batch in self.batches[self.step] if batch.packs and batch.layers[-1] == layer), None)

    def scores(self, step: int, layers: range, age: Tensor, base: Tensor | None = None) -> Tensor:
        """(L, R', N) scores in float32: base + age_weight * age, then the bonus of the best token of a cell.

        age: (L, R', N) cached steps since every token was last computed, before this step. base: (L, R', N), by default what was observed.
        """
        if base is None and self.score.from_attention:
            base = self.base[layers.start : layers.stop]
        if self.score.scale and base is not None:
            base = self.score.scale(base)
        if self.score.random and self.uniform:
            draw = self.score.random * self.uniform(step, layers)[:, : self.distinct]
            base = draw if base is None else base + draw
        if base is None:
            return age.float()
        score = base + self.ranking.age_weight * age if self.ranking.age_weight else base
        if self.ranking.block and self.branch.grid:
            score = self._with_bonus(score, self.branch.grid, self.ranking)
        if self.ranking.overdue:
            score = torch.where(age + 1 >= self.ranking.overdue, score + 1e4 * (age + 1), score)
        return score

    def _with_bonus(self, score: Tensor, grid: tuple[int, int], ranking: Ranking) -> Tensor:
        if ranking.softmax:
            return softmax_bonus(score, grid, ranking.block, ranking.bonus)
        return spatial_bonus(score, grid, ranking.block, ranking.bonus, ranking.upstream_exact, ranking.frames)

    def _rank_waiting(self, layer: int, base: Tensor | None = None) -> None:
        for batch in self.batches[self.step]:
            if batch.waits and batch.layers[-1] == layer:
                self._rank(batch, base)

    def _rank(self, batch: Batch, base: Tensor | None = None) -> None:
        """Choose tokens for every step of a batch, each on the staleness that the choices before it leave."""
        span = slice(batch.layers.start, batch.layers.stop)
        refreshed_at = self.refreshed_at[span]
        for step in batch.steps:
            tick = self.ticks[step]
            scores = self.scores(step, batch.layers, tick - 1 - refreshed_at, base)
            order, mask = ranked_by(scores, self.position < self.count_table[step, span])
            refreshed_at = refreshed_at.masked_fill(mask, tick)
            if step == self.step:
                self.refreshed_at[span] = refreshed_at
            else:
                self._coming[step].append((span, mask))
            flat = order.repeat(1, self.rows // self.distinct, 1) + self.row_offset
            for layer, tokens in zip(batch.layers, flat, strict=True):
                some = tokens[:, : self.counts[step][layer]]
                self.ranked[step][layer] = some.clone(memory_format=torch.contiguous_format).flatten()  # a view would hold all tokens
