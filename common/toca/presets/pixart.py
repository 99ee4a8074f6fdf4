"""Published settings of PixArt-alpha XL/2 by name, with the numbers printed for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toca.presets.rows import DIFFSPARSE, NONE, PROCACHE, SODA, TOCA_ABSTRACT, TRACKER, Preset, Published, duca, fora, row, toca

ECAD = "ECAD, arXiv 2506.15682, table 1, third-party notes; own FID reference"
TOCA_FROM_MEMORY = "ToCa, arXiv 2410.05317, table 1, from memory"
MEMORY_CONFIRMED = "FLOPs from memory; the rest also seen in print"
SECONDS_TOO = "FLOPs and seconds from memory; the rest also seen in print"


def _pixart(*published: Published, **flags: Any) -> Preset:
    run = dict(image_size=256, sampling_algo="dpm-solver", step=20, cfg_scale=4.5, text_tokens=24)
    return Preset(run | flags, published, baseline=20)


def _pixart_toca(ratio: float, *published: Published) -> Preset:
    return _pixart(*published, **toca(3, ratio))


PIXART: Mapping[str, Preset] = {  # 256 pixels, DPM-Solver++, FID-30k on COCO captions; R of the paper is 1 - fresh_ratio
    "dpm20": _pixart(
        row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=11.18, speedup=1.00, fid30k=28.12, clip=16.29, latency_s=0.682),
        row(PROCACHE, speedup=1.00, fid30k=28.12, clip=16.29, latency_s=2.142),
        row(SODA, speedup=1.00, fid30k=28.10, clip=16.29),
        row(DIFFSPARSE, "2.86 T multiply-adds: another count", fid30k=28.20),
        row(ECAD, image_reward=0.97, latency_speedup=1.00),
        **NONE,
    ),
    "dpm10": _pixart(row(TOCA_FROM_MEMORY, tflops=5.59, speedup=2.00, latency_s=0.391), step=10, **NONE),
    "fora2": _pixart(row(TOCA_FROM_MEMORY, tflops=5.66, speedup=1.98, fid30k=29.67, clip=16.40, latency_s=0.416), **fora(2)),
    "fora3": _pixart(
        row(TOCA_FROM_MEMORY, SECONDS_TOO, tflops=4.01, speedup=2.79, fid30k=29.88, clip=16.42, latency_s=0.342),
        row(PROCACHE, speedup=2.79, fid30k=29.84, clip=16.42, latency_s=1.301),
        row(ECAD, image_reward=0.83, latency_speedup=2.01),
        **fora(3),
    ),
    "toca3-r60": _pixart_toca(
        0.4,
        row(TOCA_FROM_MEMORY, SECONDS_TOO, tflops=6.33, speedup=1.77, fid30k=28.02, clip=16.45, latency_s=0.410),
        row(PROCACHE, speedup=1.77, fid30k=28.02, clip=16.43, latency_s=1.473),
        row(f"{TRACKER} 8", fid30k=28.02),
    ),
    "toca3-r70": _pixart_toca(
        0.3,
        row(TOCA_ABSTRACT, speedup=1.93),
        row(TOCA_FROM_MEMORY, MEMORY_CONFIRMED, tflops=5.78, speedup=1.93, fid30k=28.33, clip=16.44, latency_s=0.390, latency_speedup=1.75),
        row(f"{TRACKER} 11, a user's run at batch 16", latency_speedup=1.53),
        row(DIFFSPARSE, "settings not stated", fid30k=28.35, latency_speedup=1.75),
    ),
    "toca3-r80": _pixart_toca(0.2, row(TOCA_FROM_MEMORY, fid30k=28.82, clip=16.44, latency_s=0.370)),
    "toca3-r90": _pixart_toca(
        0.1,
        row(TOCA_FROM_MEMORY, fid30k=29.73, clip=16.45, latency_s=0.347, latency_speedup=1.97),
        row(f"{TRACKER} 25, a user's run", "no faster than uncached", latency_speedup=1.00),
        row(ECAD, image_reward=0.68, latency_speedup=2.35),
    ),
    "duca3": _pixart(
        row(SODA, "settings not stated, ours from DuCa's README", speedup=1.87, fid30k=28.05, clip=16.42),
        row(DIFFSPARSE, "settings not stated", fid30k=27.98, latency_speedup=1.78),
        **duca(3, 0.75),
    ),
    "taylorseer-n3-o1": _pixart(
        row(DIFFSPARSE, "settings not stated, ours guessed", fid30k=29.08, latency_speedup=1.83),
        method="taylorseer",
        fresh_threshold=3,
        max_order=1,
    ),
}  # fmt: skip
