"""Published settings by name, with the numbers printed for them. Flags carry their fork's spelling.

Many were read in other papers or in notes about them, which do not always agree; every row names its source.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One printed row. numbers: as printed, of tflops, speedup (in FLOPs), fid50k, sfid, inception_score, precision,
    image_reward, geneval, fid30k, clip, vbench, latency_speedup."""

    source: str
    numbers: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """flags: the settings of a run. Printed FLOPs of ToCa and DuCa are those of `upstream_exact` runs."""

    flags: Mapping[str, Any]
    published: tuple[Published, ...]


def _row(source: str, note: str = "", **numbers: float) -> Published:
    return Published(source, numbers, note)


def _dit(steps: int, *published: Published, ddim: bool = True, image_size: int | None = None, **flags: Any) -> Preset:
    run = dict(model="DiT-XL/2", image_size=image_size, ddim_sample=ddim, num_sampling_steps=steps, cfg_scale=1.5)
    return Preset(run | flags, published)


def _toca(interval: int) -> dict[str, Any]:
    return dict(method="toca", fresh_threshold=interval, fresh_ratio=0.07, ratio_scheduler="ToCa")


def _duca(interval: int, ratio: float = 0.05) -> dict[str, Any]:
    return dict(method="duca", fresh_threshold=interval, fresh_ratio=ratio, ratio_scheduler="ToCa")


def _fora(interval: int) -> dict[str, Any]:
    return dict(method="fora", fresh_threshold=interval)


def _taylorseer(interval: int, order: int) -> dict[str, Any]:
    return dict(method="taylorseer", interval=interval, max_order=order)


NONE = dict(method="none")
CHEBBOOSTER = "ChebBooster, table 1"
DIFFSPARSE = "DiffSparse (ICLR 2026), third-party note"
DIT_README = "DiT README"
GEORK2 = "GeoRK2 (CVPR 2026), third-party note"
PROCACHE = "ProCache (AAAI 2026), third-party note"
RESCA = "ResCa (CVPR 2026), third-party note"
SMOOTHCACHE = "SmoothCache, arXiv 2411.10510, table 1"
SODA = "SODA, arXiv 2603.07057, third-party note"
TAYLORSEER = "TaylorSeer, arXiv 2503.06923, third-party note"
TCPADE = "TC-Pade (CVPR 2026), third-party note"
TRACKER = "ToCa issue tracker"
MACS = "speed-up: ratio of the printed MACs"
NO_GUIDANCE = "guidance and sample count not stated"
NO_ORDER = "order not stated"
NO_RATIO = "ratio not stated"

