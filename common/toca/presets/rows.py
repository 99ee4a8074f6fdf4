"""What a preset is, and what the tables of several models share: settings of methods, and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBERS = {  # what is printed of a run, and the heading of its column
    "tflops": "printed TFLOPs",
    "speedup": "x",
    "fid50k": "FID-50k",
    "sfid": "sFID",
    "inception_score": "IS",
    "precision": "prec.",
    "image_reward": "ImageReward",
    "image_reward_parti": "ImageReward (PartiPrompts)",
    "geneval": "GenEval",
    "fid30k": "FID-30k",
    "clip": "CLIP",
    "clip_other": "CLIP (other scale)",  # of pictures rescaled twice, as far as is known: not comparable
    "vbench": "VBench %",
    "psnr": "PSNR",
    "lpips": "LPIPS",
    "latency_s": "seconds",
    "latency_speedup": "x time",
}


@dataclass(frozen=True)
class Published:
    """One printed row.

    numbers: as printed, by the names of NUMBERS. counter: of `toca.planning.flops`, which gives the printed FLOPs.
    """

    source: str
    numbers: Mapping[str, float]
    note: str = ""
    counter: str = "upstream"


@dataclass(frozen=True)
class Preset:
    """A setting with a name, and what is printed for it.

    flags: the settings of a run. Printed FLOPs of ToCa and DuCa are those of `upstream_exact` runs. baseline: steps of the uncached run
    that speed-ups refer to; None: as many as the run's own.
    """

    flags: Mapping[str, Any]
    published: tuple[Published, ...]
    baseline: int | None = None


def row(source: str, note: str = "", **numbers: float) -> Published:
    return Published(source, numbers, note)


NONE = dict(method="none")


def toca(interval: int, ratio: float) -> dict[str, Any]:
    return dict(method="toca", fresh_threshold=interval, fresh_ratio=ratio, ratio_scheduler="ToCa")


def duca(interval: int, ratio: float) -> dict[str, Any]:
    return dict(method="duca", fresh_threshold=interval, fresh_ratio=ratio, ratio_scheduler="ToCa")


def fora(interval: int) -> dict[str, Any]:
    return dict(method="fora", fresh_threshold=interval)


DIFFSPARSE = "DiffSparse (ICLR 2026), third-party note"
NO_ORDER = "order not stated"
PROCACHE = "ProCache (AAAI 2026), third-party note"
RESCA = "ResCa (CVPR 2026), third-party note"
SODA = "SODA, arXiv 2603.07057, third-party note"
TAYLORSEER = "TaylorSeer, arXiv 2503.06923, third-party note"
TOCA_ABSTRACT = "ToCa, arXiv 2410.05317, abstract"
TRACKER = "ToCa issue tracker"
