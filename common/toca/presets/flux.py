"""Published settings of FLUX.1-dev by name, with the numbers printed for them: 1024 x 1024, 512 text tokens, 50 steps unless said.

Later papers count steps as the published code does, but for attention that is cached after its projection (`flux.spec`, "projected").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toca.presets.rows import NO_ORDER, NONE, RESCA, TAYLORSEER, Preset, Published, duca, fora, row, toca

AVITS = "AViTS, table 1"
CHEBBOOSTER_2 = "ChebBooster, table 2"
FLUX_README = "ToCa README"
HYCA = "HyCa (ICLR 2026), table 2"
LINCA = "LinCa (ECCV 2026), table 1"

def _projected(source: str, **numbers: float) -> Published:
    return Published(source, numbers, "attention cached after its projection", counter="projected")


def _flux(*published: Published, **flags: Any) -> Preset:
    return Preset(flags, published)


def _flux_toca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **toca(interval, 0.1))


def _flux_duca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **duca(interval, 0.1))


def _flux_taylorseer(interval: int, order: int, *published: Published) -> Preset:
    return _flux(*published, method="taylorseer", fresh_threshold=interval, max_order=order)


FLUX_DEV: Mapping[str, Preset] = {
    "none": _flux(
        row(FLUX_README, tflops=3719.50, speedup=1.00, image_reward=0.9898, geneval=0.6752),
        row(HYCA, tflops=3719.50, speedup=1.00, image_reward=0.9898),
        row(LINCA, tflops=3719.50, speedup=1.00, image_reward=0.9930),
        row(AVITS, tflops=3719.50, speedup=1.00, image_reward=0.9719),
        row(CHEBBOOSTER_2, tflops=3719.500, speedup=1.000, image_reward=0.9613),
        **NONE,
    ),
    "steps30": _flux(
        row(FLUX_README, tflops=2231.70, speedup=1.67, image_reward=0.9739, geneval=0.6700),
        row(HYCA, tflops=2231.70, speedup=1.67, image_reward=0.9663),
        row(CHEBBOOSTER_2, tflops=2231.700, speedup=1.667, image_reward=0.9715),
        num_steps=30,
        **NONE,
    ),
    "steps25": _flux(row(FLUX_README, tflops=1859.75, speedup=2.00, image_reward=0.9429, geneval=0.6656), num_steps=25, **NONE),
    "steps20": _flux(
        row(FLUX_README, "printed 2.62 contradicts the FLOPs", tflops=1487.80, speedup=2.62, image_reward=0.9317, geneval=0.6606),
        row(CHEBBOOSTER_2, tflops=1487.800, speedup=2.500, image_reward=0.9838),
        num_steps=20,
        **NONE,
    ),
    "fora3": _flux(
        row(FLUX_README, tflops=1320.07, speedup=2.82, image_reward=0.9227, geneval=0.6594),
        row(HYCA, tflops=1320.07, speedup=2.82, image_reward=0.9776),
        row(LINCA, tflops=1320.07, speedup=2.82, image_reward=0.9802),
        **fora(3),
    ),
    "fora4": _flux(
        row(HYCA, "FLOPs of 13 full steps alone", tflops=967.91, speedup=3.84, image_reward=0.9730),
        row(LINCA, "FLOPs of 13 full steps alone", tflops=967.91, speedup=3.84, image_reward=0.9757),
        **fora(4),
    ),
    "fora6": _flux(
        row(HYCA, "FLOPs of 10 full steps, not of 9", tflops=744.80, speedup=4.99, image_reward=0.7760),
        row(TAYLORSEER, speedup=4.99, image_reward=0.7761),
        **fora(6),
    ),
    "toca4-01": _flux_toca(4, row(FLUX_README, tflops=1263.22, speedup=2.94, image_reward=0.9798, geneval=0.6748)),
    "toca5-01": _flux_toca(
        5,
        row(FLUX_README, tflops=1126.76, speedup=3.30, image_reward=0.9731, geneval=0.6750),
        _projected(CHEBBOOSTER_2, tflops=1064.060, speedup=3.496, image_reward=0.9881),
    ),
    "toca6-01": _flux_toca(
        6,
        row(FLUX_README, tflops=990.30, speedup=3.76, image_reward=0.9493, geneval=0.6653),
        _projected(HYCA, tflops=924.30, speedup=4.02, image_reward=0.9802),
        _projected(LINCA, tflops=924.30, speedup=4.02, image_reward=0.9830),
        _projected(AVITS, tflops=924.30, speedup=4.02, image_reward=0.9702),
    ),
    "toca8-01": _flux_toca(
        8,
        _projected(HYCA, tflops=784.54, speedup=4.74, image_reward=0.9451),
        _projected(LINCA, tflops=784.54, speedup=4.74, image_reward=0.9479),
    ),
    "toca10-01": _flux_toca(
        10,
        _projected(HYCA, tflops=714.66, speedup=5.20, image_reward=0.7155),
        _projected(AVITS, tflops=714.66, speedup=5.20, image_reward=0.7055),
    ),
    "duca5": _flux_duca(
        5,
        _projected(HYCA, tflops=978.76, speedup=3.80, image_reward=0.9955),
        _projected(AVITS, tflops=978.76, speedup=3.80, image_reward=0.9855),
        row(TAYLORSEER, speedup=3.45, image_reward=0.9896),
    ),
    "duca7": _flux_duca(
        7,
        _projected(HYCA, tflops=760.14, speedup=4.89, image_reward=0.9757),
        _projected(LINCA, tflops=760.14, speedup=4.89, image_reward=0.9785),
    ),
    "duca9": _flux_duca(
        9,
        _projected(HYCA, tflops=690.25, speedup=5.39, image_reward=0.8382),
        _projected(AVITS, tflops=690.25, speedup=5.39, image_reward=0.8182),
    ),
    "taylorseer-n3-o2": _flux_taylorseer(
        3,
        2,
        row(HYCA, "FLOPs of 17 full steps, not of 18", tflops=1320.07, speedup=2.82, image_reward=0.9989),
        row(TAYLORSEER, speedup=2.82, image_reward=1.0181),
    ),
    "taylorseer-n4-o2": _flux_taylorseer(
        4,
        2,
        row(RESCA, tflops=1042.3, speedup=3.57, image_reward=0.9857),
        row(HYCA, "FLOPs of 13 full steps, not of 14", tflops=967.91, speedup=3.84, image_reward=0.9857),
    ),
    "taylorseer-n5-o2": _flux_taylorseer(
        5,
        2,
        row(HYCA, tflops=893.54, speedup=4.16, image_reward=0.9768),
        row(LINCA, tflops=893.54, speedup=4.16, image_reward=0.9793),
        row(CHEBBOOSTER_2, NO_ORDER, tflops=893.730, speedup=4.162, image_reward=0.9899),
        row(RESCA, speedup=4.16, image_reward=0.9864),
    ),
    "taylorseer-n6-o1": _flux_taylorseer(
        6,
        1,
        row(TAYLORSEER, speedup=4.99, image_reward=0.9953),
        row(CHEBBOOSTER_2, NO_ORDER, tflops=745.103, speedup=4.992, image_reward=0.9946),
    ),
    "taylorseer-n6-o2": _flux_taylorseer(6, 2, row(TAYLORSEER, speedup=4.99, image_reward=1.0039)),
    "taylorseer-n7-o2": _flux_taylorseer(7, 2, row(HYCA, tflops=671.39, speedup=5.54, image_reward=0.9698)),
}  # fmt: skip
