"""Published settings of DiT-XL/2 by name, with the numbers printed for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toca.presets.rows import (
    DIFFSPARSE,
    NO_ORDER,
    NONE,
    PROCACHE,
    RESCA,
    SODA,
    TAYLORSEER,
    TRACKER,
    Preset,
    Published,
    duca,
    fora,
    row,
    toca,
)

CHEBBOOSTER = "ChebBooster, table 1"
DIT_README = "DiT README"
GEORK2 = "GeoRK2 (CVPR 2026), third-party note"
SMOOTHCACHE = "SmoothCache, arXiv 2411.10510, table 1"
TCPADE = "TC-Pade (CVPR 2026), third-party note"
MACS = "speed-up: ratio of the printed MACs"
NO_GUIDANCE = "guidance and sample count not stated"
NO_RATIO = "ratio not stated"


def _dit(
    steps: int, *published: Published, ddim: bool = True, image_size: int | None = None, baseline: int | None = None, **flags: Any
) -> Preset:
    run = dict(model="DiT-XL/2", image_size=image_size, ddim_sample=ddim, num_sampling_steps=steps, cfg_scale=1.5)
    return Preset(run | flags, published, baseline or steps)


def _taylorseer(interval: int, order: int) -> dict[str, Any]:
    return dict(method="taylorseer", interval=interval, max_order=order)


DIT: Mapping[str, Preset] = {
    "ddim50": _dit(
        50,
        row(PROCACHE, tflops=23.74, speedup=1.00, fid50k=2.43, sfid=4.40, inception_score=241.25, precision=0.80, latency_s=4.549),
        row(TAYLORSEER, speedup=1.00, fid50k=2.32, sfid=4.32, inception_score=241.25),
        row(RESCA, tflops=23.74, speedup=1.00, fid50k=2.32, sfid=4.32),
        row(SODA, speedup=1.00, fid50k=2.25, sfid=4.33, inception_score=239.97),
        row(CHEBBOOSTER, tflops=23.735, speedup=1.000, fid50k=2.18, sfid=4.29, inception_score=251.56),
        row(SMOOTHCACHE, fid50k=2.28, sfid=4.30, inception_score=241.6),
        row(GEORK2, speedup=1.00, fid50k=2.51, latency_s=8.38),
        **NONE,
    ),
    "fora2-ddim50": _dit(50, row(SMOOTHCACHE, MACS, speedup=1.92, fid50k=2.65, sfid=4.69, inception_score=238.5), **fora(2)),
    "fora3-ddim50": _dit(
        50,
        row(PROCACHE, tflops=8.59, speedup=2.76, fid50k=3.88, sfid=6.43, inception_score=229.02, precision=0.79, latency_s=2.191),
        row(TAYLORSEER, speedup=2.77, fid50k=3.55, sfid=6.36, inception_score=229.02),
        row(SMOOTHCACHE, MACS, speedup=2.77, fid50k=3.31, sfid=5.71, inception_score=230.1),
        **fora(3),
    ),
    "fora5-ddim50": _dit(
        50,
        row(TAYLORSEER, speedup=4.53, fid50k=6.58, sfid=11.29, inception_score=193.01),
        row(GEORK2, speedup=4.51, fid50k=9.87, latency_s=2.86),
        **fora(5),
    ),
    "toca3-ddim50": _dit(
        50,
        row(PROCACHE, tflops=10.23, speedup=2.32, fid50k=3.04, sfid=5.14, inception_score=230.70, precision=0.79, latency_s=2.087),
        row(f"{TRACKER} 19, the paper's value", fid50k=3.04),
        row(f"{TRACKER} 19, a user's run", fid50k=3.9039),
        row(DIFFSPARSE, "settings not stated", fid50k=3.05),
        **toca(3, 0.07),
    ),
    "duca3-ddim50": _dit(
        50,
        row(TAYLORSEER, NO_RATIO, speedup=2.48, fid50k=2.88, sfid=4.66, inception_score=233.37),
        row(RESCA, NO_RATIO, tflops=9.54, speedup=2.49, fid50k=2.85, sfid=4.64),
        row(SODA, "settings not stated", speedup=2.48, fid50k=3.05, sfid=4.66, inception_score=233.21),
        **duca(3, 0.05),
    ),
    "duca5-ddim50": _dit(50, row(TAYLORSEER, NO_RATIO, speedup=3.78, fid50k=6.06, sfid=6.72, inception_score=198.46), **duca(5, 0.05)),
    "taylorseer-n3-o1-ddim50": _dit(50, row(RESCA, tflops=8.56, speedup=2.77, fid50k=2.49, sfid=4.81), **_taylorseer(3, 1)),
    "taylorseer-n3-o3-ddim50": _dit(
        50,
        row(TAYLORSEER, speedup=2.77, fid50k=2.34, sfid=4.69, inception_score=238.42),
        row(CHEBBOOSTER, NO_ORDER, tflops=8.570, speedup=2.770, fid50k=2.34, sfid=4.76, inception_score=247.00),
        row(GEORK2, NO_ORDER, speedup=2.54, fid50k=2.73, latency_s=4.82),
        **_taylorseer(3, 3),
    ),
    "taylorseer-n4-o4-ddim50": _dit(
        50,
        row(TAYLORSEER, "FID: 0.17 above uncached", speedup=3.57, fid50k=2.49),
        row(CHEBBOOSTER, NO_ORDER, tflops=6.676, speedup=3.555, fid50k=2.49, sfid=5.27, inception_score=244.20),
        **_taylorseer(4, 4),
    ),
    "taylorseer-n5-o3-ddim50": _dit(
        50,
        row(TAYLORSEER, speedup=4.53, fid50k=2.65, sfid=5.36, inception_score=231.59),
        row(CHEBBOOSTER, f"{NO_ORDER}; 12 full steps", tflops=5.725, speedup=4.146, fid50k=2.63, sfid=5.46, inception_score=241.83),
        row(GEORK2, NO_ORDER, speedup=4.51, fid50k=4.31, latency_s=3.68),
        **_taylorseer(5, 3),
    ),
    "ddim70": _dit(70, row(SMOOTHCACHE, fid50k=2.17, sfid=4.33, inception_score=242.3), **NONE),
    "fora2-ddim70": _dit(70, row(SMOOTHCACHE, MACS, speedup=1.94, fid50k=2.36, sfid=4.46, inception_score=242.2), **fora(2)),
    "fora3-ddim70": _dit(70, row(SMOOTHCACHE, MACS, speedup=2.91, fid50k=2.80, sfid=5.38, inception_score=238.0), **fora(3)),
    "ddim30": _dit(30, row(SMOOTHCACHE, fid50k=2.66, sfid=4.42, inception_score=234.6), **NONE),
    "fora2-ddim30": _dit(30, row(SMOOTHCACHE, MACS, speedup=1.87, fid50k=3.79, sfid=5.72, inception_score=222.2), **fora(2)),
    "ddim25": _dit(25, row(CHEBBOOSTER, tflops=11.868, fid50k=2.75, sfid=4.55, inception_score=244.03), baseline=50, **NONE),
    "ddim20": _dit(20, row(TCPADE, NO_GUIDANCE, fid50k=3.56, inception_score=221.27, precision=0.78), **NONE),
    "toca3-ddim20": _dit(20, row(TCPADE, NO_GUIDANCE, fid50k=10.72, inception_score=164.40, precision=0.69), **toca(3, 0.07)),
    "taylorseer-n4-o4-ddim20": _dit(
        20,
        row(TCPADE, f"{NO_GUIDANCE}, nor order", fid50k=7.86, inception_score=175.11, precision=0.71),
        **_taylorseer(4, 4),
    ),
    "ddim16": _dit(16, row(CHEBBOOSTER, tflops=7.595, fid50k=4.24, sfid=5.69, inception_score=223.38), baseline=50, **NONE),
    "ddim15": _dit(15, row(RESCA, "6.66 T is 14 steps", tflops=6.66, fid50k=4.75, sfid=8.43), baseline=50, **NONE),
    "ddim12": _dit(12, row(CHEBBOOSTER, tflops=5.696, fid50k=7.07, sfid=8.05, inception_score=195.83), baseline=50, **NONE),
    "ddpm250": _dit(
        250,
        row(SODA, speedup=1.00, fid50k=2.23, sfid=4.57, inception_score=275.65),
        row(DIT_README, fid50k=2.27, inception_score=278.24),
        ddim=False,
        **NONE,
    ),
    "toca1-ddpm250": _dit(250, row(f"{TRACKER} 11", "upstream still caches at N=1", tflops=103.549585270784), ddim=False, **toca(1, 0.07)),
    "toca4-ddpm250": _dit(
        250,
        row(f"{TRACKER} 11", tflops=43.420574210048),
        row(SODA, speedup=2.75, fid50k=2.58, sfid=5.74, inception_score=256.26),
        ddim=False,
        **toca(4, 0.07),
    ),
    "duca4-ddpm250": _dit(
        250,
        row(SODA, "settings not stated, ours guessed", speedup=2.73, fid50k=2.59, sfid=5.68, inception_score=256.36),
        ddim=False,
        **duca(4, 0.1),
    ),
    "ddpm250-512": _dit(250, row(DIT_README, fid50k=3.04, inception_score=240.82), ddim=False, image_size=512, **NONE),
}  # fmt: skip