DIT: Mapping[str, Preset] = {
    "ddim50": _dit(
        50,
        _row(PROCACHE, tflops=23.74, speedup=1.00, fid50k=2.43, sfid=4.40, inception_score=241.25, precision=0.80),
        _row(TAYLORSEER, speedup=1.00, fid50k=2.32, sfid=4.32, inception_score=241.25),
        _row(RESCA, tflops=23.74, speedup=1.00, fid50k=2.32, sfid=4.32),
        _row(SODA, speedup=1.00, fid50k=2.25, sfid=4.33, inception_score=239.97),
        _row(CHEBBOOSTER, tflops=23.735, speedup=1.000, fid50k=2.18, sfid=4.29, inception_score=251.56),
        _row(SMOOTHCACHE, fid50k=2.28, sfid=4.30, inception_score=241.6),
        _row(GEORK2, speedup=1.00, fid50k=2.51),
        **NONE,
    ),
    "fora2-ddim50": _dit(50, _row(SMOOTHCACHE, MACS, speedup=1.92, fid50k=2.65, sfid=4.69, inception_score=238.5), **_fora(2)),
    "fora3-ddim50": _dit(
        50,
        _row(PROCACHE, tflops=8.59, speedup=2.76, fid50k=3.88, sfid=6.43, inception_score=229.02, precision=0.79),
        _row(TAYLORSEER, speedup=2.77, fid50k=3.55, sfid=6.36, inception_score=229.02),
        _row(SMOOTHCACHE, MACS, speedup=2.77, fid50k=3.31, sfid=5.71, inception_score=230.1),
        **_fora(3),
    ),
    "fora5-ddim50": _dit(
        50,
        _row(TAYLORSEER, speedup=4.53, fid50k=6.58, sfid=11.29, inception_score=193.01),
        _row(GEORK2, speedup=4.51, fid50k=9.87),
        **_fora(5),
    ),
    "toca3-ddim50": _dit(
        50,
        _row(PROCACHE, tflops=10.23, speedup=2.32, fid50k=3.04, sfid=5.14, inception_score=230.70, precision=0.79),
        _row(f"{TRACKER} 19, the paper's value", fid50k=3.04),
        _row(f"{TRACKER} 19, a user's run", fid50k=3.9039),
        _row(DIFFSPARSE, "settings not stated", fid50k=3.05),
        **_toca(3),
    ),
    "duca3-ddim50": _dit(
        50,
        _row(TAYLORSEER, NO_RATIO, speedup=2.48, fid50k=2.88, sfid=4.66, inception_score=233.37),
        _row(RESCA, NO_RATIO, tflops=9.54, speedup=2.49, fid50k=2.85, sfid=4.64),
        _row(SODA, "settings not stated", speedup=2.48, fid50k=3.05, sfid=4.66, inception_score=233.21),
        **_duca(3),
    ),
    "duca5-ddim50": _dit(50, _row(TAYLORSEER, NO_RATIO, speedup=3.78, fid50k=6.06, sfid=6.72, inception_score=198.46), **_duca(5)),
    "taylorseer-n3-o1-ddim50": _dit(50, _row(RESCA, tflops=8.56, speedup=2.77, fid50k=2.49, sfid=4.81), **_taylorseer(3, 1)),
    "taylorseer-n3-o3-ddim50": _dit(
        50,
        _row(TAYLORSEER, speedup=2.77, fid50k=2.34, sfid=4.69, inception_score=238.42),
        _row(CHEBBOOSTER, NO_ORDER, tflops=8.570, speedup=2.770, fid50k=2.34, sfid=4.76, inception_score=247.00),
        _row(GEORK2, NO_ORDER, speedup=2.54, fid50k=2.73),
        **_taylorseer(3, 3),
    ),
    "taylorseer-n4-o4-ddim50": _dit(
        50,
        _row(TAYLORSEER, "FID: 0.17 above uncached", speedup=3.57, fid50k=2.49),
        _row(CHEBBOOSTER, NO_ORDER, tflops=6.676, speedup=3.555, fid50k=2.49, sfid=5.27, inception_score=244.20),
        **_taylorseer(4, 4),
    ),
    "taylorseer-n5-o3-ddim50": _dit(
        50,
        _row(TAYLORSEER, speedup=4.53, fid50k=2.65, sfid=5.36, inception_score=231.59),
        _row(CHEBBOOSTER, f"{NO_ORDER}; 12 full steps", tflops=5.725, speedup=4.146, fid50k=2.63, sfid=5.46, inception_score=241.83),
        _row(GEORK2, NO_ORDER, speedup=4.51, fid50k=4.31),
        **_taylorseer(5, 3),
    ),
    "ddim70": _dit(70, _row(SMOOTHCACHE, fid50k=2.17, sfid=4.33, inception_score=242.3), **NONE),
    "fora2-ddim70": _dit(70, _row(SMOOTHCACHE, MACS, speedup=1.94, fid50k=2.36, sfid=4.46, inception_score=242.2), **_fora(2)),
    "fora3-ddim70": _dit(70, _row(SMOOTHCACHE, MACS, speedup=2.91, fid50k=2.80, sfid=5.38, inception_score=238.0), **_fora(3)),
    "ddim30": _dit(30, _row(SMOOTHCACHE, fid50k=2.66, sfid=4.42, inception_score=234.6), **NONE),
    "fora2-ddim30": _dit(30, _row(SMOOTHCACHE, MACS, speedup=1.87, fid50k=3.79, sfid=5.72, inception_score=222.2), **_fora(2)),
    "ddim25": _dit(25, _row(CHEBBOOSTER, tflops=11.868, fid50k=2.75, sfid=4.55, inception_score=244.03), **NONE),
    "ddim20": _dit(20, _row(TCPADE, NO_GUIDANCE, fid50k=3.56, inception_score=221.27, precision=0.78), **NONE),
    "toca3-ddim20": _dit(20, _row(TCPADE, NO_GUIDANCE, fid50k=10.72, inception_score=164.40, precision=0.69), **_toca(3)),
    "taylorseer-n4-o4-ddim20": _dit(
        20,
        _row(TCPADE, f"{NO_GUIDANCE}, nor order", fid50k=7.86, inception_score=175.11, precision=0.71),
        **_taylorseer(4, 4),
    ),
    "ddim16": _dit(16, _row(CHEBBOOSTER, tflops=7.595, fid50k=4.24, sfid=5.69, inception_score=223.38), **NONE),
    "ddim15": _dit(15, _row(RESCA, "6.66 T is 14 steps", tflops=6.66, fid50k=4.75, sfid=8.43), **NONE),
    "ddim12": _dit(12, _row(CHEBBOOSTER, tflops=5.696, fid50k=7.07, sfid=8.05, inception_score=195.83), **NONE),
    "ddpm250": _dit(
        250,
        _row(SODA, speedup=1.00, fid50k=2.23, sfid=4.57, inception_score=275.65),
        _row(DIT_README, fid50k=2.27, inception_score=278.24),
        ddim=False,
        **NONE,
    ),
    "toca1-ddpm250": _dit(250, _row(f"{TRACKER} 11", "upstream still caches at N=1", tflops=103.549585270784), ddim=False, **_toca(1)),
    "toca4-ddpm250": _dit(
        250,
        _row(f"{TRACKER} 11", tflops=43.420574210048),
        _row(SODA, speedup=2.75, fid50k=2.58, sfid=5.74, inception_score=256.26),
        ddim=False,
        **_toca(4),
    ),
    "duca4-ddpm250": _dit(
        250,
        _row(SODA, "settings not stated, ours guessed", speedup=2.73, fid50k=2.59, sfid=5.68, inception_score=256.36),
        ddim=False,
        **_duca(4, 0.1),
    ),
    "ddpm250-512": _dit(250, _row(DIT_README, fid50k=3.04, inception_score=240.82), ddim=False, image_size=512, **NONE),
}  # fmt: skip

