"""VBench (Huang et al., arXiv 2311.17982): its sixteen dimensions, and the scores that tables print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

RESULTS = "{dimension}_eval_results.json"  # what the official scorer writes for a dimension


@dataclass(frozen=True)
class Dimension:
    """low, high: what the official table scales to 0 and 1. weight: within its group. quality: its group, else semantic."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    quality: bool = False


DIMENSIONS: Mapping[str, Dimension] = {
    "subject_consistency": Dimension(0.1462, 1.0, quality=True),
    "background_consistency": Dimension(0.2615, 1.0, quality=True),
    "temporal_flickering": Dimension(0.6293, 1.0, quality=True),
    "motion_smoothness": Dimension(0.706, 0.9975, quality=True),
    "aesthetic_quality": Dimension(quality=True),
    "imaging_quality": Dimension(quality=True),
    "dynamic_degree": Dimension(weight=0.5, quality=True),
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(0.0, 0.8222),
    "appearance_style": Dimension(0.0009, 0.2855),
    "temporal_style": Dimension(0.0, 0.364),
    "overall_consistency": Dimension(0.0, 0.364),
}


@dataclass(frozen=True)
class Scores:
    """Shares of 1. scaled: by dimension. total: (4 quality + semantic) / 5."""

    scaled: Mapping[str, float]
    quality: float
    semantic: float
    total: float


def summary(raw: Mapping[str, float]) -> Scores:
    """raw: the official scorer's number of every dimension. Raises ValueError if one is missing, unknown or no number."""
    if raw.keys() != DIMENSIONS.keys():
        lacking, unknown = sorted(DIMENSIONS.keys() - raw.keys()), sorted(raw.keys() - DIMENSIONS.keys())
        raise ValueError(f"the sixteen dimensions of VBench are wanted; missing: {lacking or 'none'}, unknown: {unknown or 'none'}")
    if bad := [name for name, value in raw.items() if not 0 <= value <= 1]:
        raise ValueError(f"scores of VBench are shares of 1; {bad[0]} is {raw[bad[0]]}")
    scaled = {name: (raw[name] - at.low) / (at.high - at.low) for name, at in DIMENSIONS.items()}
    groups = {quality: [name for name, at in DIMENSIONS.items() if at.quality is quality] for quality in (True, False)}
    quality, semantic = (
        fmean((scaled[name] for name in names), weights=[DIMENSIONS[name].weight for name in names]) for names in groups.values()
    )
    return Scores(scaled, quality, semantic, (4 * quality + semantic) / 5)


def collect(folder: Path) -> dict[str, float]:
    """The raw scores that the official scorer left in a folder, a file a dimension. Raises ValueError naming what lacks or is damaged."""
    raw = {}
    for name in DIMENSIONS:
        path = folder / RESULTS.format(dimension=name)
        if not path.is_file():
            raise ValueError(f"{folder} lacks {path.name}: run the official scorer on that dimension first")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))[name]
            raw[name] = float(value[0] if isinstance(value, list) else value)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path} is no result of VBench's scorer: it lacks {name!r} ({error})") from error
        if name == "imaging_quality" and raw[name] > 1:
            raw[name] /= 100  # versions before 0.1.2 print percent
    return raw
