"""Seconds and bytes of DiT sampling at real sizes, with random weights: `toca bench dit`.

    toca bench dit --model DiT-B/2 DiT-XL/2 --dtype fp32 bf16        # DDIM-50, one guided image
    toca bench dit --model DiT-XL/2 --device cuda --dtype bf16 --batch 1 8 64
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from diffusion import create_diffusion
from dit_cli import SIZES, VAE_STRIDE
from dit_spec import CONFIGS, dit_spec
from models import DiT
from sampling import DTYPES
from toca.cache import Cache
from toca.files import atomic_path
from toca.flops import step_flops, total_flops
from toca.memory import predict
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.plan import Plan
from toca.runner import reproducible_matmuls

METHODS: dict[str, Method] = {
    "uncached": NoCaching(),
    "FORA N=3": FORA(3),
    "ToCa N=3 r=0.07": ToCa(3, 0.07),
    "DuCa N=3 r=0.05": DuCa(3, 0.05),
    "TaylorSeer N=3 O=1": TaylorSeer(3, 1),
}
RESULTS = Path(__file__).parent / "benchmarks"


class Clock:
    """Marks in time: CUDA events, which do not stall the device, or the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds between neighbouring marks."""
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]


@torch.no_grad()
def sample(model: DiT, method: Method, steps: int, batch: int, cfg_scale: float = 1.5) -> dict[str, Any]:
    """One DDIM run of random weights on random latents: plan, seconds of the run and of every step, bytes held by the cache."""
    config, weight = model.config, model.pos_embed
    device, dtype, side = weight.device, weight.dtype, config.input_size
    diffusion = create_diffusion(str(steps))
    z = torch.randn(batch, config.in_channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(batch, device=device) % config.num_classes
    y = torch.cat([labels, torch.full_like(labels, config.num_classes)])
    clock, held = Clock(device), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with Cache(dit_spec(config), method, steps) as cache:

        def network(x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
            out = model.forward_with_cfg(x.to(dtype), t, **kwargs)
            held.append(cache.nbytes)
            clock.mark()
            return out

        clock.mark()
        model.precompute_modulation(cache, torch.tensor(diffusion.timestep_map[::-1], device=device), y)
        clock.mark()
        x = torch.cat([z, z])
        diffusion.ddim_sample_loop(network, x.shape, x, model_kwargs=dict(y=y, cfg_scale=cfg_scale, cache=cache))
        clock.mark()
        modulation, *seconds, last_update = clock.seconds()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    total = modulation + sum(seconds) + last_update
    return dict(plan=cache.plan, seconds=total, modulation_seconds=modulation, steps=seconds, held=max(held), device_peak=peak)


def step_groups(plan: Plan, seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Steps of one kind together: how many, median seconds, mean FLOPs of a batch row. Partial steps in tenths of MLP tokens refreshed."""
    groups: dict[str, list[tuple[float, int]]] = {}
    for step, (row, duration) in enumerate(zip(plan.steps, seconds, strict=True)):
        name = plan.step_kind(step)
        mlp = [row[site] for site in plan.spec.sites() if site[2] == "mlp"]
        if name == "full" and any(action.score for action in row.values()):
            name = "full, scored"
        elif name == "full" and any(action.keep for action in row.values()):
            name = "full, stored"
        elif name == "partial":
            share = sum(action.tokens for action in mlp) / (len(mlp) * plan.spec.branch(("blocks", 0, "mlp")).tokens)
            name = f"partial, {int(share * 10) * 10}-{int(share * 10) * 10 + 10}% of MLP tokens"
        groups.setdefault(name, []).append((duration, step_flops(plan.spec, row)))
    return [
        dict(kind=name, count=len(runs), seconds=median(s for s, _ in runs), row_flops=sum(f for _, f in runs) / len(runs))
        for name, runs in groups.items()
    ]