AVITS = "AViTS, table 1"
CHEBBOOSTER_2 = "ChebBooster, table 2"
FLUX_README = "ToCa README"
HYCA = "HyCa (ICLR 2026), table 2"
LINCA = "LinCa (ECCV 2026), table 1"
PROJECTED = "attention cached after its projection"


def _flux(*published: Published, **flags: Any) -> Preset:
    return Preset(flags, published)


def _flux_toca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **(_toca(interval) | dict(fresh_ratio=0.1)))


def _flux_duca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **_duca(interval, 0.1))


def _flux_taylorseer(interval: int, order: int, *published: Published) -> Preset:
    return _flux(*published, method="taylorseer", fresh_threshold=interval, max_order=order)


FLUX_DEV: Mapping[str, Preset] = {  # 1024 x 1024, 512 text tokens, 50 steps where no number of steps is set
    "none": _flux(
        _row(FLUX_README, tflops=3719.50, speedup=1.00, image_reward=0.9898, geneval=0.6752),
        _row(HYCA, tflops=3719.50, speedup=1.00, image_reward=0.9898),
        _row(LINCA, tflops=3719.50, speedup=1.00, image_reward=0.9930),
        _row(AVITS, tflops=3719.50, speedup=1.00, image_reward=0.9719),
        _row(CHEBBOOSTER_2, tflops=3719.500, speedup=1.000, image_reward=0.9613),
        **NONE,
    ),
    "steps30": _flux(
        _row(FLUX_README, tflops=2231.70, speedup=1.67, image_reward=0.9739, geneval=0.6700),
        _row(HYCA, tflops=2231.70, speedup=1.67, image_reward=0.9663),
        _row(CHEBBOOSTER_2, tflops=2231.700, speedup=1.667, image_reward=0.9715),
        num_steps=30,
        **NONE,
    ),
    "steps25": _flux(_row(FLUX_README, tflops=1859.75, speedup=2.00, image_reward=0.9429, geneval=0.6656), num_steps=25, **NONE),
    "steps20": _flux(
        _row(FLUX_README, "printed 2.62 contradicts the FLOPs", tflops=1487.80, speedup=2.62, image_reward=0.9317, geneval=0.6606),
        _row(CHEBBOOSTER_2, tflops=1487.800, speedup=2.500, image_reward=0.9838),
        num_steps=20,
        **NONE,
    ),
    "fora3": _flux(
        _row(FLUX_README, tflops=1320.07, speedup=2.82, image_reward=0.9227, geneval=0.6594),
        _row(HYCA, tflops=1320.07, speedup=2.82, image_reward=0.9776),
        _row(LINCA, tflops=1320.07, speedup=2.82, image_reward=0.9802),
        **_fora(3),
    ),
    "fora4": _flux(
        _row(HYCA, "FLOPs of 13 full steps alone", tflops=967.91, speedup=3.84, image_reward=0.9730),
        _row(LINCA, "FLOPs of 13 full steps alone", tflops=967.91, speedup=3.84, image_reward=0.9757),
        **_fora(4),
    ),
    "fora6": _flux(
        _row(HYCA, "FLOPs of 10 full steps, not of 9", tflops=744.80, speedup=4.99, image_reward=0.7760),
        _row(TAYLORSEER, speedup=4.99, image_reward=0.7761),
        **_fora(6),
    ),
    "toca4-01": _flux_toca(4, _row(FLUX_README, tflops=1263.22, speedup=2.94, image_reward=0.9798, geneval=0.6748)),
    "toca5-01": _flux_toca(
        5,
        _row(FLUX_README, tflops=1126.76, speedup=3.30, image_reward=0.9731, geneval=0.6750),
        _row(CHEBBOOSTER_2, PROJECTED, tflops=1064.060, speedup=3.496, image_reward=0.9881),
    ),
    "toca6-01": _flux_toca(
        6,
        _row(FLUX_README, tflops=990.30, speedup=3.76, image_reward=0.9493, geneval=0.6653),
        _row(HYCA, PROJECTED, tflops=924.30, speedup=4.02, image_reward=0.9802),
        _row(LINCA, PROJECTED, tflops=924.30, speedup=4.02, image_reward=0.9830),
        _row(AVITS, PROJECTED, tflops=924.30, speedup=4.02, image_reward=0.9702),
    ),
    "toca8-01": _flux_toca(
        8,
        _row(HYCA, PROJECTED, tflops=784.54, speedup=4.74, image_reward=0.9451),
        _row(LINCA, PROJECTED, tflops=784.54, speedup=4.74, image_reward=0.9479),
    ),
    "toca10-01": _flux_toca(
        10,
        _row(HYCA, PROJECTED, tflops=714.66, speedup=5.20, image_reward=0.7155),
        _row(AVITS, PROJECTED, tflops=714.66, speedup=5.20, image_reward=0.7055),
    ),
    "duca5": _flux_duca(
        5,
        _row(HYCA, PROJECTED, tflops=978.76, speedup=3.80, image_reward=0.9955),
        _row(AVITS, PROJECTED, tflops=978.76, speedup=3.80, image_reward=0.9855),
        _row(TAYLORSEER, speedup=3.45, image_reward=0.9896),
    ),
    "duca7": _flux_duca(
        7,
        _row(HYCA, PROJECTED, tflops=760.14, speedup=4.89, image_reward=0.9757),
        _row(LINCA, PROJECTED, tflops=760.14, speedup=4.89, image_reward=0.9785),
    ),
    "duca9": _flux_duca(
        9,
        _row(HYCA, PROJECTED, tflops=690.25, speedup=5.39, image_reward=0.8382),
        _row(AVITS, PROJECTED, tflops=690.25, speedup=5.39, image_reward=0.8182),
    ),
    "taylorseer-n3-o2": _flux_taylorseer(
        3,
        2,
        _row(HYCA, "FLOPs of 17 full steps, not of 18", tflops=1320.07, speedup=2.82, image_reward=0.9989),
        _row(TAYLORSEER, speedup=2.82, image_reward=1.0181),
    ),
    "taylorseer-n4-o2": _flux_taylorseer(
        4,
        2,
        _row(RESCA, tflops=1042.3, speedup=3.57, image_reward=0.9857),
        _row(HYCA, "FLOPs of 13 full steps, not of 14", tflops=967.91, speedup=3.84, image_reward=0.9857),
    ),
    "taylorseer-n5-o2": _flux_taylorseer(
        5,
        2,
        _row(HYCA, tflops=893.54, speedup=4.16, image_reward=0.9768),
        _row(LINCA, tflops=893.54, speedup=4.16, image_reward=0.9793),
        _row(CHEBBOOSTER_2, NO_ORDER, tflops=893.730, speedup=4.162, image_reward=0.9899),
        _row(RESCA, speedup=4.16, image_reward=0.9864),
    ),
    "taylorseer-n6-o1": _flux_taylorseer(
        6,
        1,
        _row(TAYLORSEER, speedup=4.99, image_reward=0.9953),
        _row(CHEBBOOSTER_2, NO_ORDER, tflops=745.103, speedup=4.992, image_reward=0.9946),
    ),
    "taylorseer-n6-o2": _flux_taylorseer(6, 2, _row(TAYLORSEER, speedup=4.99, image_reward=1.0039)),
    "taylorseer-n7-o2": _flux_taylorseer(7, 2, _row(HYCA, tflops=671.39, speedup=5.54, image_reward=0.9698)),
}  # fmt: skip

