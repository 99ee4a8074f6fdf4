"""Published settings of Open-Sora 1.2 by name, with the numbers printed for them."""

from __future__ import annotations

from collections.abc import Mapping

from toca.presets.rows import NONE, TOCA_ABSTRACT, Preset, Published, duca, fora, row, toca

ADACACHE = "AdaCache, arXiv 2411.02397, table 1, third-party note"
DUCA_FROM_MEMORY = "DuCa, arXiv 2412.18911, from memory"
DUCA_NOTE = "DuCa, arXiv 2412.18911, third-party note"
SMOOTHCACHE = "SmoothCache, arXiv 2411.10510, table 2"
TOCA_REVIEW = "ToCa, arXiv 2410.05317, ICLR review quoting table 2"
TOCA_TABLE_2 = "ToCa, arXiv 2410.05317, table 2, from memory"


OPENSORA: Mapping[str, Preset] = {  # v1.2, 480p 9:16, 51 frames, 30 steps; R of the paper is 1 - 1.495 fresh_ratio
    "none": Preset(
        NONE,
        (
            row(TOCA_TABLE_2, tflops=3283.20, speedup=1.00, vbench=79.13, latency_s=81.18, latency_speedup=1.00),
            row(ADACACHE, "another count", tflops=3230.24, vbench=79.22, latency_s=54.02, latency_speedup=1.00),
            row(DUCA_NOTE, speedup=1.00, vbench=79.41),
            row(SMOOTHCACHE, vbench=79.36, latency_s=28.43),
        ),
    ),
    "steps15": Preset(
        NONE | dict(num_sampling_steps=15),
        (row(TOCA_TABLE_2, tflops=1641.60, speedup=2.00, vbench=76.78, latency_s=42.72),),
        baseline=30,
    ),
    "fora": Preset(fora(2), (row(TOCA_TABLE_2, tflops=1751.32, speedup=1.87, vbench=76.91, latency_s=49.26, latency_speedup=1.65),)),
    "toca-r80": Preset(
        toca(3, 0.13),
        (row(TOCA_TABLE_2, tflops=1439.70, speedup=2.28, vbench=78.59, latency_s=43.52, latency_speedup=1.87),),
    ),
    "toca-r85": Preset(
        toca(3, 0.10),
        (
            row(TOCA_TABLE_2, tflops=1394.03, speedup=2.36, vbench=78.34, latency_s=43.08, latency_speedup=1.88),
            row(TOCA_ABSTRACT, speedup=2.36),
            row(TOCA_REVIEW, vbench=78.34),
        ),
    ),
    "duca": Preset(
        duca(3, 0.10) | dict(cache_type="kv-norm"),
        (
            row(DUCA_FROM_MEMORY, "its counter is blind to the products of fused cross-attention", tflops=1315.6),
            row(DUCA_NOTE, speedup=2.50, vbench=78.83),
        ),
    ),
    "taylorseer": Preset(dict(method="taylorseer", fresh_threshold=3, max_order=1), ()),
}  # fmt: skip

OPENSORA_PRINTED: Mapping[str, tuple[Published, ...]] = {  # rows of methods that are none of ours
    "Delta-DiT": (
        row(TOCA_TABLE_2, tflops=3166.47, speedup=1.04, vbench=78.21),
        row(ADACACHE, tflops=3166.47, vbench=78.21, psnr=11.91, lpips=0.5692),
    ),
    "T-GATE": (
        row(TOCA_TABLE_2, tflops=2818.40, speedup=1.16, vbench=77.61, latency_s=67.98),
        row(ADACACHE, tflops=2818.40, vbench=77.61, psnr=15.50, lpips=0.3495, latency_s=49.11, latency_speedup=1.10),
    ),
    "PAB 1": (
        row(TOCA_TABLE_2, tflops=2657.70, speedup=1.24, vbench=78.51, latency_s=60.78),
        row(TOCA_REVIEW, speedup=1.24, vbench=78.51),
        row(ADACACHE, "there called slow", tflops=2657.70, vbench=78.51, psnr=27.04, lpips=0.0925, latency_s=44.93, latency_speedup=1.20),
    ),
    "PAB 2": (row(TOCA_TABLE_2, tflops=2615.15, speedup=1.26, vbench=77.64, latency_s=59.16),),
    "PAB 3": (
        row(TOCA_TABLE_2, tflops=2558.25, speedup=1.28, vbench=76.95, latency_s=56.64),
        row(ADACACHE, "there called fast", tflops=2558.25, vbench=76.95, psnr=23.58, lpips=0.1743, latency_s=40.23, latency_speedup=1.34),
    ),
    "AdaCache fast": (row(ADACACHE, tflops=1331.97, vbench=79.39, psnr=24.92, lpips=0.0981, latency_s=24.16, latency_speedup=2.24),),
    "AdaCache slow": (row(ADACACHE, tflops=2195.50, vbench=79.66, psnr=29.97, lpips=0.0456, latency_s=37.01, latency_speedup=1.46),),
    "SmoothCache 0.02": (row(SMOOTHCACHE, vbench=78.76, psnr=11.08, lpips=0.5852, latency_s=26.57),),
    "SmoothCache 0.03": (row(SMOOTHCACHE, vbench=78.10, psnr=12.62, lpips=0.5347, latency_s=26.17),),
}