def bench(name: str, dtype: str, batch: int, args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Every method on one model; the uncached run comes first and is what the others are compared with."""
    pixels, steps = args.image_size or SIZES.get(name, 256), args.num_sampling_steps
    config = CONFIGS[name].replace(input_size=pixels if name in SIZES else pixels // VAE_STRIDE)
    model = DiT(config).eval()
    for parameter in model.parameters():  # the zero-initialised gates would hide what a cached branch adds
        torch.nn.init.normal_(parameter, std=0.02)
    model = model.to(device, DTYPES[dtype])
    sample(model, ToCa(2, 0.07), 4, batch)  # warm-up
    results: list[dict[str, Any]] = []
    for method in dict.fromkeys(["uncached", *args.methods]):
        run = sample(model, METHODS[method], steps, batch)
        plan: Plan = run["plan"]
        rows, base = 2 * batch, results[0] if results else None
        flops = total_flops(plan, "matmul", rows)
        result = dict(model=name, image_size=pixels, dtype=dtype, batch=batch, method=method, steps=dict(plan.kind_counts()))
        predicted = max(held.total for held in predict(plan, METHODS[method], rows, model.pos_embed.element_size()))
        result |= dict(seconds=run["seconds"], tflops=flops / 1e12, device_peak_bytes=run["device_peak"])
        result |= dict(cache_bytes_held=run["held"], cache_bytes_predicted=predicted)
        result |= dict(modulation_seconds=run["modulation_seconds"], groups=step_groups(plan, run["steps"]))
        if base:
            result["flops_speedup"], result["time_speedup"] = base["tflops"] * 1e12 / flops, base["seconds"] / run["seconds"]
            result["plain_steps_of_equal_time"] = round(steps * run["seconds"] / base["seconds"], 1)
        results.append(result)
        print_result(result, base)
    return results


def print_result(result: dict[str, Any], base: dict[str, Any] | None) -> None:
    title = f"{result['model']} {result['image_size']} px {result['dtype']} batch {result['batch']}, {result['method']}"
    line = f"\n{title}: {result['seconds']:.2f} s, {result['tflops']:.2f} TFLOPs, cache {result['cache_bytes_held'] / 2**20:.1f} MiB"
    line += f" ({result['cache_bytes_predicted'] / 2**20:.1f} predicted)"
    if base:
        time_speedup, flops_speedup = result["time_speedup"], result["flops_speedup"]
        line += f", {flops_speedup:.2f}x FLOPs, {time_speedup:.2f}x time ({time_speedup / flops_speedup:.0%} of it)"
    print(line)
    plain = (base or result)["groups"][0]
    for group in result["groups"]:
        time_share, flops_share = group["seconds"] / plain["seconds"], group["row_flops"] / plain["row_flops"]
        line = f"  {group['kind']:<34}{group['count']:>4} x {group['seconds']:8.4f} s"
        print(f"{line}  {time_share:7.1%} of an uncached step's time, {flops_share:6.1%} of its FLOPs", flush=True)


def machine(device: torch.device) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return dict(cpu=names[0] if names else platform.processor(), threads=torch.get_num_threads(), gpu=gpu, torch=torch.__version__)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="toca bench dit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", nargs="+", choices=CONFIGS, default=["DiT-B/2"])
    p.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32"])
    p.add_argument("--batch", nargs="+", type=int, default=[1], help="images; each is two rows, with guidance")
    p.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    p.add_argument("--num-sampling-steps", type=int, default=50)
    p.add_argument("--image-size", type=int, default=None)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--output", default=None, help="result file (default: benchmarks/DATE-DEVICE.json in the fork's folder)")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    reproducible_matmuls()  # as the sampling programs
    device, today = torch.device(args.device), datetime.date.today().isoformat()
    path = Path(args.output) if args.output else RESULTS / f"{today}-{device.type}.json"
    results: list[dict[str, Any]] = []
    for name in args.model:
        for dtype in args.dtype:
            for batch in args.batch:
                results += bench(name, dtype, batch, args, device)
                with atomic_path(path) as part:  # after every model: a long benchmark that is cut short keeps what it has
                    part.write_text(json.dumps(dict(date=today, machine=machine(device), results=results), indent=1) + "\n")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
