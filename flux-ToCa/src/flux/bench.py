"""Seconds, FLOPs and bytes of FLUX at full width, with random weights: `toca bench flux-dev`.

    toca bench flux-dev                               # on a CPU: one double and one single block, 5 steps
    toca bench flux-dev --device cuda                 # the whole flux-dev, 50 steps of every preset, and 28 and 20 plain ones
    toca bench flux-dev --blocks 19 38 --steps 50     # the whole model on a CPU, if you can wait

Layers of a short model are the first ones of the real one: they refresh more tokens than its average.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from flux.files import HOME
from flux.flags import LONGEST_TEXT, SIDE, STEPS
from flux.model import Flux
from flux.sampler import get_schedule, grid, image_ids
from flux.spec import CONFIGS, FluxParams, flux_spec, txt_tokens
from toca.cli.flags import Parser, whole
from toca.engine.cache import Cache
from toca.methods import FORA, Method, NoCaching, ToCa
from toca.planning.flops import stack_flops
from toca.planning.plan import Plan
from toca.runs.bench import Result, Watch, add_flags, print_result, result_of, run_all
from toca.runs.clock import Clock
from toca.runs.programs import DTYPES, program_errors

METHODS: dict[str, Method] = {
    "none": NoCaching(),
    "toca4-01": ToCa(4, 0.1),
    "toca5-01": ToCa(5, 0.1),
    "toca6-01": ToCa(6, 0.1),
    "toca4-01-age": ToCa(4, 0.1, score="age"),
    "fora3": FORA(3),
}
PLAIN = {"steps28": 28, "steps20": 20}  # uncached runs of fewer steps
MOST_BLOCKS = 1000
BlockSeconds = dict[str, list[float]]  # by stack, of every step that runs it


def random_flux(params: FluxParams, device: torch.device, dtype: torch.dtype) -> Flux:
    """Weights that keep activations of ordinary size, made on the device."""
    with torch.device("meta"):
        model = Flux(params)
    model = model.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(0)
    for name, p in model.named_parameters():
        if name.endswith("_norm.scale"):
            p.fill_(1.0)
        else:
            p.normal_(std=0.5 * p.shape[-1] ** -0.5 if p.ndim > 1 else 0.02, generator=generator)
    return model


@contextmanager
def block_clock(model: Flux) -> Iterator[BlockSeconds]:
    """Seconds in the blocks of every stack, on a device that waits for its work: a CPU."""
    seconds: BlockSeconds = {}
    handles = []
    for stack in ("double_blocks", "single_blocks"):
        for layer, block in enumerate(getattr(model, stack)):
            started: list[float] = []

            def before(*_, started: list[float] = started) -> None:
                started.append(time.perf_counter())

            def after(*_, started: list[float] = started, stack: str = stack, first: bool = layer == 0) -> None:
                spent = time.perf_counter() - started.pop()
                if first:
                    seconds.setdefault(stack, []).append(spent)
                else:
                    seconds[stack][-1] += spent

            handles += [block.register_forward_pre_hook(before), block.register_forward_hook(after)]
    yield seconds
    for handle in handles:
        handle.remove()


@torch.no_grad()
def sample(model: Flux, method: Method, steps: int, batch: int, args: argparse.Namespace) -> tuple[Result, BlockSeconds]:
    """One run from noise with random texts, as `Watch.stop` has it, and seconds in its blocks."""
    params, weight = model.params, model.img_in.weight
    device, dtype = weight.device, weight.dtype
    rows, columns = grid(args.height, args.width)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator).to(device, dtype)

    x = draw(rows * columns, params.in_channels).float()
    times = get_schedule(steps, rows * columns)
    guidance = torch.full((batch,), 3.5, device=device)
    txt_ids = torch.zeros(batch, args.txt_tokens, 3, device=device)
    constant = dict(txt=draw(args.txt_tokens, params.context_in_dim), txt_ids=txt_ids, y=draw(params.vec_in_dim), guidance=guidance)
    constant["img_ids"] = image_ids(batch, rows, columns, device)
    spec = flux_spec(params, rows * columns, args.txt_tokens)
    with Cache(spec, method, steps) as cache, block_clock(model) as blocks:
        watch = Watch(cache, Clock(device))
        network = watch.model(model)
        watch.start()
        model.precompute(cache, torch.tensor(times[:-1], device=device), constant["y"], guidance)
        watch.clock.mark()
        for t, t_next in itertools.pairwise(times):
            v = network(img=x.to(dtype), timesteps=torch.full((batch,), t, device=device), cache=cache, **constant)
            x = x + (t_next - t) * v.float()[..., : x.shape[-1]]
        run = watch.stop()
    if not math.isfinite(x.abs().max().item()):
        raise ValueError("the run overflowed: its times would be of other numbers than a real one's")
    return run, {} if device.type == "cuda" else dict(blocks)


def block_rows(plan: Plan, blocks: BlockSeconds) -> list[Result]:
    """By stack and step: seconds of its blocks, their FLOPs, and both over those of the first step."""
    found = []
    for name, seconds in blocks.items():
        stack = plan.spec.stack(name)
        flops = [stack_flops(stack, row) for row in plan.steps]
        for step, spent in enumerate(seconds):
            share = dict(time_share=spent / seconds[0], flops_share=flops[step] / flops[0])
            found.append(dict(stack=name, step=step, kind=plan.step_kind(step), seconds=spent, flops=flops[step], **share))
    return found


def bench(name: str, dtype: str, batch: int, args: argparse.Namespace, device: torch.device) -> Iterator[Result]:
    """Every run on one model; the uncached one comes first and is what the others are compared with."""
    whole_model = device.type == "cuda"
    params = CONFIGS[name]
    blocks = args.blocks or ([params.depth, params.depth_single_blocks] if whole_model else [1, 1])
    steps = args.steps or (50 if whole_model else 5)
    args.txt_tokens = args.txt_tokens or txt_tokens(name)
    model, base = random_flux(params.replace(depth=blocks[0], depth_single_blocks=blocks[1]), device, DTYPES[dtype]), None
    nbytes = sum(p.nbytes for p in model.parameters())
    title = f"{name} ({blocks[0]} + {blocks[1]} blocks, {nbytes / 2**30:.2f} GiB), {args.width}x{args.height}, {dtype}"
    if whole_model if args.warm_up is None else args.warm_up:
        sample(model, ToCa(2, 0.1), 5, batch, args)
    for run_name in dict.fromkeys(["none", *(args.methods or ([*METHODS, *PLAIN] if whole_model else ["toca4-01"]))]):
        method = METHODS.get(run_name, METHODS["none"])
        run, seconds = sample(model, method, PLAIN.get(run_name, steps), batch, args)
        result = dict(model=name, blocks=blocks, width=args.width, height=args.height, txt_tokens=args.txt_tokens)
        result |= dict(dtype=dtype, batch=batch, method=run_name, weight_bytes=nbytes, modulation_seconds=run["before"])
        result |= result_of(run, method, batch, DTYPES[dtype].itemsize, base)
        result["by_block"] = block_rows(run["plan"], seconds)
        print_result(f"{title}, {run_name}", result, base)
        base = base or result
        for row in result["by_block"]:
            shares = f"{row['time_share']:7.1%} of a full step's time, {row['flops_share']:6.1%} of its FLOPs"
            print(f"    {row['stack']:<14} step {row['step']} {row['kind']:<8} {row['seconds']:8.4f} s  {shares}", flush=True)
        yield result


def parser() -> Parser:
    p = Parser(prog="toca bench flux-dev", description=__doc__)
    p.add_argument("--model", nargs="+", choices=CONFIGS, default=["flux-dev"])
    p.add_argument("--blocks", nargs=2, type=whole(1, MOST_BLOCKS), metavar=("DOUBLE", "SINGLE"), help="default: 1 1; on CUDA all")
    p.add_argument("--steps", type=STEPS, default=None, help="default: 5; on CUDA 50")
    p.add_argument("--width", type=SIDE, default=1024)
    p.add_argument("--height", type=SIDE, default=1024)
    p.add_argument("--txt_tokens", type=whole(1, LONGEST_TEXT), default=None, help="default: the model's")
    p.add_argument("--warm_up", action=argparse.BooleanOptionalAction, default=None, help="a short run first; default: on CUDA")
    add_flags(p, {**METHODS, **dict.fromkeys(PLAIN, METHODS["none"])})
    p.add_argument("--runs", dest="methods", nargs="+", choices=(*METHODS, *PLAIN), help="the same as --methods")
    p.set_defaults(dtype=["bf16"], methods=None)  # toca4-01; on CUDA all
    return p


@program_errors(after="finished runs are in the result file")
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run_all(args, HOME / "benchmarks", args.model, bench)


if __name__ == "__main__":
    main()
