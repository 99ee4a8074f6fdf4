"""Published settings by name, with the numbers printed for them. Flags carry their fork's spelling."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """flags: the settings of a run. published: quantity -> value as printed; the published FLOPs need `upstream_exact`. source: where."""

    flags: Mapping[str, Any]
    published: Mapping[str, float]
    source: str


def _ddim50(published: Mapping[str, float], source: str, **flags: Any) -> Preset:
    return Preset(dict(model="DiT-XL/2", image_size=256, ddim_sample=True, num_sampling_steps=50, cfg_scale=1.5, **flags), published, source)


def _ddpm250(published: Mapping[str, float], source: str, **flags: Any) -> Preset:
    return Preset(dict(model="DiT-XL/2", image_size=256, ddim_sample=False, num_sampling_steps=250, cfg_scale=1.5, **flags), published, source)


_TAYLORSEER = "TaylorSeer, arXiv 2503.06923, as reprinted"
_SODA = "SODA, arXiv 2603.07057, as reprinted"
_TOCA = "ToCa, arXiv 2410.05317, as reprinted by ProCache"

DIT: Mapping[str, Preset] = {
    "ddim50": _ddim50(dict(tflops=23.74, speedup=1.0, fid50k=2.43, sfid=4.40), _TOCA, method="none"),
    "fora3-ddim50": _ddim50(dict(tflops=8.59, speedup=2.76, fid50k=3.88, sfid=6.43), _TOCA, method="fora", fresh_threshold=3),
    "fora5-ddim50": _ddim50(dict(speedup=4.53, fid50k=6.58, sfid=11.29), _TAYLORSEER, method="fora", fresh_threshold=5),
    "toca3-ddim50": _ddim50(
        dict(tflops=10.23, speedup=2.32, fid50k=3.04, sfid=5.14), _TOCA, method="toca", fresh_threshold=3, fresh_ratio=0.07
    ),
    "duca3-ddim50": _ddim50(
        dict(tflops=9.54, speedup=2.49, fid50k=2.85, sfid=4.64),
        "DuCa, arXiv 2412.18911, as reprinted by ResCa",
        method="duca",
        fresh_threshold=3,
        fresh_ratio=0.05,
    ),
    "duca5-ddim50": _ddim50(dict(speedup=3.78, fid50k=6.06, sfid=6.72), _TAYLORSEER, method="duca", fresh_threshold=5, fresh_ratio=0.05),
    "taylorseer-n3-o1-ddim50": _ddim50(
        dict(tflops=8.56, speedup=2.77, fid50k=2.49, sfid=4.81), "ResCa, as reprinted", method="taylorseer", interval=3, max_order=1
    ),
    "taylorseer-n3-o3-ddim50": _ddim50(dict(speedup=2.77, fid50k=2.34, sfid=4.69), _TAYLORSEER, method="taylorseer", interval=3, max_order=3),
    "taylorseer-n4-o4-ddim50": _ddim50(dict(speedup=3.57, fid50k=2.49), _TAYLORSEER, method="taylorseer", interval=4, max_order=4),
    "taylorseer-n5-o3-ddim50": _ddim50(dict(speedup=4.53, fid50k=2.65, sfid=5.36), _TAYLORSEER, method="taylorseer", interval=5, max_order=3),
    "ddpm250": _ddpm250(dict(tflops=118.68, speedup=1.0, fid50k=2.23, sfid=4.57), _SODA, method="none"),
    "toca4-ddpm250": _ddpm250(
        dict(tflops=43.420574210048, speedup=2.75, fid50k=2.58, sfid=5.74),
        "ToCa's issue tracker (FLOPs) and SODA, as reprinted",
        method="toca",
        fresh_threshold=4,
        fresh_ratio=0.07,
    ),
}

PRESETS: Mapping[str, Mapping[str, Preset]] = {"dit": DIT}  # by fork


def parse_with_preset(parser: argparse.ArgumentParser, presets: Mapping[str, Preset], argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags; those of `--preset NAME` take the place of the defaults, so that flags given beside it win."""
    name = parser.parse_known_args(argv)[0].preset
    if name:
        parser.set_defaults(**presets[name].flags)
    return parser.parse_args(argv)
