"""The main job in one command: DiT-mini uncached and with every caching method, from the same noise, as one picture and one table.

    python demo.py                      # a few seconds per method on a CPU; no downloads
    python demo.py --images 64 --seed 1 # a steadier comparison
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion import create_diffusion
from dit_cli import add_model_flags
from sampling import Sampler, add_sampling_flags, load_decoder, load_model, prepare, to_uint8
from toca.flops import total_flops, uncached_flops
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.metrics.distance import psnr, ssim
from toca.runner import item_generators

METHODS: dict[str, Method] = {
    "uncached": NoCaching(),
    "FORA N=3": FORA(interval=3),
    "ToCa N=3": ToCa(interval=3, ratio=0.07),
    "DuCa N=3": DuCa(interval=3, ratio=0.05),
    "TaylorSeer N=3 O=1": TaylorSeer(interval=3, order=1),
    "FORA N=2": FORA(interval=2),
}


@dataclass
class Result:
    """One row of the table; distances are to the uncached images from the same noise."""

    name: str
    steps: dict[str, int]
    tokens_refreshed: float
    gflops: float
    seconds: float
    flops_speedup: float = 1.0
    time_speedup: float = 1.0
    psnr: float | None = None
    ssim: float | None = None


def timed(sampler: Sampler, labels: Tensor, seed: int, repeats: int) -> tuple[Tensor, float]:
    """Samples and the best wall-clock seconds of a few runs from the same noise."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        samples = sampler.sample(labels, item_generators(seed, range(len(labels))))
        if labels.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return samples, best


def compare(base: Sampler, methods: dict[str, Method], labels: Tensor, seed: int, repeats: int, decode) -> tuple[list[Result], list[np.ndarray]]:
    """Run every method, then plain sampling with as many steps as ToCa's seconds would buy."""
    results, pictures = [], []

    def run(name: str, sampler: Sampler) -> Result:
        samples, seconds = timed(sampler, labels, seed, repeats)
        rows = 2 if sampler.guided else 1
        gflops = total_flops(sampler.plan, "matmul", rows) / 1e9
        result = Result(name, dict(sampler.plan.kind_counts()), sampler.plan.tokens_refreshed(), gflops, seconds)
        pictures.append(to_uint8(decode(samples.float())))
        if results:
            first = results[0]
            result.flops_speedup, result.time_speedup = first.gflops / gflops, first.seconds / seconds
            result.psnr, result.ssim = psnr(pictures[-1], pictures[0]), ssim(pictures[-1], pictures[0])
        results.append(result)
        return result

    run("warm-up", replace(base, diffusion=create_diffusion("2")))
    results.clear(), pictures.clear()
    for name, method in methods.items():
        run(name, replace(base, method=method))
    toca = next(result for result in results if result.name.startswith("ToCa"))
    for label, speedup in (("equal time", toca.time_speedup), ("equal FLOPs", toca.flops_speedup)):
        steps = max(2, round(base.diffusion.num_timesteps / speedup))
        run(f"{steps} steps ({label})", replace(base, method=NoCaching(), diffusion=create_diffusion(str(steps))))
    return results, pictures


def print_table(results: Sequence[Result], images: int) -> None:
    """`seconds` are for all images; FLOPs per image."""
    header = f"{'method':<24}{'steps':<26}{'MLP tokens':>11}{'GFLOPs':>9}{'seconds':>9}{'FLOPs x':>9}{'time x':>8}{'PSNR dB':>9}{'SSIM':>7}"
    print(f"\n{images} images, distances to the uncached ones from the same noise\n{header}\n{'-' * len(header)}")
    for r in results:
        steps = ", ".join(f"{count} {kind}" for kind, count in r.steps.items())
        distance = f"{r.psnr:>9.2f}{r.ssim:>7.3f}" if r.psnr is not None else f"{'-':>9}{'-':>7}"
        print(f"{r.name:<24}{steps:<26}{r.tokens_refreshed:>11.1%}{r.gflops:>9.1f}{r.seconds:>9.2f}{r.flops_speedup:>9.2f}{r.time_speedup:>8.2f}{distance}")


def save_picture(results: Sequence[Result], pictures: Sequence[np.ndarray], names: Sequence[str], path: str) -> None:
    """One row per method, one column per class, labelled."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(len(names), 10)
    fig, axes = plt.subplots(len(results), columns, figsize=(1.15 * columns + 2.6, 1.2 * len(results) + 0.3), squeeze=False)
    for row, (result, images) in enumerate(zip(results, pictures)):
        for column in range(columns):
            ax = axes[row, column]
            ax.imshow(images[column], interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == 0:
                ax.set_title(names[column].replace(" ", "\n"), fontsize=8)
        psnr = f"\n{result.psnr:.1f} dB" if result.psnr is not None else ""
        text = f"{result.name}\n{result.flops_speedup:.2f}x FLOPs, {result.time_speedup:.2f}x time{psnr}"
        axes[row, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
    fig.tight_layout(pad=0.4)
    fig.savefig(path, dpi=130)


def class_names(config_classes: int, labels: Sequence[int], model: str) -> list[str]:
    if model == "DiT-mini":
        from toca.shapeworld import class_name

        return [class_name(label) for label in labels]
    return [str(label) for label in labels]


def main(args: argparse.Namespace) -> None:
    device = prepare(args, vae="mse")
    model = load_model(args, device)
    decode = load_decoder(args.vae, device)
    diffusion = create_diffusion(str(args.num_sampling_steps))
    base = Sampler(model, diffusion, NoCaching(), ddim=args.ddim_sample, cfg_scale=args.cfg_scale)
    labels = (torch.arange(args.images) * 7 % model.num_classes).to(device)
    results, pictures = compare(base, METHODS, labels, args.seed, args.repeats, decode)
    print_table(results, args.images)
    save_picture(results, pictures, class_names(model.num_classes, labels.tolist(), args.model), args.output)
    print(f"\npicture: {args.output}")
    if args.json:
        Path(args.json).write_text(json.dumps([vars(result) for result in results], indent=1))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(p)
    add_sampling_flags(p, vae="mse")
    p.set_defaults(model="DiT-mini", image_size=32, num_sampling_steps=50, ddim_sample=True)
    p.add_argument("--images", type=int, default=10)
    p.add_argument("--repeats", type=int, default=2, help="timed runs per method; the best counts")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", default="demo.png")
    p.add_argument("--json", default=None, help="write the table here as well")
    return p


if __name__ == "__main__":
    main(parser().parse_args())
