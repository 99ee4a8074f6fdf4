"""Where the tokens of a run live: all here, or a part of every sequence on each process of a group."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from toca.engine.slots import gather, scatter


class Whole:
    """All tokens are here."""

    def local(self, tokens: int) -> int:
        """How many of so many tokens are here."""
        return tokens

    def split(self, x: Tensor) -> Tensor:
        """All tokens (R, N, ...) -> those here (R, N', ...)."""
        return x

    def join(self, x: Tensor) -> Tensor:
        """The tokens of all processes, (R, N', ...) -> (R, N, ...)."""
        return x

    def heads(self, x: Tensor) -> Tensor:
        """All heads of the tokens here -> some heads of all tokens: (..., S', H, d) -> (..., S, H', d)."""
        return x

    def unheads(self, x: Tensor) -> Tensor:
        """The way back from `heads`."""
        return x

    def take(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What this process computes of chosen tokens, flat indices (R * K,) into all (R * N): (R, N', ...) -> (R, K', ...)."""
        return gather(x, chosen)

    def collect(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What all processes computed of them: (R, K', ...) -> (R, K, ...)."""
        return x

    def write(self, x: Tensor, chosen: Tensor, values: Tensor) -> None:
        """Overwrite those of the chosen tokens that live here, x (R, N', C), by values (R, K, C)."""
        scatter(x, chosen, values)


class SequenceShards(Whole):
    """Every process has a run of S' = ceil(S / processes) of the S tokens of each of T sequences, such as frames; zeros fill up the last.

    Attention within a sequence exchanges heads for tokens (Ulysses, arXiv 2309.14509); everything else is local. Tokens that a cached step
    refreshes are shared out evenly, wherever they live, so that every process computes as many and shapes stay static.
    Raises ValueError if the heads of a model do not divide among the processes.
    """

    def __init__(self, group: dist.ProcessGroup, sequences: int, size: int, num_heads: int) -> None:
        self.group, self.sequences, self.size = group, sequences, size
        self.world, self.rank = dist.get_world_size(group), dist.get_rank(group)
        if num_heads % self.world:
            raise ValueError(f"{num_heads} heads do not divide among {self.world} processes")
        self.width = math.ceil(size / self.world)

    def local(self, tokens: int) -> int:
        return self.sequences * self.width

    def split(self, x: Tensor) -> Tensor:
        runs = self._padded(x.unflatten(1, (self.sequences, -1)), 2)
        return runs.narrow(2, self.rank * self.width, self.width).flatten(1, 2)

    def join(self, x: Tensor) -> Tensor:
        runs = self._all_gather(x.unflatten(1, (self.sequences, -1)))  # (P, R, T, S', ...)
        return runs.movedim(0, 2).flatten(2, 3)[:, :, : self.size].flatten(1, 2)

    def heads(self, x: Tensor) -> Tensor:
        sent = x.unflatten(-2, (self.world, -1)).movedim(-3, 0)  # (P, ..., S', H', d)
        return self._exchange(sent).movedim(0, -4).flatten(-4, -3)[..., : self.size, :, :]

    def unheads(self, x: Tensor) -> Tensor:
        sent = self._padded(x, x.ndim - 3).unflatten(-3, (self.world, -1)).movedim(-4, 0)
        return self._exchange(sent).movedim(0, -3).flatten(-3, -2)

    def take(self, x: Tensor, chosen: Tensor) -> Tensor:
        here, place = self._places(chosen)
        found = x.flatten(0, 1).index_select(0, place)
        found = torch.where(here.view(-1, *(1,) * (found.ndim - 1)), found, 0).unflatten(0, (x.shape[0], -1))  # (R, K, ...)
        dist.all_reduce(found, group=self.group)
        share = math.ceil(found.shape[1] / self.world)
        padding = found.new_zeros(found.shape[0], share * self.world - found.shape[1], *found.shape[2:])
        return torch.cat((found, padding), dim=1).narrow(1, self.rank * share, share)

    def collect(self, x: Tensor, chosen: Tensor) -> Tensor:
        return self._all_gather(x).transpose(0, 1).flatten(1, 2)[:, : len(chosen) // len(x)]

    def write(self, x: Tensor, chosen: Tensor, values: Tensor) -> None:
        """Tokens that live elsewhere repeat the first that lives here, or what is in x already: a mask would have no static shape."""
        here, place = self._places(chosen)
        flat, new = x.view(-1, x.shape[-1]), values.flatten(0, 1)
        first = here.long().argmax(dim=0, keepdim=True)  # 0 if none lives here, whose place is 0
        repeated = torch.where(here.any(), new.index_select(0, first), flat[:1])
        flat.index_copy_(0, torch.where(here, place, place.index_select(0, first)), torch.where(here[:, None], new, repeated))

    def _places(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Which flat indices into all tokens (R * N) are here, and what they are into the tokens here (0 for the others)."""
        sequence, at = chosen // self.size, chosen % self.size - self.rank * self.width  # sequences of all rows are counted on
        here = (at >= 0) & (at < self.width)
        return here, torch.where(here, sequence * self.width + at, 0)

    def _padded(self, x: Tensor, dim: int) -> Tensor:
        missing = self.width * self.world - x.shape[dim]
        return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, missing)) if missing else x

    def _all_gather(self, x: Tensor) -> Tensor:
        out = x.new_empty(self.world, *x.shape)
        dist.all_gather(list(out), x.contiguous(), group=self.group)
        return out

    def _exchange(self, x: Tensor) -> Tensor:
        """Part j of x (P, ...) to process j; the parts that came from all."""
        x = x.contiguous()
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=self.group)
        return out


WHOLE = Whole()