FLUX_OTHERS = {name: Preset(preset.flags, ()) for name, preset in FLUX_DEV.items()}  # nothing is printed for the other FLUX models

# ---- PixArt-alpha -------------------------------------------------------------------------------------------------------------------

ECAD = "ECAD, arXiv 2506.15682, table 1, third-party notes; own FID reference"
TOCA_ABSTRACT = "ToCa, arXiv 2410.05317, abstract"
TOCA_FROM_MEMORY = "ToCa, arXiv 2410.05317, table 1, from memory"
MEMORY_CONFIRMED = "FLOPs from memory; the rest also seen in print"


def _pixart(*published: Published, **flags: Any) -> Preset:
    run = dict(image_size=256, sampling_algo="dpm-solver", step=20, cfg_scale=4.5, text_tokens=24)
    return Preset(run | flags, published)


def _pixart_toca(ratio: float, *published: Published) -> Preset:
    return _pixart(*published, **(_toca(3) | dict(fresh_ratio=ratio)))


PIXART: Mapping[str, Preset] = {  # 256 pixels, DPM-Solver++, FID-30k on COCO captions; R of the paper is 1 - fresh_ratio
    "dpm20": _pixart(
        _row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=11.18, speedup=1.00, fid30k=28.12, clip=16.29),
        _row(PROCACHE, speedup=1.00, fid30k=28.12, clip=16.29),
        _row(SODA, speedup=1.00, fid30k=28.10, clip=16.29),
        _row(DIFFSPARSE, "2.86 T multiply-adds: another count", fid30k=28.20),
        _row(ECAD, image_reward=0.97, latency_speedup=1.00),
        **NONE,
    ),
    "dpm10": _pixart(_row(TOCA_FROM_MEMORY, tflops=5.59, speedup=2.00), step=10, **NONE),
    "fora2": _pixart(_row(TOCA_FROM_MEMORY, tflops=5.66, speedup=1.98, fid30k=29.67, clip=16.40), **_fora(2)),
    "fora3": _pixart(
        _row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=4.01, speedup=2.79, fid30k=29.88, clip=16.42),
        _row(PROCACHE, speedup=2.79, fid30k=29.84, clip=16.42),
        _row(ECAD, image_reward=0.83, latency_speedup=2.01),
        **_fora(3),
    ),
    "toca3-r60": _pixart_toca(
        0.4,
        _row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=6.33, speedup=1.77, fid30k=28.02, clip=16.45),
        _row(PROCACHE, speedup=1.77, fid30k=28.02, clip=16.43),
        _row(f"{TRACKER} 8", fid30k=28.02),
    ),
    "toca3-r70": _pixart_toca(
        0.3,
        _row(TOCA_ABSTRACT, speedup=1.93),
        _row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=5.78, speedup=1.93, fid30k=28.33, clip=16.44, latency_speedup=1.75),
        _row(f"{TRACKER} 11, a user's run at batch 16", latency_speedup=1.53),
        _row(DIFFSPARSE, "settings not stated", fid30k=28.35, latency_speedup=1.75),
    ),
    "toca3-r80": _pixart_toca(0.2, _row(TOCA_FROM_MEMORY, fid30k=28.82, clip=16.44)),
    "toca3-r90": _pixart_toca(
        0.1,
        _row(TOCA_FROM_MEMORY, fid30k=29.73, clip=16.45, latency_speedup=1.97),
        _row(f"{TRACKER} 25, a user's run", "no faster than uncached", latency_speedup=1.00),
        _row(ECAD, image_reward=0.68, latency_speedup=2.35),
    ),
    "duca3": _pixart(
        _row(SODA, "settings not stated, ours from DuCa's README", speedup=1.87, fid30k=28.05, clip=16.42),
        _row(DIFFSPARSE, "settings not stated", fid30k=27.98, latency_speedup=1.78),
        **_duca(3, 0.75),
    ),
    "taylorseer-n3-o1": _pixart(
        _row(DIFFSPARSE, "settings not stated, ours guessed", fid30k=29.08, latency_speedup=1.83),
        method="taylorseer",
        fresh_threshold=3,
        max_order=1,
    ),
}  # fmt: skip

