"""Modulations depend on (timestep, label) alone: all steps of a run in one product per layer and chunk, and only what will be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from toca.plan import Plan, chunks_needed
from toca.spec import Stack


def some_chunks(linear: nn.Linear, activated: Tensor, needed: tuple[int, ...]) -> list[Tensor | None]:
    """Chunks of linear(activated), each (R, 1, D); those not needed are None and not computed."""
    width = activated.shape[-1]
    total = linear.out_features // width
    if len(needed) == total:
        return list(linear(activated).unsqueeze(1).chunk(total, dim=-1))
    chunks: list[Tensor | None] = [None] * total
    for chunk in needed:
        rows = slice(chunk * width, (chunk + 1) * width)
        chunks[chunk] = F.linear(activated, linear.weight[rows], linear.bias[rows]).unsqueeze(1)
    return chunks


class ModulationTable:
    """All modulations of a run for one stack: table.at(step, layer)[chunk] is a view (R, 1, D), or None where nobody reads it."""

    def __init__(self, stack: Stack, plan: Plan, linears: Sequence[nn.Linear], activated: Tensor, row_of: Tensor) -> None:
        """activated: (S, U, D), SiLU of the conditioning of every step and distinct row; row_of: (R,) the distinct row of each row."""
        chunks, width = stack.modulation
        self._tables: list[list[Tensor | None]] = []
        self._places: list[list[dict[int, int]]] = []
        gathered: dict[tuple[int, ...], Tensor] = {}
        for layer, linear in enumerate(linears):
            needed = [chunks_needed(plan, stack, step, layer) for step in range(plan.num_steps)]
            tables, places = [], []
            for chunk in range(chunks):
                steps = tuple(step for step, some in enumerate(needed) if chunk in some)
                if steps not in gathered:
                    gathered[steps] = activated[list(steps)]  # (S', U, D)
                rows = slice(chunk * width, (chunk + 1) * width)
                value = F.linear(gathered[steps], linear.weight[rows], linear.bias[rows])
                tables.append(value[:, row_of].unsqueeze(2))  # (S', R, 1, D)
                places.append({step: place for place, step in enumerate(steps)})
            self._tables.append(tables)
            self._places.append(places)

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for tables in self._tables for table in tables)

    def at(self, step: int, layer: int) -> list[Tensor | None]:
        pairs = zip(self._tables[layer], self._places[layer], strict=True)
        return [table[places[step]] if step in places else None for table, places in pairs]
