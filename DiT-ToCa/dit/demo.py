"""The main job in one command: DiT-mini uncached and with every caching method, from the same noise, as one picture and one table.

python demo.py                        # a few seconds per method on a CPU; no downloads
python demo.py --images 1000          # a steady comparison, and the judge's accuracy
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit.flags import RunSettings, config_from
from dit.pipeline import Pipeline
from dit.runs import set_precision
from dit.sampler import Sampler
from toca import shapeworld
from toca.console import announce
from toca.diffusion import create_diffusion
from toca.loading.autoencoder import Decoder
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.metrics.distance import psnr, ssim
from toca.planning.flops import total_flops
from toca.runs.clock import Stopwatch
from toca.runs.files import atomic_path
from toca.runs.outputs import check_file
from toca.runs.pictures import check_finite, check_picture, to_uint8
from toca.runs.programs import program_errors
from toca.runs.seeds import item_generators

UNCACHED, REFERENCE = "uncached", "ToCa N=3"  # plain runs with fewer steps are given the second one's time and FLOPs
METHODS: dict[str, Method] = {
    UNCACHED: NoCaching(),
    "FORA N=2": FORA(interval=2),
    "FORA N=3": FORA(interval=3),
    REFERENCE: ToCa(interval=3, ratio=0.07),
    "ToCa N=4": ToCa(interval=4, ratio=0.07),
    "DuCa N=3": DuCa(interval=3, ratio=0.05),
    "TaylorSeer N=3 O=1": TaylorSeer(interval=3, order=1),
    "TaylorSeer N=4 O=2": TaylorSeer(interval=4, order=2),
}


@dataclass(frozen=True)
class Result:
    """One row of the table. `seconds` are for all images; distances are to the uncached images from the same noise.

    judged: share of pictures that the judge reads as their class; None for models of other data.
    """

    name: str
    steps: dict[str, int]
    tokens_refreshed: float
    gflops_per_image: float
    seconds: float
    flops_speedup: float
    time_speedup: float
    psnr: float | None
    ssim: float | None
    judged: float | None


class Comparison:
    """Runs samplers from the same noise and keeps their pictures and results; the first one is what the others are compared with."""

    def __init__(self, labels: Tensor, seed: int, batch: int, repeats: int, decode: Decoder, judge: bool) -> None:
        self.labels, self.seed, self.batch, self.repeats, self.decode, self.judge = labels, seed, batch, repeats, decode, judge
        self.results: dict[str, Result] = {}
        self.pictures: list[np.ndarray] = []

    def run(self, name: str, sampler: Sampler) -> Result:
        samples, seconds = min((self._timed(sampler) for _ in range(self.repeats)), key=lambda run: run[1])
        check_finite(samples, f"the latents of {name}")
        pictures = np.concatenate([to_uint8(self.decode(part)) for part in samples.float().split(self.batch)])
        plan, first = sampler.plan, next(iter(self.results.values()), None)
        gflops = total_flops(plan, "matmul", 2 if sampler.guided else 1) / 1e9
        self.results[name] = Result(
            name,
            steps=dict(plan.kind_counts()),
            tokens_refreshed=plan.tokens_refreshed(),
            gflops_per_image=gflops,
            seconds=seconds,
            flops_speedup=first.gflops_per_image / gflops if first else 1.0,
            time_speedup=first.seconds / seconds if first else 1.0,
            psnr=psnr(pictures, self.pictures[0]) if first else None,
            ssim=ssim(pictures, self.pictures[0]) if first else None,
            judged=float((shapeworld.classify(pictures) == self.labels.cpu().numpy()).mean()) if self.judge else None,
        )
        self.pictures.append(pictures)
        return self.results[name]

    def _timed(self, sampler: Sampler) -> tuple[Tensor, float]:
        parts = []
        with (watch := Stopwatch(self.labels.device)):
            for first in range(0, len(self.labels), self.batch):
                labels = self.labels[first : first + self.batch]
                parts.append(sampler.sample(labels, item_generators(self.seed, range(first, first + len(labels)))))
        return torch.cat(parts), watch.seconds


def compare(base: Sampler, comparison: Comparison) -> None:
    """Every method, then plain sampling with as many steps as the reference method's seconds and FLOPs would buy."""
    base.sample(comparison.labels[:1], item_generators(0, [0]))  # warm-up
    for name, method in METHODS.items():
        comparison.run(name, replace(base, method=method))
    reference = comparison.results[REFERENCE]
    for label, speedup in (("time", reference.time_speedup), ("FLOPs", reference.flops_speedup)):
        steps = max(2, round(base.diffusion.num_timesteps / speedup))
        comparison.run(f"{steps} steps ({label} of {REFERENCE})", replace(base, diffusion=create_diffusion(str(steps))))


