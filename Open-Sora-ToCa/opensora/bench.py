"""Seconds and bytes of Open-Sora sampling at real sizes, with random weights: `toca bench opensora`.

    toca bench opensora                                        # two pairs of blocks at 480p, 51 frames, first 6 of 30 steps, on the CPU
    toca bench opensora --device cuda --dtype bf16             # the whole model, whole runs
    toca bench opensora --device cuda --dtype bf16 --resolution 720p --num-frames 4s

Where a run stops early, steps that were not run count as the median of their kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from opensora.flags import PUBLISHED_TEXT, add_size_flags, size_of
from opensora.models.stdit.stdit3 import STDiT3
from opensora.spec import CONFIGS, STDiT3Config, opensora_spec
from toca.cli.flags import MOST_STEPS, Parser, whole
from toca.engine.cache import Cache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.memory import attention_maps, predict
from toca.planning.plan import Plan
from toca.runs.bench import DTYPES, Result, Watch, add_flags, print_result, result_of, run_all
from toca.runs.clock import Clock

METHODS: dict[str, Method] = {
    "uncached": NoCaching(),
    "ToCa R=85%": ToCa(3, 0.1),
    "ToCa R=80%": ToCa(3, 0.13),
    "DuCa": DuCa(3, 0.1, score="kv-norm"),
    "FORA N=2": FORA(2),
    "TaylorSeer N=3 O=1": TaylorSeer(3, 1),
}
OPERATIONS = {  # parts of the names of operators; what has none of them is element-wise
    "matrix products": ("mm", "attention", "conv"),
    "norms": ("norm",),
    "copies": ("copy", "cat", "index", "gather", "scatter", "clone"),
    "ranking": ("sort", "topk", "one_hot"),
}
Latent = tuple[int, int, int]


def random_model(config: STDiT3Config, device: torch.device, dtype: torch.dtype) -> STDiT3:
    with torch.device(device):
        model = STDiT3(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model.to(dtype)


def inputs(model: STDiT3, latent: Latent, batch: int, text_tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents (n, C, T, H, W) and what every call of a guided run gets beside them and its time."""
    config, weight = model.config, model.t_block[1].weight
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, config.in_channels, *latent, generator=generator).to(weight.device)
    text = torch.randn(2 * batch, 1, text_tokens, config.caption_channels, generator=generator).to(weight)
    numbers = dict(fps=24.0, height=8.0 * latent[1], width=8.0 * latent[2])
    return z, dict(y=text) | {name: torch.full((batch,), value, device=weight.device) for name, value in numbers.items()}


@torch.no_grad()
def sample(
    model: STDiT3,
    method: Method,
    latent: Latent,
    steps: int,
    stop: int,
    batch: int,
    text_tokens: int,
    watched: Callable[[int, Callable[[], Tensor]], Tensor] = lambda step, call: call(),
) -> Result:
    """The first `stop` of a guided Euler run of so many steps, as `Watch.stop` has it. watched: (step, call) -> its value."""
    z, given = inputs(model, latent, batch, text_tokens)
    with Cache(opensora_spec(model.config, latent, text_tokens), method, steps) as cache:
        watch = Watch(cache, Clock(z.device))
        watch.start()
        network = watch.model(model)
        for step in range(stop):
            t = torch.full((2 * batch,), 1000 * (1 - step / steps), device=z.device)
            out = watched(step, lambda z=z, t=t: network(torch.cat((z, z)), t, cache=cache, **given))
            v_text, v_null = out[:, : z.shape[1]].chunk(2)
            z = z + (v_null + 7.0 * (v_text - v_null)) / steps
        return watch.stop()


def projected(plan: Plan, seconds: Sequence[float]) -> float:
    """Seconds of a whole run of which the first steps were timed."""
    kinds: dict[str, list[float]] = {}
    for step, duration in enumerate(seconds):
        kinds.setdefault(plan.step_kind(step), []).append(duration)
    return sum(seconds) + sum(median(kinds[plan.step_kind(step)]) for step in range(len(seconds), plan.num_steps))


