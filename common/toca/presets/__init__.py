"""Published settings by name, with the numbers printed for them, one file per model. Flags carry their fork's spelling.

Many were read in other papers or in notes about them, which do not always agree; every row names its source.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from toca.presets.dit import DIT
from toca.presets.flux import FLUX_DEV, FLUX_PRINTED, FLUX_SCHNELL
from toca.presets.opensora import OPENSORA, OPENSORA_PRINTED
from toca.presets.pixart import PIXART
from toca.presets.rows import NUMBERS, Preset, Published

__all__ = [
    "DIT",
    "FLUX_DEV",
    "FLUX_OTHERS",
    "FLUX_SCHNELL",
    "NUMBERS",
    "OPENSORA",
    "PIXART",
    "PRINTED",
    "Preset",
    "Published",
    "parse_with_preset",
]

FLUX_OTHERS = {name: Preset(preset.flags, (), preset.baseline) for name, preset in FLUX_DEV.items()}  # nothing is printed for these
PRINTED: Mapping[str, Mapping[str, tuple[Published, ...]]] = {  # by model: rows that no setting of ours stands for, numbers alone
    "flux-dev": FLUX_PRINTED,
    "opensora": OPENSORA_PRINTED,
}


def parse_with_preset(
    parser: argparse.ArgumentParser, presets: Mapping[str, Preset], argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse flags; those of `--preset NAME` take the place of the defaults, so that flags given beside it win."""
    name = parser.parse_known_args(argv)[0].preset
    if name:
        parser.set_defaults(**presets[name].flags)
    return parser.parse_args(argv)