def table(results: Sequence[Result], images: int) -> str:
    steps = [", ".join(f"{count} {kind}" for kind, count in r.steps.items()) for r in results]
    first, second = max(len(r.name) for r in results) + 2, max(map(len, steps)) + 1
    names = ("tokens", "GFLOPs", "seconds", "FLOPs x", "time x", "PSNR", "SSIM", "judge")
    header = f"{'method':<{first}}{'steps':<{second}}" + "".join(f"{name:>9}" for name in names)
    lines = [f"{images} images; GFLOPs per image, PSNR (dB) and SSIM to the uncached images from the same noise", header, "-" * len(header)]
    for r, kinds in zip(results, steps):
        speed = f"{r.tokens_refreshed:>9.1%}{r.gflops_per_image:>9.1f}{r.seconds:>9.2f}{r.flops_speedup:>9.2f}{r.time_speedup:>9.2f}"
        distance = f"{r.psnr:>9.2f}{r.ssim:>9.3f}" if r.psnr is not None and r.ssim is not None else f"{'-':>9}{'-':>9}"
        judged = f"{r.judged:>9.1%}" if r.judged is not None else f"{'-':>9}"
        lines.append(f"{r.name:<{first}}{kinds:<{second}}{speed}{distance}{judged}")
    return "\n".join(lines)


def save_picture(results: Sequence[Result], pictures: Sequence[np.ndarray], names: Sequence[str], path: Path) -> None:
    """One row per method, one column per class, labelled."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(len(names), 10)
    fig, axes = plt.subplots(len(results), columns, figsize=(0.95 * columns + 2.3, len(results) + 0.4), squeeze=False)
    for name, ax in zip(names, axes[0]):
        ax.set_title(name.replace(" ", "\n"), fontsize=8)
    for result, images, row in zip(results, pictures, axes):
        for image, ax in zip(images, row):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        text = f"{result.name}\n{result.flops_speedup:.2f}x FLOPs, {result.time_speedup:.2f}x time"
        text += f"\n{result.psnr:.1f} dB" if result.psnr is not None else ""
        row[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
    fig.tight_layout(pad=0.4)
    fig.savefig(path, dpi=110)


@program_errors()
def demonstrate(args: argparse.Namespace) -> None:
    """demo.py."""
    check_picture(Path(args.output), "--output")
    if args.json:
        check_file(Path(args.json), "--json")
    if args.json and Path(args.json).resolve() == Path(args.output).resolve():
        raise ValueError(f"--json {args.json} would overwrite --output")
    classes = config_from(args).num_classes
    labels = tuple(index * 7 % classes for index in range(args.images))  # neighbours differ in shape and colour
    settings = RunSettings.from_args(args, labels)
    set_precision(settings)
    device, mini = torch.device(settings.device), settings.model == "DiT-mini"
    pipeline = Pipeline.load(settings, device)
    y = torch.tensor(labels, device=device)
    comparison = Comparison(y, settings.seed, args.batch, args.repeats, pipeline.decode, judge=mini)
    compare(pipeline.sampler, comparison)
    results = list(comparison.results.values())
    announce(table(results, args.images))
    names = [shapeworld.class_name(label) if mini else str(label) for label in labels]
    with atomic_path(args.output) as part:
        save_picture(results, comparison.pictures, names, part)
    announce(f"\npicture: {args.output}")
    if args.json:
        with atomic_path(args.json) as part:
            part.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")
