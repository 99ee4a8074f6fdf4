"""A caching method and a model, added in this one file as a stranger would; nothing of the engine changes. Also a page of the docs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from toca.cli import flags, forks
from toca.cli.flags import add_method_flags, method_from, whole
from toca.cli.main import main
from toca.cli.report import folder_label
from toca.engine.cache import NO_CACHE, Cache, LayerCache, RunCache, UncachedLayer
from toca.methods import FORA, METHODS, DuCa, Method, NoCaching, Scheduled, TaylorSeer, ToCa
from toca.planning.flops import executed_flops
from toca.planning.memory import predict
from toca.planning.method import CYCLE_LENGTH, Flag, Ranking, check_positive
from toca.planning.plan import Action, Kind, Plan, finish, full_step
from toca.planning.run import PlannedRun
from toca.planning.spec import Branch, Cost, ModelSpec, Stack
from toca.presets import Preset

# ---- a method -------------------------------------------------------------------------------------------------------------------------


# --8<-- [start:method]
@dataclass(frozen=True)
class Turns(Method):
    """Every `interval`-th step is full; between them a share of the tokens is refreshed, those first that have waited longest."""

    name = "turns"
    label = "Turns"
    flags = (CYCLE_LENGTH, Flag("turn_share", "share", "share of tokens refreshed between full steps", type=float, least=0, most=1))
    interval: int = 4
    share: float = 0.25

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_positive(interval=self.interval, num_steps=num_steps)
        full = full_step(spec)
        between = full | {site: self.between(spec.branch(site)) for site in spec.sites()}
        return finish(spec, [between if step % self.interval else full for step in range(num_steps)])

    def between(self, branch: Branch) -> Action:
        """What a branch does between full steps: attention mixes tokens, and is reused whole."""
        tokens = round(self.share * branch.tokens) if branch.tokenwise else 0
        return Action(Kind.PARTIAL, tokens) if tokens else Action(Kind.REUSE)

    def ranking(self, spec: ModelSpec) -> Ranking:
        return Ranking(score="age")  # of `toca.planning.scores.SCORES`


# --8<-- [end:method]

# ---- a model --------------------------------------------------------------------------------------------------------------------------


# --8<-- [start:spec]
@dataclass(frozen=True)
class TinyConfig:
    """A transformer of `depth` blocks on side x side tokens of 3 numbers each."""

    side: int = 4
    width: int = 16
    heads: int = 2
    depth: int = 2


def tiny_spec(config: TinyConfig) -> ModelSpec:
    """The model as the engine sees it; FLOPs are of one batch row, two for a multiply-add."""
    n, c = config.side**2, config.width
    attn = Branch("attn", n, c, cost={"matmul": Cost(per_token=8 * c * c + 4 * n * c)}, inputs=(0, 1), gate=(2,))
    mlp = Branch("mlp", n, c, cost={"matmul": Cost(per_token=16 * c * c)}, inputs=(3, 4), gate=(5,), tokenwise=True, scored_by="attn")
    blocks = Stack("blocks", config.depth, (attn, mlp), modulation=(6, c), layer_cost={"matmul": 12 * c * c})
    embeddings = 2 * (n * 3 * c + c * c + n * c * 3)  # of tokens and of the time, and the output
    return ModelSpec("tiny", (blocks,), {"matmul": embeddings}, hidden=(n, c))


# --8<-- [end:spec]


# --8<-- [start:network]
class Block(nn.Module):
    """Attention and an MLP, modulated and gated; `uncached` names what the cache may take over."""

    uncached = UncachedLayer("attn", "mlp")

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        c = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(c, 6 * c)
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.fc1, self.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x: Tensor, c: Tensor, cache: LayerCache = uncached) -> Tensor:
        """x (R, N, C), c (R, C) -> (R, N, C)"""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = cache.modulation(self.modulation, F.silu(c))

        def attn(x: Tensor) -> Tensor:
            q, k, v = self.qkv(x * (1 + scale_a) + shift_a).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            return self.proj(cache.attend(q, k, v).transpose(1, 2).flatten(2))

        def mlp(x: Tensor) -> Tensor:  # of all tokens, or of those that are refreshed
            return self.fc2(F.gelu(self.fc1(x * (1 + scale_m) + shift_m)))

        x = x + gate_a * cache.attn(attn, x)
        return x + gate_m * cache.mlp(mlp, x)


class Tiny(nn.Module):
    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.embed, self.time, self.out = nn.Linear(3, config.width), nn.Linear(config.width, config.width), nn.Linear(config.width, 3)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def conditioning(self, t: Tensor) -> Tensor:
        """Times (R,) -> (R, C)"""
        return self.time(torch.sin(t[:, None] * torch.arange(1, 1 + self.config.width)))

    def precompute(self, cache: RunCache, times: Tensor, rows: int) -> None:
        """Modulations of all steps at once: every step has one time, the same for all rows."""
        linears, activated = [block.modulation for block in self.blocks], F.silu(self.conditioning(times))[:, None]
        cache.precompute_modulation("blocks", linears, activated, row_of=torch.zeros(rows, dtype=torch.long))

    def forward(self, x: Tensor, t: Tensor, cache: RunCache = NO_CACHE) -> Tensor:
        """x (R, N, 3) at time t in 0 to 1 -> its velocity (R, N, 3)"""
        c = self.conditioning(t.expand(len(x)))
        x = self.embed(x)
        cache.step(x)
        for block, layer in cache.walk("blocks", self.blocks):
            x = block(x, c, layer)
        return self.out(cache.hidden(x))


# --8<-- [end:network]


# --8<-- [start:sampling]
@torch.no_grad()
def sample(model: Tiny, noise: Tensor, num_steps: int, cache: RunCache = NO_CACHE, precompute: bool = True) -> Tensor:
    """Euler steps from noise (R, N, 3) at time 0 to time 1."""
    x, times = noise, torch.arange(num_steps) / num_steps
    if precompute:
        model.precompute(cache, times, len(x))
    for t in times:
        x = x + model(x, t, cache) / num_steps
    return x


# --8<-- [end:sampling]


# --8<-- [start:flags]
presets = {"turns2": Preset(dict(method="turns", fresh_threshold=2), published=())}


def planning_parser() -> argparse.ArgumentParser:
    """The flags that decide what a run computes."""
    parser = argparse.ArgumentParser(description="A tiny model.", add_help=False)
    parser.add_argument("--side", type=whole(1, 64), default=4, help="in tokens")
    parser.add_argument("--num-steps", type=whole(1, flags.MOST_STEPS), default=12)
    add_method_flags(parser, presets, tiny_spec(TinyConfig()), "-")
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    return PlannedRun(f"tiny, {args.num_steps} steps", tiny_spec(TinyConfig(side=args.side)), method_from(args), args.num_steps)


# --8<-- [end:flags]

# ---- what both can do, as soon as they are installed ----------------------------------------------------------------------------------

INSTALLED = {"toca.models": ("tiny", __name__), "toca.methods": ("turns", f"{__name__}:Turns")}
Toca = Callable[..., str]


@pytest.fixture
def toca(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Toca:
    """The command `toca`, where a package with these two entry points is installed."""

    def entry_points(group: str) -> list[EntryPoint]:
        return [EntryPoint(*INSTALLED[group], group)] if group in INSTALLED else []

    for module in (flags, forks):
        monkeypatch.setattr(module, "entry_points", entry_points)
    monkeypatch.setitem(METHODS, Turns.name, Turns)  # goes after the test

    def call(*argv: str) -> str:
        main(argv)
        return capsys.readouterr().out

    return call


def test_the_command_knows_both(toca: Toca) -> None:
    assert "3 full" in toca("plan", "tiny", "--method", "turns")
    assert "6 full" in toca("plan", "tiny", "--preset", "turns2")
    assert "4 full" in toca("plan", "tiny", "--preset", "turns2", "--fresh-threshold", "3")  # a flag wins
    for name in METHODS:
        method = ["--method", name, *(["--full-steps", "0,3,6"] if name == "scheduled" else [])]
        assert f"tiny, 12 steps, {name}" in toca("flops", "tiny", *method)
        assert json.loads(toca("memory", "tiny", *method, "--json"))["peak"]["total"] >= 0
    assert "turns2" in toca("table", "tiny")


def test_the_methods_flags_are_on_every_command_line(toca: Toca) -> None:
    parser = planning_parser()
    assert parser.parse_args(["--turn-share", "0.5"]).turn_share == 0.5
    args = parser.parse_args(["--method", "turns", "--turn-share", "0.5"])
    assert method_from(args) == Turns(share=0.5)
    assert folder_label(method_from(args)) == "Turns_4_0.5"
    plan = json.loads(toca("plan", "tiny", "--method", "turns", "--turn-share", "0.5", "--json"))
    assert plan["settings"] == dict(interval=4, share=0.5)
    assert {tokens for step in plan["steps"] for tokens in step["branches"]["mlp"]["tokens"]} == {16, 8}
    with pytest.raises(SystemExit):
        toca("plan", "tiny", "--method", "turns", "--turn-share", "nan")


def constant_toca(**settings: object) -> ToCa:
    return ToCa(ratio_schedule="constant", **settings)


RUNS = [
    NoCaching(),
    FORA(),
    TaylorSeer(),
    Scheduled((0, 3, 6)),
    constant_toca(ratio=0.3),
    DuCa(ratio=0.3, ratio_schedule="constant"),
    Turns(),
]
RUNS += [constant_toca(ratio=0.3, score=score) for score in ("kv-norm", "k-norm", "similarity", "random", "age")]


@pytest.mark.parametrize("method", RUNS, ids=repr)
def test_any_method_samples_the_model(method: Method) -> None:
    """What was planned is what is computed and held; the result is near the uncached one, and that one without caching."""
    torch.manual_seed(0)
    model, noise = Tiny(TinyConfig()), torch.randn(2, 16, 3)
    spec, steps = tiny_spec(model.config), 12
    held = []
    look = model.register_forward_hook(lambda *args: held.append(cache.nbytes))
    with Cache(spec, method, steps) as cache:
        samples = sample(model, noise, steps, cache)
    plan = cache.plan
    assert held == [step.total for step in predict(plan, method, rows=2, element_size=4)]
    with Cache(spec, method, steps) as cache, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        again = sample(model, noise, steps, cache, precompute=False)
    assert counter.get_total_flops() == executed_flops(plan, rows=2)
    torch.testing.assert_close(again, samples)
    look.remove()
    exact = sample(model, noise, steps)
    difference = ((samples - exact).norm() / (exact - noise).norm()).item()
    assert (0 < difference < 0.1) if plan.caches else difference < 1e-6


def test_tokens_take_turns() -> None:
    """In the three steps between full ones, a quarter of the tokens each: nobody twice."""
    model, noise = Tiny(TinyConfig()), torch.randn(1, 16, 3)
    chosen = []

    def look(*args: object) -> None:
        if 0 < cache.index < 4:
            chosen.extend(cache.selector("blocks", "mlp").chosen[0].tolist())

    model.register_forward_hook(look)
    with Cache(tiny_spec(model.config), Turns(interval=4), 5) as cache:
        sample(model, noise, 5, cache)
    assert len(set(chosen)) == len(chosen) == 12
