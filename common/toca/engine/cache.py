"""The one stateful object of a cached run, and the interface that a model's blocks see."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from toca.engine.attention import attention, attention_with_entropy, attention_with_mass
from toca.engine.modulation import Linears, ModulationTable, all_chunks, some_chunks
from toca.engine.selection import Selector, Uniform, hashed_uniform, selector_for
from toca.engine.slots import Last, Slot, Taylor
from toca.engine.token_shards import WHOLE, Whole
from toca.planning.memory import MODULATION_BUDGET, ONCE_BUDGET, Held, layers_once, table_elements
from toca.planning.method import Method
from toca.planning.plan import Action, Kind, chunks_needed
from toca.planning.spec import HIDDEN, Branch, ModelSpec, Stack

BranchFunction = Callable[..., Tensor]
Chunks = Sequence[Any]  # of Tensor (R, 1, D); None where the step reads no such chunk


class NoCache:
    """The interface of `Cache` and `LayerCache` for an uncached pass: every branch runs on all tokens, nothing is stored."""

    def step(self, x: Tensor) -> None:
        pass

    def walk(self, stack: str, blocks: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, NoCache]]:
        return zip(blocks, itertools.repeat(self))

    def hidden(self, x: Tensor) -> Tensor:
        return x

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        return f()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **for_scores: Callable[[], Tensor]) -> Tensor:
        return attention(q, k, v, mask)

    def modulation(self, linears: Linears, activated: Tensor) -> Chunks:
        return all_chunks(linears, activated)

    def __getattr__(self, branch: str) -> BranchFunction:
        if branch.startswith("_"):
            raise AttributeError(branch)
        return _run_branch


def _run_branch(f: BranchFunction, x: Tensor, *per_token: Tensor, rated: Callable[[], Tensor] | None = None) -> Tensor:
    return f(x, *per_token)


NO_CACHE: Any = NoCache()


class BranchCache:
    """One branch of one layer: `cache.mlp(f, x)` runs f on all tokens, on the selected ones, or not at all, as the plan says."""

    def __init__(
        self, layer: LayerCache, branch: Branch, slot: Slot, selector: Selector | None, reader: Selector | None, keeps_input: bool
    ) -> None:
        """selector: ranks this branch's tokens. reader: those of the branch that alone reads this one."""
        self.layer, self.branch, self.slot, self.selector, self.reader = layer, branch, slot, selector, reader
        self.reference = Last() if keeps_input else None  # every token's input when it was last computed
        self.action = Action(Kind.FULL)
        self.rows: Tensor | None = None  # flat (R * K,), while single tokens are computed

    def __call__(
        self, f: BranchFunction, x: Tensor, *per_token: Tensor, rated: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        """f: (R, K, C), *(R, K, ...) -> (R, K, C'). x: (R, N, C); per_token: (R, N, ...), gathered alongside x, or from a branch that feeds
        this one (R, K, ...). Returns (R, N, C'), of a branch that only feeds another maybe the K rows alone that it reads, or None where
        that computes nothing.

        rated: what the published code rates tokens by where a score looks at inputs, if that is not x.
        """
        action = self.action
        if action.kind is Kind.SKIP:
            return None  # its only reader computes nothing
        if action.kind is Kind.FULL or action.tokens == self.branch.tokens:
            return self._full(f, x, *per_token)
        if action.kind is Kind.PARTIAL:
            self._refresh(f, x, *per_token, rated=rated)
        if self.reference:
            self.reference.recall(action)  # goes when the output goes
        return self.slot.recall(action)

    def _full(self, f: BranchFunction, x: Tensor, *per_token: Tensor) -> Tensor:
        self.slot.prepare(self.action)
        if self.reference:
            self.reference.prepare(self.action)
        self.layer.running = self
        value = f(x, *per_token)
        self.layer.running = None
        if value.shape[1] != self.layer.cache.shards.local(self.branch.tokens):
            raise RuntimeError(f"the spec says {self.branch.tokens} tokens in {self.branch.name}, got {value.shape[1]}")
        self.slot.put(value, self.action)
        if self.reference:
            self.reference.put(x, self.action)
        if self.reader and (batch := self.reader.packed_with(self.layer.index)):
            for layer in batch.layers:
                self.layer.peer(layer, self.branch.name).slot.pack(self.reader.ranked[step][layer] for step in batch.steps)
        return value

    def _refresh(self, f: BranchFunction, x: Tensor, *per_token: Tensor, rated: Callable[[], Tensor] | None = None) -> None:
        if self.selector.score.from_input:
            against = self.reference or self.slot
            seen = rated() if rated and self.selector.ranking.upstream_exact else x
            join = self.layer.cache.shards.join
            self.selector.look(self.layer.index, join(seen), join(against.value) if isinstance(against, Last) else None)
        rows, shards = self.selector.chosen[self.layer.index], self.layer.cache.shards
        selected = shards.take(x, rows)
        beside = [shards.take(t, rows) if t.shape[1] == x.shape[1] else t for t in per_token]
        self.layer.running, self.rows = self, rows
        values = f(selected, *beside)
        self.layer.running = self.rows = None
        shards.write(rows, shards.collect(values, rows), self.slot.refresh)
        if self.reference:
            shards.write(rows, shards.collect(selected, rows), self.reference.refresh)


class LayerCache:
    """What one block sees: its branches by name (`cache.attn`, `cache.mlp`, ...), `attend` and `modulation`."""

    def __init__(self, cache: Cache, stack: Stack, index: int, selectors: dict[str, Selector]) -> None:
        self.cache, self.stack, self.index = cache, stack, index
        self.running: BranchCache | None = None
        self.branches: list[BranchCache] = []
        for branch in stack.branches:
            selector = selectors.get(branch.name)
            slot = Taylor() if cache.method.forecasts else Last()
            keeps_input = selector is not None and selector.ranking.keeps_input
            self.branches.append(BranchCache(self, branch, slot, selector, selectors.get(branch.feeds), keeps_input))
            setattr(self, branch.name, self.branches[-1])
        self.rates = {
            branch.name: [s for s in selectors.values() if s.scorer == branch.name]
            for branch in stack.branches
        }

    def peer(self, layer: int, branch: str) -> BranchCache:
        """A branch of another layer of the stack."""
        return getattr(self.cache._layers[self.stack.name][layer], branch)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        keys: Callable[[], Tensor] | None = None,
        values: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Attention (R, H, N, d) of the running branch, which also rates the tokens if the plan reads that.

        keys: gives k as it was before normalisation and rotation, which the score k-norm rates; by default k itself.
        values: v likewise, for the scores kv-norm and v-norm. Where attention runs in groups of tokens, such as frames, both give all
        tokens, in the branch's order. mask: (R, L) bool, the keys that take part; by default all.
        """
        running = self.running
        selectors = self.rates[running.branch.name] if running and running.action.score else ()
        if not selectors:
            return attention(q, k, v, mask)
        observes = selectors[0].score.observes
        if observes == "mass":
            out, seen = attention_with_mass(q, k, v)
        elif observes == "entropy":
            out, seen = attention_with_entropy(q, k, v, mask, self.cache.spec.coupled_rows)
        else:
            given, own = (values, v) if observes == "values" else (keys, k)
            out, seen = attention(q, k, v, mask), given() if given else own
        for selector in selectors:
            selector.observe(self.index, seen, running.rows, self.cache.shards)
        return out

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        """f(), computed at the first call of the run and kept to its end, if what all layers keep fits the cache's budget: for what no
        step changes, such as keys and values of a text. The spec says its size (`Stack.once`)."""
        return self.cache.once(f"{self.stack.name}.{self.index}.{name}", f) if self.cache.layers_keep else f()

    def modulation(self, linears: Linears, activated: Tensor) -> Chunks:
        """Chunks (R, 1, D) of the layer's linears of activated, SiLU of the conditioning (R, D); None where this step reads none."""
        step = self.cache.index
        if table := self.cache.modulations.get(self.stack.name):
            return table.at(step, self.index)
        return some_chunks(linears, activated, self.cache.chunks(self.stack, step, self.index))


class Cache:
    """The state of one sampling run: created for a method and a number of steps, passed to every model call, freed on exit.

        with Cache(spec, ToCa(interval=3), num_steps=50) as cache:
            ...  # 50 calls model(x, t, y, cache=cache)

    seeds: one per image, for scores that draw (rows beyond them repeat, so that both guidance halves draw alike).
    uniform: replaces those draws, (step, layers) -> (layers, R, N); by (stack, branch), or the branch's name, where there are several.
    modulation_budget: bytes that precomputed modulations of all stacks may take together. once_budget: bytes for what all layers compute
    once, which they otherwise compute whenever they need it. shards: where the tokens live, if not all here; x is of those that do.
    Raises RuntimeError when called more often than num_steps, after it closed, with another shape, or while gradients are recorded.
    """

    def __init__(
        self,
        spec: ModelSpec,
        method: Method,
        num_steps: int,
        *,
        seeds: Sequence[int] | None = None,
        uniform: Uniform | Mapping[str | tuple[str, str], Uniform] | None = None,
        modulation_budget: int = MODULATION_BUDGET,
        once_budget: int = ONCE_BUDGET,
        shards: Whole = WHOLE,
    ) -> None:
        if shards is not WHOLE and any(branch.feeds for stack in spec.stacks for branch in stack.branches):
            raise ValueError(f"tokens of {spec.name} cannot be split among processes: some of its branches feed others")
        self.spec, self.method, self.shards = spec, method, shards
        self.plan = method.plan(spec, num_steps)
        self.index = -1  # of the current step, in execution order
        self.modulations: dict[str, ModulationTable] = {}
        self.layers_keep = False  # what layers compute once fits the budget
        self._seeds, self._uniform, self._modulation_budget, self._once_budget = seeds, uniform, modulation_budget, once_budget
        self._shape: torch.Size | None = None
        self._closed = False
        self._layers: dict[str, list[LayerCache]] = {}
        self._selectors: list[Selector] = []
        self._row_seeds: Tensor | None = None
        self._hidden = Last()
        self._once: dict[str, Tensor] = {}
        self._chunks: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything. The cache cannot be used again."""
        self._closed = True
        self._layers, self._selectors, self.modulations, self._row_seeds, self._hidden, self._once = {}, [], {}, None, Last(), {}

    def step(self, x: Tensor) -> None:
        """Advance to the next model call; x (R, N, C) are the embedded tokens of the first stack."""
        self._check(x)
        if self._shape is None:
            self._allocate(x)
        self.index += 1
        row = self.plan.steps[self.index]
        for name, layers in self._layers.items():
            for layer in layers:
                for branch in layer.branches:
                    branch.action = row[name, layer.index, branch.branch.name]
        for selector in self._selectors:
            selector.begin(self.index)

    def walk(self, stack: str, blocks: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, LayerCache]]:
        """(block, its cache) for every layer of the stack that runs at this step."""
        for block, layer in zip(blocks, self._layers[stack], strict=True):
            if any(branch.action.kind is not Kind.SKIP for branch in layer.branches):
                yield block, layer

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden state after the last stack: x, or the stored one if this step skipped the layers."""
        action = self.plan.steps[self.index][HIDDEN]
        if action.kind is not Kind.FULL:
            return self._hidden.recall(action)
        if action.keep and x.untyped_storage().nbytes() > x.nbytes:
            x = x.clone()  # not a view, which would hold other tokens too
        self._hidden.put(x, action)
        return x

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        """f(), computed at the first call of the run and kept to its end: for what no step changes, such as an embedded text."""
        if name not in self._once:
            self._once[name] = f()
        return self._once[name]

    def precompute_modulation(self, stack: str, linears: Sequence[Linears], activated: Tensor, row_of: Tensor) -> bool:
        """Compute the modulations of all steps now, if they fit the budget; returns whether they did.

        linears: those of every layer; activated: (S, U, D) for all steps and U distinct rows; row_of: (R,) maps rows to distinct ones.
        """
        size = table_elements(self.plan, self.spec.stack(stack)) * len(row_of) * activated.element_size()
        if size + self.held.modulation > self._modulation_budget:
            return False
        self.modulations[stack] = ModulationTable(self.spec.stack(stack), self.plan, linears, activated, row_of)
        return True

    def chunks(self, stack: Stack, step: int, layer: int) -> tuple[int, ...]:
        """The modulation chunks a layer reads at a step."""
        key = (stack.name, step, layer)
        if key not in self._chunks:
            self._chunks[key] = chunks_needed(self.plan, stack, step, layer)
        return self._chunks[key]

    @property
    def nbytes(self) -> int:
        """Bytes held now, all tensors counted; between model calls it is what `toca.planning.memory.predict` says."""
        return self.held.total

    @property
    def held(self) -> Held:
        """Bytes held now, by part."""
        branches = [branch for layers in self._layers.values() for layer in layers for branch in layer.branches]
        seeds = 0 if self._row_seeds is None else self._row_seeds.nbytes
        return Held(
            outputs=sum(branch.slot.nbytes for branch in branches),
            inputs=sum(branch.reference.nbytes for branch in branches if branch.reference),
            hidden=self._hidden.nbytes,
            ranking=seeds + sum(selector.nbytes for selector in self._selectors),
            modulation=sum(table.nbytes for table in self.modulations.values()),
            once=sum(value.nbytes for value in self._once.values()),
        )

    def selector(self, stack: str, branch: str) -> Selector | None:
        """The ranking state of a branch, for inspection; None if the plan selects no tokens there."""
        return getattr(self._layers[stack][0], branch).selector

    def _check(self, x: Tensor) -> None:
        if self._closed:
            raise RuntimeError("this cache is closed: open a new Cache for every sampling run")
        if self.index + 1 >= self.plan.num_steps:
            raise RuntimeError(f"this cache was made for {self.plan.num_steps} steps and the model is called once more")
        if self._shape is not None and x.shape != self._shape:
            raise RuntimeError(f"this cache holds a run on tokens {tuple(self._shape)}, got {tuple(x.shape)}")
        if x.requires_grad:
            raise RuntimeError("caching is for sampling: call the model under torch.no_grad()")
        tokens, width = self.spec.hidden
        if x.shape[1:] != (self.shards.local(tokens), width):
            raise RuntimeError(f"the spec says {self.shards.local(tokens)} tokens of width {width}, got {tuple(x.shape[1:])}")

    def _allocate(self, x: Tensor) -> None:
        rows, seeds = x.shape[0], list(self._seeds or range(x.shape[0]))
        if rows % len(seeds):
            raise ValueError(f"{len(seeds)} seeds do not divide {rows} batch rows")
        if rows % self.spec.coupled_rows:
            raise ValueError(f"the spec says an image has {self.spec.coupled_rows} rows, got a batch of {rows}")
        self.layers_keep = layers_once(self.spec, rows, x.element_size()) <= self._once_budget
        self._shape = x.shape
        ranking = self.method.ranking(self.spec)
        if ranking and ranking.rule.random and not self._uniform:
            self._row_seeds = torch.tensor(seeds, device=x.device).repeat(rows // len(seeds))
        for stack in self.spec.stacks:
            selectors = {}
            for branch in stack.branches if ranking else ():
                if branch.tokenwise:
                    uniform = self._uniform
                    if isinstance(uniform, Mapping):
                        key = (stack.name, branch.name)
                        uniform = uniform[key if key in uniform else branch.name]
                    if self._row_seeds is not None:
                        uniform = hashed_uniform(self._row_seeds, branch.tokens)
                    if selector := selector_for(self.plan, stack, branch, ranking, rows, x.device, uniform):
                        selectors[branch.name] = selector
            self._selectors += selectors.values()
            self._layers[stack.name] = [LayerCache(self, stack, index, selectors) for index in range(stack.depth)]