# ---- Open-Sora ----------------------------------------------------------------------------------------------------------------------

ADACACHE = "AdaCache, arXiv 2411.02397, table 1, third-party note"
DUCA_FROM_MEMORY = "DuCa, arXiv 2412.18911, from memory"
DUCA_NOTE = "DuCa, arXiv 2412.18911, third-party note"
TOCA_REVIEW = "ToCa, arXiv 2410.05317, ICLR review quoting table 2"
TOCA_TABLE_2 = "ToCa, arXiv 2410.05317, table 2, from memory"


def _opensora_toca(ratio: float, *published: Published, method: str = "toca", cache_type: str = "attention") -> Preset:
    settings = dict(method=method, fresh_threshold=3, fresh_ratio=ratio, ratio_scheduler="ToCa", cache_type=cache_type)
    return Preset(settings, published)


OPENSORA: Mapping[str, Preset] = {  # v1.2, 480p 9:16, 51 frames, 30 steps; R of the paper is 1 - 1.495 fresh_ratio
    "none": Preset(
        NONE,
        (
            _row(TOCA_TABLE_2, tflops=3283.20, speedup=1.00, vbench=79.13, latency_speedup=1.00),
            _row(ADACACHE, "another count", tflops=3230.24, vbench=79.22, latency_speedup=1.00),
            _row(DUCA_NOTE, speedup=1.00, vbench=79.41),
        ),
    ),
    "fora": Preset(_fora(2), (_row(TOCA_TABLE_2, tflops=1751.32, speedup=1.87, vbench=76.91, latency_speedup=1.65),)),
    "toca-r80": _opensora_toca(0.13, _row(TOCA_TABLE_2, tflops=1439.70, speedup=2.28, vbench=78.59, latency_speedup=1.87)),
    "toca-r85": _opensora_toca(
        0.10,
        _row(TOCA_TABLE_2, tflops=1394.03, speedup=2.36, vbench=78.34, latency_speedup=1.88),
        _row(TOCA_ABSTRACT, speedup=2.36),
        _row(TOCA_REVIEW, vbench=78.34),
    ),
    "duca": _opensora_toca(
        0.10,
        _row(DUCA_FROM_MEMORY, "its counter is blind to the products of fused cross-attention", tflops=1315.6),
        _row(DUCA_NOTE, speedup=2.50, vbench=78.83),
        method="duca",
        cache_type="kv-norm",
    ),
    "taylorseer": Preset(dict(method="taylorseer", fresh_threshold=3, max_order=1), ()),
}  # fmt: skip

# ---- all ----------------------------------------------------------------------------------------------------------------------------

PRESETS: Mapping[str, Mapping[str, Preset]] = {  # by model
    "dit": DIT,
    "pixart": PIXART,
    "opensora": OPENSORA,
    "flux-dev": FLUX_DEV,
    **dict.fromkeys(("flux-schnell", "flux-dev-krea", "flux-dev-fill"), FLUX_OTHERS),
    **dict.fromkeys(("flux-dev-canny", "flux-dev-depth", "flux-dev-canny-lora", "flux-dev-depth-lora"), FLUX_OTHERS),
}


def parse_with_preset(
    parser: argparse.ArgumentParser, presets: Mapping[str, Preset], argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse flags; those of `--preset NAME` take the place of the defaults, so that flags given beside it win."""
    name = parser.parse_known_args(argv)[0].preset
    if name:
        parser.set_defaults(**presets[name].flags)
    return parser.parse_args(argv)
