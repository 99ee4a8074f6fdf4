"""Published settings of Open-Sora 1.2 by name, with the numbers printed for them."""

from __future__ import annotations

from collections.abc import Mapping

from toca.presets.rows import NONE, TOCA_ABSTRACT, Preset, duca, fora, row, toca

ADACACHE = "AdaCache, arXiv 2411.02397, table 1, third-party note"
DUCA_FROM_MEMORY = "DuCa, arXiv 2412.18911, from memory"
DUCA_NOTE = "DuCa, arXiv 2412.18911, third-party note"
TOCA_REVIEW = "ToCa, arXiv 2410.05317, ICLR review quoting table 2"
TOCA_TABLE_2 = "ToCa, arXiv 2410.05317, table 2, from memory"


OPENSORA: Mapping[str, Preset] = {  # v1.2, 480p 9:16, 51 frames, 30 steps; R of the paper is 1 - 1.495 fresh_ratio
    "none": Preset(
        NONE,
        (
            row(TOCA_TABLE_2, tflops=3283.20, speedup=1.00, vbench=79.13, latency_speedup=1.00),
            row(ADACACHE, "another count", tflops=3230.24, vbench=79.22, latency_speedup=1.00),
            row(DUCA_NOTE, speedup=1.00, vbench=79.41),
        ),
    ),
    "fora": Preset(fora(2), (row(TOCA_TABLE_2, tflops=1751.32, speedup=1.87, vbench=76.91, latency_speedup=1.65),)),
    "toca-r80": Preset(toca(3, 0.13), (row(TOCA_TABLE_2, tflops=1439.70, speedup=2.28, vbench=78.59, latency_speedup=1.87),)),
    "toca-r85": Preset(
        toca(3, 0.10),
        (
            row(TOCA_TABLE_2, tflops=1394.03, speedup=2.36, vbench=78.34, latency_speedup=1.88),
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
