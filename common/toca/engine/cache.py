"""The one stateful object of a cached run, and the interface that a model and its blocks see, with or without a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Protocol

import torch
from torch import Tensor

from toca.engine.attention import attention, attention_with_entropy, attention_with_mass
from toca.engine.modulation import Linears, ModulationTable, all_chunks, some_chunks
from toca.engine.selection import Selector, Uniform, hashed_uniform, selector_for
from toca.engine.slots import Last, Slot, Taylor
from toca.engine.token_shards import WHOLE, Whole
from toca.planning.checks import check_kind, check_whole, check_wholes
from toca.planning.memory import MODULATION_BUDGET, ONCE_BUDGET, Held, layers_once, table_elements
from toca.planning.method import Method, Ranking, check_run
from toca.planning.plan import STANDS_IN, Action, Kind, chunks_needed
from toca.planning.spec import HIDDEN, Branch, ModelSpec, Stack, check_branch_names

Chunks = Sequence[Any]  # of Tensor (R, 1, D); None where the step reads no such chunk


class BranchFunction(Protocol):
    """`cache.mlp(f, x)`: a branch on all tokens, on the chosen ones, or not at all."""

    def __call__(
        self,
        f: Callable[..., Tensor],
        x: Tensor,
        *per_token: Tensor,
        fed: Tensor | None = None,
        score_input: Callable[[], Tensor] | None = None,
    ) -> Any:
        """The output (R, N, C'); of a branch that feeds another the tokens alone that it reads, or None where it reads none.

        f: (R, K, C), *(R, K, ...) -> (R, K, C'), of x, of everything per token and of what is fed, in this order.
        x: (R, N, C).
        per_token: (R, N, ...) beside x.
        fed: the output of the branch that feeds this one (`Branch.feeds`), as it came.
        score_input: gives what the published code scores tokens on where a score looks at inputs, if that is not x.
        """


class LayerCache(Protocol):
    """What a block sees: its branches by name (`cache.attn`, `cache.mlp`, ...) and three helpers."""

    def __getattr__(self, branch: str) -> BranchFunction: ...

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        keys: Callable[[], Tensor] | None = None,
        values: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Attention (R, H, N, d) of the running branch, which also scores the tokens if the plan reads that.

        mask: (R, L) bool, the keys that take part; by default all.
        keys: gives k as it was before normalisation and rotation, which the score k-norm looks at; by default k itself.
        values: v likewise, for the scores kv-norm and v-norm. Where attention runs in groups of tokens, such as frames, both give all
            tokens, in the branch's order.
        """

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        """f(), computed at the first call of the run and kept to its end, if what all layers keep fits the cache's budget: for what no
        step changes, such as keys and values of a text. The spec says its size (`Stack.once`)."""

    def modulation(self, linears: Linears, activated: Tensor) -> Chunks:
        """Chunks (R, 1, D) of the layer's linears of activated, SiLU of the conditioning (R, D); None where this step reads none."""


class RunCache(Protocol):
    """What a model sees."""

    def step(self, x: Tensor) -> None:
        """Advance to the next model call; x (R, N, C) are the embedded tokens of the first stack."""

    def walk(self, stack: str, blocks: Iterable[Any]) -> Iterator[tuple[Any, LayerCache]]:
        """(block, its cache) for every layer of the stack that runs at this step."""

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden state after the last stack: x, or what stands in for it if this step ran no layers."""

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        """f(), computed at the first call of the run and kept to its end: for what no step changes, such as an embedded text."""

    def precompute_modulation(self, stack: str, linears: Sequence[Linears], activated: Tensor, row_of: Tensor) -> bool:
        """Compute the modulations of all steps now, if they fit the budget; returns whether they did.

        linears: those of every layer.
        activated: (S, U, D) for all steps and U distinct rows.
        row_of: (R,) maps rows to distinct ones.
        """


# ---- without a cache ------------------------------------------------------------------------------------------------------------------


def _all_tokens(
    f: Callable[..., Tensor],
    x: Tensor,
    *per_token: Tensor,
    fed: Tensor | None = None,
    score_input: Callable[[], Tensor] | None = None,
) -> Tensor:
    return f(x, *per_token) if fed is None else f(x, *per_token, fed)


class Branches:
    """Branches as attributes; any other name is an AttributeError."""

    def __init__(self, branches: Mapping[str, BranchFunction]) -> None:
        self.branches = branches
        vars(self).update(branches)  # found faster than by `__getattr__`; their names are checked, and no other attribute's

    def __getattr__(self, name: str) -> BranchFunction:
        raise AttributeError(f"this layer has no branch {name!r}; it has {', '.join(vars(self).get('branches', ())) or 'none'}")


class UncachedLayer(Branches):
    """A block's cache in an uncached pass: every branch runs on all tokens, nothing is stored.

    A block names its branches by one, as its class attribute `uncached`, which is also the default of its argument `cache`.
    Raises ValueError on a name that no branch may have.
    """

    def __init__(self, *branches: str) -> None:
        check_branch_names(branches)
        super().__init__(dict.fromkeys(branches, _all_tokens))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        keys: Callable[[], Tensor] | None = None,
        values: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        return attention(q, k, v, mask)

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        return f()

    def modulation(self, linears: Linears, activated: Tensor) -> Chunks:
        return all_chunks(linears, activated)


class NoCache:
    """A model's cache in an uncached pass."""

    def step(self, x: Tensor) -> None:
        pass

    def walk(self, stack: str, blocks: Iterable[Any]) -> Iterator[tuple[Any, LayerCache]]:
        return ((block, block.uncached) for block in blocks)

    def hidden(self, x: Tensor) -> Tensor:
        return x

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        return f()

    def precompute_modulation(self, stack: str, linears: Sequence[Linears], activated: Tensor, row_of: Tensor) -> bool:
        return False


NO_CACHE: RunCache = NoCache()
UNCACHED: LayerCache = UncachedLayer()  # of parts of blocks, which have no branches


# ---- with one -------------------------------------------------------------------------------------------------------------------------


class BranchCache:
    """One branch of one layer, as `BranchFunction` says: on all tokens, on the chosen ones, or not at all, as the plan says."""

    def __init__(self, layer: CachedLayer, branch: Branch, selector: Selector | None, reader: Selector | None) -> None:
        """selector: ranks this branch's tokens. reader: those of the branch that this one feeds."""
        self.layer, self.branch, self.selector, self.reader = layer, branch, selector, reader
        self.slot: Slot = Taylor() if layer.cache.method.forecasts else Last()
        self.reference = Last() if selector and selector.ranking.keeps_input else None  # every token's input when it was last computed
        self.action = Action(Kind.FULL)
        self.chosen: Tensor | None = None  # flat (R * K,), while they alone are computed

    def __call__(
        self,
        f: Callable[..., Tensor],
        x: Tensor,
        *per_token: Tensor,
        fed: Tensor | None = None,
        score_input: Callable[[], Tensor] | None = None,
    ) -> Tensor | None:
        action = self.action
        if action.kind is Kind.SKIP:
            return None  # what it feeds computes nothing
        if action.kind is Kind.FULL or action.tokens == self.branch.tokens:
            return self._full(f, x, *per_token) if fed is None else self._full(f, x, *per_token, fed)
        if self.selector and action.kind is Kind.PARTIAL:
            self._refresh(self.selector, f, x, per_token, fed, score_input)
        if self.reference:
            self.reference.recall(action)  # goes when the output goes
        return self.slot.recall(action)

    def _full(self, f: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
        self.slot.prepare(self.action)
        if self.reference:
            self.reference.prepare(self.action)
        value = self._compute(f, None, x, *others)
        self._check(value)
        self.slot.put(value, self.action)
        if self.reference:
            self.reference.put(x, self.action)
        if self.reader:
            self._pack(self.reader)
        return value

    def _refresh(
        self,
        selector: Selector,
        f: Callable[..., Tensor],
        x: Tensor,
        per_token: Sequence[Tensor],
        fed: Tensor | None,
        score_input: Callable[[], Tensor] | None,
    ) -> None:
        shards = self.layer.cache.shards
        if selector.score.from_input:
            self._look(selector, score_input() if score_input and selector.ranking.upstream_exact else x)
        chosen = selector.chosen[self.layer.index]
        if chosen is None:
            raise RuntimeError(f"{self.branch.name} is called before what scores its tokens")
        others = [shards.take(t, chosen) for t in per_token]
        if fed is not None:
            others.append(fed if self._fed_chosen() else shards.take(fed, chosen))
        selected = shards.take(x, chosen)
        values = self._compute(f, chosen, selected, *others)
        shards.write(self.slot.newest, chosen, shards.collect(values, chosen))
        if self.reference:
            shards.write(self.reference.newest, chosen, shards.collect(selected, chosen))

    def _compute(self, f: Callable[..., Tensor], chosen: Tensor | None, *inputs: Tensor) -> Tensor:
        """f, while `LayerCache.attend` knows whose attention it computes, of which tokens."""
        self.layer.running, self.chosen = self, chosen
        value = f(*inputs)
        self.layer.running = self.chosen = None
        return value

    def _check(self, value: Tensor) -> None:
        if value.shape[1] != self.layer.cache.shards.local(self.branch.tokens):
            raise RuntimeError(f"the spec says {self.branch.tokens} tokens in {self.branch.name}, got {value.shape[1]}")

    def _look(self, selector: Selector, seen: Tensor) -> None:
        """Rank the layer by its input, against that of the last refresh or, as published, the stored output."""
        join, against = self.layer.cache.shards.join, self.reference or self.slot
        selector.look(self.layer.index, join(seen), join(against.newest) if selector.score.observes == "change" else None)

    def _fed_chosen(self) -> bool:
        """Whether what feeds this branch comes as the chosen tokens alone."""
        feeder = self.layer.stack.feeder(self.branch)
        if feeder is None:
            raise ValueError(f"the spec says that no branch feeds {self.branch.name}: what goes beside its tokens is not `fed`")
        return self.layer.branches[feeder.name].slot.packed

    def _pack(self, reader: Selector) -> None:
        """Once the last layer of a batch is ranked, all of them keep the tokens alone that their reader has chosen."""
        if batch := reader.packed_with(self.layer.index):
            for layer in batch.layers:
                slot = self.layer.peers[layer].branches[self.branch.name].slot
                if isinstance(slot, Last):
                    slot.pack([chosen for step in batch.steps if (chosen := reader.ranked[step][layer]) is not None])


class CachedLayer(Branches):
    """A block's cache in a cached run."""

    branches: dict[str, BranchCache]

    def __init__(self, cache: Cache, stack: Stack, peers: Sequence[CachedLayer], selectors: Mapping[str, Selector]) -> None:
        """peers: all layers of the stack; those before this one so far. selectors: by branch, of the whole stack."""
        self.cache, self.stack, self.peers, self.index = cache, stack, peers, len(peers)
        self.running: BranchCache | None = None
        self.observers = {b.name: [s for s in selectors.values() if s.scorer == b.name] for b in stack.branches}  # of its attention
        super().__init__({b.name: BranchCache(self, b, selectors.get(b.name), selectors.get(b.feeds or "")) for b in stack.branches})

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        keys: Callable[[], Tensor] | None = None,
        values: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        running = self.running
        if running is None or not running.action.score or not (observers := self.observers[running.branch.name]):
            return attention(q, k, v, mask)
        observes = observers[0].score.observes
        if observes == "mass":
            out, seen = attention_with_mass(q, k, v)
        elif observes == "entropy":
            out, seen = attention_with_entropy(q, k, v, mask, self.cache.spec.coupled_rows)
        else:
            given, own = (values, v) if observes == "values" else (keys, k)
            out, seen = attention(q, k, v, mask), given() if given else own
        for selector in observers:
            selector.observe(self.index, seen, running.chosen, self.cache.shards)
        return out

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        return self.cache.once(f"{self.stack.name}.{self.index}.{name}", f) if self.cache.layers_keep else f()

    def modulation(self, linears: Linears, activated: Tensor) -> Chunks:
        step = self.cache.index
        if table := self.cache.modulations.get(self.stack.name):
            return table.at(step, self.index)
        return some_chunks(linears, activated, self.cache.chunks(self.stack, step, self.index))


class Cache:
    """The state of one sampling run: created for a method and a number of steps, passed to every model call, freed on exit.

        with Cache(spec, ToCa(interval=3), num_steps=50) as cache:
            ...  # 50 calls model(x, t, y, cache=cache)

    seeds: one per item, for scores that draw (rows beyond them repeat, so that both guidance halves draw alike).
    uniform: replaces those draws, (step, layers) -> (layers, R, N); by (stack, branch), or the branch's name, where there are several.
    modulation_budget: bytes that precomputed modulations of all stacks may take together.
    once_budget: bytes for what all layers compute once, which they otherwise compute whenever they need it.
    shards: where the tokens live, if not all here; x is of those that do.
    Raises TypeError or ValueError on other arguments; RuntimeError when called more often than num_steps, after it closed, with another
    shape, or while gradients are recorded.
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
        check_run(spec, num_steps)
        check_kind(Method, method=method)
        check_wholes(-(2**63), seeds=() if seeds is None else seeds)
        check_kind((Callable, Mapping, NoneType), "a function of step and layers, or a mapping to some", uniform=uniform)
        check_whole(modulation_budget=modulation_budget, once_budget=once_budget)
        check_kind(Whole, shards=shards)
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
        self._layers: dict[str, list[CachedLayer]] = {}
        self._selectors: list[Selector] = []
        self._row_seeds: Tensor | None = None  # (R,), if the cache draws itself
        self._hidden: Slot = Taylor() if method.forecasts else Last()
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
        self._check(x)
        if self._shape is None:
            self._allocate(x)
        self.index += 1
        actions = self.plan.steps[self.index]
        for stack, layers in self._layers.items():
            for layer in layers:
                for name, branch in layer.branches.items():
                    branch.action = actions[stack, layer.index, name]
        for selector in self._selectors:
            selector.begin(self.index)

    def walk(self, stack: str, blocks: Iterable[Any]) -> Iterator[tuple[Any, LayerCache]]:
        if stack not in self._layers:
            raise ValueError(f"{self.spec.name} has no stack {stack!r}: call `step` first, then walk {', '.join(self._layers) or 'any'}")
        running = self.plan.running[self.index][stack]
        for block, layer in zip(blocks, self._layers[stack], strict=True):
            if layer.index in running:
                yield block, layer

    def hidden(self, x: Tensor) -> Tensor:
        action = self.plan.steps[self.index][HIDDEN]
        if action.kind in STANDS_IN:
            return self._hidden.recall(action)
        if action.kind is not Kind.FULL:
            return x
        self._hidden.prepare(action)
        if action.keep and x.untyped_storage().nbytes() > x.nbytes:
            x = x.clone()  # not a view, which would hold other tokens too
        self._hidden.put(x, action)
        return x

    def once(self, name: str, f: Callable[[], Tensor]) -> Tensor:
        if name not in self._once:
            self._once[name] = f()
        return self._once[name]

    def precompute_modulation(self, stack: str, linears: Sequence[Linears], activated: Tensor, row_of: Tensor) -> bool:
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
        branches = [branch for layers in self._layers.values() for layer in layers for branch in layer.branches.values()]
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
        return self._layers[stack][0].branches[branch].selector

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
        """Make what the first x decides the shape of."""
        rows = x.shape[0]
        if rows % self.spec.coupled_rows:
            raise ValueError(f"the spec says an item has {self.spec.coupled_rows} rows, got a batch of {rows}")
        seeds = self._seeds_of_rows(rows)
        self._shape = x.shape
        self.layers_keep = layers_once(self.spec, rows, x.element_size()) <= self._once_budget
        ranking = self.method.ranking(self.spec)
        if ranking and ranking.rule.random and not self._uniform:
            self._row_seeds = torch.tensor(seeds, device=x.device)
        for stack in self.spec.stacks:
            selectors = self._selectors_of(stack, ranking, rows, x.device)
            self._selectors += selectors.values()
            layers: list[CachedLayer] = []
            self._layers[stack.name] = layers
            for _ in range(stack.depth):
                layers.append(CachedLayer(self, stack, layers, selectors))

    def _seeds_of_rows(self, rows: int) -> list[int]:
        seeds = list(self._seeds or range(rows))
        if rows % len(seeds):
            raise ValueError(f"{len(seeds)} seeds do not divide {rows} batch rows")
        return seeds * (rows // len(seeds))

    def _selectors_of(self, stack: Stack, ranking: Ranking | None, rows: int, device: torch.device) -> dict[str, Selector]:
        """What ranks the tokens of a stack's branches, by branch, where the plan chooses between them."""
        made = {b.name: selector_for(self.plan, stack, b, ranking, rows, device, self._draws(stack, b)) for b in stack.branches}
        return {name: selector for name, selector in made.items() if selector}

    def _draws(self, stack: Stack, branch: Branch) -> Uniform | None:
        """The draws of scores that need any."""
        if self._row_seeds is not None:
            return hashed_uniform(self._row_seeds, branch.tokens)
        if isinstance(self._uniform, Mapping):
            return self._uniform.get((stack.name, branch.name)) or self._uniform.get(branch.name)
        return self._uniform
