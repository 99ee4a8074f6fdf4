"""Published settings of FLUX.1-dev and -schnell by name, with the numbers printed for them: 1024 x 1024; -dev: 512 text tokens, 50 steps.

Later papers count steps as the published code does, but for attention that is cached after its projection (the counter "projected").
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
TOCA_APPENDIX = "ToCa, arXiv 2410.05317 of December 2024, appendix, from memory"
OTHER_CODE = "the code of December 2024 counts other steps"


def _projected(source: str, **numbers: float) -> Published:
    return Published(source, numbers, "attention cached after its projection", counter="projected")


def _flux(*published: Published, **flags: Any) -> Preset:
    return Preset(flags, published, baseline=50)


def _flux_toca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **toca(interval, 0.1))


def _flux_duca(interval: int, *published: Published) -> Preset:
    return _flux(*published, **duca(interval, 0.1))


def _flux_taylorseer(interval: int, order: int, *published: Published) -> Preset:
    return _flux(*published, method="taylorseer", fresh_threshold=interval, max_order=order)


FLUX_DEV: Mapping[str, Preset] = {
    "none": _flux(
        row(FLUX_README, tflops=3719.50, speedup=1.00, image_reward=0.9898, geneval=0.6752, latency_s=33.87, latency_speedup=1.00),
        row(HYCA, tflops=3719.50, speedup=1.00, image_reward=0.9898, clip=32.404, latency_s=25.82, latency_speedup=1.00),
        row(TAYLORSEER, speedup=1.00, image_reward=0.9898, clip_other=19.604),
        row(TOCA_APPENDIX, tflops=3719.50, speedup=1.00, image_reward_parti=1.202),
        row(LINCA, tflops=3719.50, speedup=1.00, image_reward=0.9930, clip=32.61, latency_s=23.10, latency_speedup=1.00),
        row(AVITS, tflops=3719.50, speedup=1.00, image_reward=0.9719, clip=32.325, latency_s=25.78, latency_speedup=1.00),
        row(CHEBBOOSTER_2, tflops=3719.500, speedup=1.000, image_reward=0.9613, clip=31.63, latency_s=26.039, latency_speedup=1.000),
        **NONE,
    ),
    "steps34": _flux(
        row(TOCA_APPENDIX, tflops=2529.26, speedup=1.47, image_reward_parti=1.200),
        num_steps=34,
        **NONE,
    ),
    "steps30": _flux(
        row(FLUX_README, tflops=2231.70, speedup=1.67, image_reward=0.9739, geneval=0.6700, latency_s=20.49, latency_speedup=1.65),
        row(HYCA, tflops=2231.70, speedup=1.67, image_reward=0.9663, clip=32.312, latency_s=16.70, latency_speedup=1.55),
        row(CHEBBOOSTER_2, tflops=2231.700, speedup=1.667, image_reward=0.9715, clip=31.57, latency_s=16.123, latency_speedup=1.615),
        num_steps=30,
        **NONE,
    ),
    "steps25": _flux(
        row(FLUX_README, tflops=1859.75, speedup=2.00, image_reward=0.9429, geneval=0.6656, latency_s=17.12, latency_speedup=1.98),
        num_steps=25,
        **NONE,
    ),
    "steps20": _flux(
        row(
            FLUX_README,
            "printed 2.62 contradicts the FLOPs",
            tflops=1487.80,
            speedup=2.62,
            image_reward=0.9317,
            geneval=0.6606,
            latency_s=13.77,
            latency_speedup=2.45,
        ),
        row(CHEBBOOSTER_2, tflops=1487.800, speedup=2.500, image_reward=0.9838, clip=31.42, latency_s=13.470, latency_speedup=1.933),
        num_steps=20,
        **NONE,
    ),
    "steps17": _flux(
        row(
            HYCA,
            "printed 3.13 contradicts the FLOPs",
            tflops=1264.63,
            speedup=3.13,
            image_reward=0.9453,
            clip=32.114,
            latency_s=9.07,
            latency_speedup=2.85,
        ),
        row(
            LINCA,
            "printed 3.13 contradicts the FLOPs",
            tflops=1264.63,
            speedup=3.13,
            image_reward=0.9482,
            clip=32.28,
            latency_s=8.10,
            latency_speedup=2.85,
        ),
        num_steps=17,
        **NONE,
    ),
    "fora3": _flux(
        row(FLUX_README, tflops=1320.07, speedup=2.82, image_reward=0.9227, geneval=0.6594, latency_s=12.98, latency_speedup=2.61),
        row(HYCA, tflops=1320.07, speedup=2.82, image_reward=0.9776, clip=32.266, latency_s=10.16, latency_speedup=2.54),
        row(LINCA, tflops=1320.07, speedup=2.82, image_reward=0.9802, clip=32.45, latency_s=9.08, latency_speedup=2.54),
        **fora(3),
    ),
    "fora4": _flux(
        row(
            HYCA,
            "FLOPs of 13 full steps alone",
            tflops=967.91,
            speedup=3.84,
            image_reward=0.9730,
            clip=32.142,
            latency_s=8.12,
            latency_speedup=3.14,
        ),
        row(
            LINCA,
            "FLOPs of 13 full steps alone",
            tflops=967.91,
            speedup=3.84,
            image_reward=0.9757,
            clip=32.31,
            latency_s=7.28,
            latency_speedup=3.14,
        ),
        **fora(4),
    ),
    "fora6": _flux(
        row(
            HYCA,
            "FLOPs of 10 full steps, not of 9",
            tflops=744.80,
            speedup=4.99,
            image_reward=0.7760,
            clip=31.742,
            latency_s=8.17,
            latency_speedup=3.16,
        ),
        row(TAYLORSEER, speedup=4.99, image_reward=0.7761, clip_other=17.986, psnr=28.360, lpips=0.5177),
        **fora(6),
    ),
    "toca2-01": _flux_toca(2, row(TOCA_APPENDIX, OTHER_CODE, tflops=2458.06, speedup=1.51, image_reward_parti=1.202)),
    "toca4-01": _flux_toca(
        4, row(FLUX_README, tflops=1263.22, speedup=2.94, image_reward=0.9798, geneval=0.6748, latency_s=11.91, latency_speedup=2.84)
    ),
    "toca5-01": _flux_toca(
        5,
        row(FLUX_README, tflops=1126.76, speedup=3.30, image_reward=0.9731, geneval=0.6750, latency_s=10.80, latency_speedup=3.14),
        _projected(CHEBBOOSTER_2, tflops=1064.060, speedup=3.496, image_reward=0.9881, clip=31.36, latency_s=15.657, latency_speedup=1.663),
    ),
    "toca6-01": _flux_toca(
        6,
        row(FLUX_README, tflops=990.30, speedup=3.76, image_reward=0.9493, geneval=0.6653, latency_s=9.48, latency_speedup=3.57),
        _projected(HYCA, tflops=924.30, speedup=4.02, image_reward=0.9802, clip=32.083, latency_s=13.16, latency_speedup=1.96),
        _projected(LINCA, tflops=924.30, speedup=4.02, image_reward=0.9830, clip=32.25, latency_s=11.76, latency_speedup=1.96),
        _projected(AVITS, tflops=924.30, speedup=4.02, image_reward=0.9702, clip=32.083, latency_s=13.15, latency_speedup=1.96),
    ),
    "toca8-01": _flux_toca(
        8,
        _projected(HYCA, tflops=784.54, speedup=4.74, image_reward=0.9451, clip=31.993, latency_s=11.36, latency_speedup=2.27),
        _projected(LINCA, tflops=784.54, speedup=4.74, image_reward=0.9479, clip=32.16, latency_s=10.17, latency_speedup=2.27),
    ),
    "toca10-01": _flux_toca(
        10,
        _projected(HYCA, tflops=714.66, speedup=5.20, image_reward=0.7155, clip=31.808, latency_s=7.93, latency_speedup=3.25),
        _projected(AVITS, tflops=714.66, speedup=5.20, image_reward=0.7055, clip=31.808, latency_s=7.93, latency_speedup=3.25),
    ),
    "duca5": _flux_duca(
        5,
        _projected(HYCA, tflops=978.76, speedup=3.80, image_reward=0.9955, clip=32.241, latency_s=8.18, latency_speedup=3.15),
        _projected(AVITS, tflops=978.76, speedup=3.80, image_reward=0.9855, clip=32.241, latency_s=8.19, latency_speedup=3.15),
        row(TAYLORSEER, speedup=3.45, image_reward=0.9896, clip_other=19.595, psnr=29.413, lpips=0.3082),
    ),
    "duca7": _flux_duca(
        7,
        _projected(HYCA, tflops=760.14, speedup=4.89, image_reward=0.9757, clip=32.066, latency_s=6.74, latency_speedup=3.83),
        _projected(LINCA, tflops=760.14, speedup=4.89, image_reward=0.9785, clip=32.26, latency_s=6.06, latency_speedup=3.83),
    ),
    "duca9": _flux_duca(
        9,
        _projected(HYCA, tflops=690.25, speedup=5.39, image_reward=0.8382, clip=31.759, latency_s=7.27, latency_speedup=3.55),
        _projected(AVITS, tflops=690.25, speedup=5.39, image_reward=0.8182, clip=31.759, latency_s=7.26, latency_speedup=3.55),
    ),
    "taylorseer-n3-o2": _flux_taylorseer(
        3,
        2,
        row(
            HYCA,
            "FLOPs of 17 full steps, not of 18",
            tflops=1320.07,
            speedup=2.82,
            image_reward=0.9989,
            clip=32.413,
            latency_s=9.89,
            latency_speedup=2.61,
        ),
        row(TAYLORSEER, speedup=2.82, image_reward=1.0181, clip_other=19.397, psnr=30.762, lpips=0.2300),
    ),
    "taylorseer-n4-o2": _flux_taylorseer(
        4,
        2,
        row(RESCA, tflops=1042.3, speedup=3.57, image_reward=0.9857, clip_other=19.496, latency_s=9.24),
        row(
            HYCA,
            "FLOPs of 13 full steps, not of 14",
            tflops=967.91,
            speedup=3.84,
            image_reward=0.9857,
            clip=32.413,
            latency_s=9.24,
            latency_speedup=2.80,
        ),
    ),
    "taylorseer-n5-o2": _flux_taylorseer(
        5,
        2,
        row(HYCA, tflops=893.54, speedup=4.16, image_reward=0.9768, clip=32.467, latency_s=7.46, latency_speedup=3.46),
        row(LINCA, tflops=893.54, speedup=4.16, image_reward=0.9793, clip=32.63, latency_s=6.71, latency_speedup=3.46),
        row(
            CHEBBOOSTER_2, NO_ORDER, tflops=893.730, speedup=4.162, image_reward=0.9899, clip=31.60, latency_s=8.256, latency_speedup=3.154
        ),
        row(RESCA, speedup=4.16, image_reward=0.9864, clip_other=19.406),
    ),
    "taylorseer-n6-o1": _flux_taylorseer(
        6,
        1,
        row(TAYLORSEER, speedup=4.99, image_reward=0.9953, clip_other=19.637),
        row(
            CHEBBOOSTER_2, NO_ORDER, tflops=745.103, speedup=4.992, image_reward=0.9946, clip=31.69, latency_s=7.739, latency_speedup=3.365
        ),
    ),
    "taylorseer-n6-o2": _flux_taylorseer(
        6, 2, row(TAYLORSEER, speedup=4.99, image_reward=1.0039, clip_other=19.427, psnr=28.945, lpips=0.4020)
    ),
    "taylorseer-n7-o2": _flux_taylorseer(
        7,
        2,
        row(
            HYCA,
            "0.95 T above 9 full steps",
            tflops=671.39,
            speedup=5.54,
            image_reward=0.9698,
            clip=32.128,
            latency_s=6.77,
            latency_speedup=3.81,
        ),
    ),
}


def _schnell(*published: Published, **flags: Any) -> Preset:
    return Preset(flags, published, baseline=4)


FLUX_SCHNELL: Mapping[str, Preset] = {  # 1024 x 1024, 256 text tokens, 4 steps unless said; beside them the settings of -dev
    **{name: Preset(preset.flags, (), baseline=4) for name, preset in FLUX_DEV.items()},
    "none": _schnell(row(TOCA_APPENDIX, tflops=277.88, speedup=1.00, image_reward_parti=1.133), **NONE),
    "steps3": _schnell(row(TOCA_APPENDIX, tflops=208.41, speedup=1.33, image_reward_parti=1.139), num_steps=3, **NONE),
    "toca2-01": _schnell(row(TOCA_APPENDIX, OTHER_CODE, tflops=181.30, speedup=1.53, image_reward_parti=1.134), **toca(2, 0.1)),
}

FLUX_PRINTED: Mapping[str, tuple[Published, ...]] = {  # rows of -dev whose method is none of ours, or whose settings are not stated
    "FORA, settings not stated": (row(TOCA_APPENDIX, tflops=2483.32, speedup=1.51, image_reward_parti=1.196),),
    "Delta-DiT N=2": (
        row(HYCA, tflops=2480.01, speedup=1.50, image_reward=0.9444, clip=32.273, latency_s=17.80, latency_speedup=1.45),
        row(LINCA, tflops=2480.01, speedup=1.50, image_reward=0.9471, clip=32.46, latency_s=15.96, latency_speedup=1.45),
        row(CHEBBOOSTER_2, tflops=2480.000, speedup=1.500, image_reward=0.9360, clip=31.58, latency_s=18.085, latency_speedup=1.440),
    ),
    "Delta-DiT N=3": (
        row(TAYLORSEER, speedup=1.95, image_reward=0.8561, clip_other=18.833, psnr=28.794, lpips=0.4133),
        row(HYCA, tflops=1686.76, speedup=2.21, image_reward=0.8721, clip=32.102, latency_s=13.02, latency_speedup=1.98),
        row(LINCA, tflops=1686.76, speedup=2.21, image_reward=0.8750, clip=32.29, latency_s=11.63, latency_speedup=1.98),
        row(CHEBBOOSTER_2, tflops=1686.763, speedup=2.205, image_reward=0.8969, clip=31.53, latency_s=13.381, latency_speedup=1.946),
    ),
}