def operations(model: STDiT3, latent: Latent, steps: dict[str, int], batch: int, text_tokens: int) -> dict[str, dict[str, float]]:
    """Where the time of these steps of the published setting goes: name -> seconds by kind of operation."""
    cuda = model.t_block[1].weight.is_cuda
    profiles: dict[int, profile] = {}

    def watched(step: int, call: Callable[[], Tensor]) -> Tensor:
        if step not in steps.values():
            return call()
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiles[step]:
            value = call()
            if cuda:
                torch.cuda.synchronize()
        return value

    sample(model, METHODS["ToCa R=85%"], latent, 30, max(steps.values()) + 1, batch, text_tokens, watched)
    found = {name: dict.fromkeys((*OPERATIONS, "element-wise"), 0.0) for name in steps}
    for name, step in steps.items():
        for event in profiles[step].key_averages():
            kind = next((kind for kind, parts in OPERATIONS.items() if any(part in event.key for part in parts)), "element-wise")
            found[name][kind] += (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
    return found


def bench(model_name: str, dtype: str, batch: int, args: argparse.Namespace, device: torch.device) -> list[Result]:
    """Every method on one model; the uncached run comes first and is what the others are compared with, half its steps come last."""
    size, length, steps = size_of(args), args.text_tokens, args.num_sampling_steps
    latent, on_gpu = size.latent, device.type == "cuda"
    config = CONFIGS[model_name]
    config = replace(config, depth=args.depth or (config.depth if on_gpu else 2))
    stop = min(steps, args.stop_after or (steps if on_gpu else 6))
    model = random_model(config, device, DTYPES[dtype])
    if on_gpu:
        sample(model, METHODS["ToCa R=85%"], latent, steps, min(5, steps), batch, length)  # warm-up
    results: list[Result] = []
    runs = [(name, METHODS[name], steps) for name in dict.fromkeys(["uncached", *args.methods])]
    for name, method, count in [*runs, (f"uncached, {steps // 2} steps", NoCaching(), steps // 2)]:
        base = results[0] if results else None
        timed = min(count, stop if stop == steps or method != NoCaching() else 2 if count == steps else 1)  # its steps are all alike
        run = sample(model, method, latent, count, timed, batch, length)
        result = dict(
            model=model_name, depth=config.depth, height=size.height, width=size.width, frames=size.num_frames, dtype=dtype, batch=batch
        )
        result |= dict(text_tokens=length, method=name) | compared(run, method, batch, model.t_block[1].weight.element_size(), base)
        results.append(result)
        print_result(f"{model_name} x{config.depth} {size} {dtype} batch {batch}, {name}", result, base)
    results[0]["operations"] = operations(model, latent, dict(full=2, partial=4), batch, length)
    for kind, seconds in results[0]["operations"].items():
        shares = ", ".join(f"{name} {value / sum(seconds.values()):.0%}" for name, value in seconds.items())
        print(f"\n{kind} step of ToCa R=85%, {sum(seconds.values()):.3f} s of operations: {shares}")
    return results


def compared(run: Result, method: Method, batch: int, element_size: int, base: Result | None) -> Result:
    """A run in numbers: times and FLOPs by kind of the steps that were run, all else of the whole run."""
    plan, rows = run["plan"], 2 * batch
    result = result_of(dict(run, seconds=projected(plan, run["steps"])), method, rows, element_size, base)
    outputs = max(held.outputs for held in predict(plan, method, rows, element_size))
    published = outputs + attention_maps(plan, method, rows, element_size)
    return result | dict(timed_steps=len(run["steps"]), published_cache_bytes=published)


def parser() -> Parser:
    p = Parser(prog="toca bench opensora", description=__doc__)
    p.add_argument("--model", nargs="+", choices=CONFIGS, default=["STDiT3-XL/2"])
    p.add_argument("--depth", type=whole(1, 1000), help="pairs of blocks (default: 2 on a CPU, all on a GPU)")
    add_size_flags(p, "480p", "9:16")
    p.add_argument("--num-sampling-steps", type=whole(2, MOST_STEPS), default=30)
    p.add_argument("--stop-after", type=whole(1, MOST_STEPS), help="steps to run (default: 6 on a CPU, all on a GPU)")
    p.add_argument("--text-tokens", type=whole(1, STDiT3Config.model_max_length), default=PUBLISHED_TEXT)
    add_flags(p, METHODS)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run_all(args, Path(__file__).parents[1] / "benchmarks", args.model, bench)


if __name__ == "__main__":
    main()
