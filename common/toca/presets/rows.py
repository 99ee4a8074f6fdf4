"""What a preset is, and what the tables of several models share: settings of methods, and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One printed row. numbers: as printed, of tflops, speedup (in FLOPs), fid50k, sfid, inception_score, precision,
    image_reward, geneval, fid30k, clip, vbench, latency_speedup. counter: of `toca.planning.flops`, which gives the printed FLOPs."""

    source: str
    numbers: Mapping[str, float]
    note: str = ""
    counter: str = "upstream"


@dataclass(frozen=True)
class Preset:
    """flags: the settings of a run. Printed FLOPs of ToCa and DuCa are those of `upstream_exact` runs."""

    flags: Mapping[str, Any]
    published: tuple[Published, ...]


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
