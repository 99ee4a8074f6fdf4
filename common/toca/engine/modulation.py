"""Modulations depend on (timestep, label) alone: all steps of a run in one product per layer and chunk, and only what will be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn as nn
from torch import Tensor

from toca.engine.linear import linear_part
from toca.planning.plan import Plan, chunks_needed
from toca.planning.spec import Stack

Linears = nn.Linear | Sequence[nn.Linear]  # the modulation of one layer: the chunks of several linears follow one another


def all_chunks(linears: Linears, activated: Tensor) -> list[Tensor]:
    """Chunks of the linears of activated (R, D), each (R, 1, D)."""
    linears = [linears] if isinstance(linears, nn.Linear) else linears
    return [chunk for linear in linears for chunk in linear(activated).unsqueeze(1).split(activated.shape[-1], dim=-1)]


def some_chunks(linears: Linears, activated: Tensor, needed: tuple[int, ...]) -> Sequence[Tensor | None]:
    """The same; chunks not needed are None and not computed."""
    chunks = list(_chunk_outputs(linears, activated.shape[-1]))
    if len(needed) == len(chunks):
        return all_chunks(linears, activated)
    return [
        linear_part(linear, activated, outputs).unsqueeze(1) if chunk in needed else None for chunk, (linear, outputs) in enumerate(chunks)
    ]


def _chunk_outputs(linears: Linears, width: int) -> Iterator[tuple[nn.Linear, slice]]:
    """Where every chunk comes from: a linear and some of its outputs."""
    for linear in [linears] if isinstance(linears, nn.Linear) else linears:
        for start in range(0, linear.out_features, width):
            yield linear, slice(start, start + width)


class ModulationTable:
    """All modulations of a run for one stack: table.at(step, layer)[chunk] is a view (R, 1, D), or None where nobody reads it."""

    def __init__(self, stack: Stack, plan: Plan, linears: Sequence[Linears], activated: Tensor, row_of: Tensor) -> None:
        """linears: those of every layer. activated: (S, U, D), SiLU of the conditioning of every step and distinct row; row_of: (R,) the
        distinct row of each row."""
        width = stack.modulation[1]
        self._tables: list[list[Tensor]] = []
        self._places: list[list[dict[int, int]]] = []
        gathered: dict[tuple[int, ...], Tensor] = {}
        for layer, some in enumerate(linears):
            needed = [chunks_needed(plan, stack, step, layer) for step in range(plan.num_steps)]
            tables, places = [], []
            for chunk, (linear, outputs) in enumerate(_chunk_outputs(some, width)):
                steps = tuple(step for step, read in enumerate(needed) if chunk in read)
                if steps not in gathered:
                    gathered[steps] = activated[list(steps)]  # (S', U, D)
                value = linear_part(linear, gathered[steps], outputs)
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
