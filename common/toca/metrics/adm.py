"""FID, sFID, Inception Score, precision and recall, as ADM's evaluator has them: samples against a reference, both .npz files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from toca.metrics.frechet import Gaussian, Moments, frechet_distance, inception_score, precision_recall
from toca.metrics.inception import Features
from toca.metrics.sources import Pictures, pictures
from toca.runs.files import atomic_path

BATCH, CHUNK = 64, 1024  # pictures in the network; pictures whose features are one file, while a run is on its way
Network = Callable[[Pictures], Features]


@dataclass(frozen=True)
class Measured:
    """What a set of pictures is known by.

    pool: (N, 2048).
    pool_gaussian, spatial_gaussian: of FID and of sFID.
    probabilities: (N, 1008).
    """

    pool: Tensor
    pool_gaussian: Gaussian
    spatial_gaussian: Gaussian
    probabilities: Tensor


@dataclass(frozen=True)
class Scores:
    """sfid, precision, recall: None where the reference brings no spatial statistics, or no pictures."""

    fid: float
    sfid: float | None
    inception_score: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Statistics:
    """What a reference file brings beside its pictures, or in their place: of the whole training set, of which they are a part."""

    pool: Gaussian
    spatial: Gaussian | None


def measure(chunks: Iterable[Pictures], network: Network, folder: Path | None = None, batch: int = BATCH) -> Measured:
    """Features of all pictures, which come in chunks; those of finished chunks are kept in `folder`, where a killed run goes on.

    Raises ValueError if there are fewer than two pictures, or a file in the folder is damaged.
    """
    pool, probabilities, pools, spatials = [], [], Moments(), Moments()
    for number, some in enumerate(chunks):
        features = _chunk(some, network, folder and folder / f"{number:05d}.safetensors", batch)
        pools.add(features.pool)
        spatials.add(features.spatial)
        pool.append(features.pool)
        probabilities.append(features.probabilities)
    return Measured(torch.cat(pool) if pool else torch.empty(0), pools.gaussian(), spatials.gaussian(), torch.cat(probabilities))


def _chunk(pictures: Pictures, network: Network, path: Path | None, batch: int) -> Features:
    if path and path.exists():
        try:
            return Features(**load_file(path))
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path} is damaged: remove it ({error})") from error
    parts = [network(pictures[start : start + batch]) for start in range(0, len(pictures), batch)]
    features = Features(*(torch.cat([part.cpu() for part in column]) for column in zip(*parts, strict=True)))
    if path:
        with atomic_path(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in features._asdict().items()}, part)
    return features


def reference_statistics(path: Path) -> Statistics | None:
    """The statistics in a reference file: `mu`, `sigma`, and `mu_s`, `sigma_s` in those of ADM; None if it holds pictures alone.

    Raises ValueError if one of a pair is missing or of another shape, or the file is no .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in ("mu", "sigma", "mu_s", "sigma_s") if key in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file of pictures or statistics: {error}") from error
    for mean, covariance in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if (mean in found) != (covariance in found):
            raise ValueError(f"{path} brings {', '.join(found)}: statistics are mu and sigma, in ADM's files mu_s and sigma_s too")
    if "mu" not in found:
        return None
    return Statistics(Gaussian(found["mu"], found["sigma"]), Gaussian(found["mu_s"], found["sigma_s"]) if "mu_s" in found else None)


def scores(samples: Measured, reference: Measured | None, statistics: Statistics | None = None) -> Scores:
    """reference: None if its file brings statistics alone, which otherwise take the place of its pictures'.

    Raises ValueError without both.
    """
    if statistics is None:
        if reference is None:
            raise ValueError("a reference needs pictures or statistics")
        statistics = Statistics(reference.pool_gaussian, reference.spatial_gaussian)
    precision, recall = precision_recall(reference.pool, samples.pool) if reference else (None, None)
    return Scores(
        fid=frechet_distance(samples.pool_gaussian, statistics.pool),
        sfid=frechet_distance(samples.spatial_gaussian, statistics.spatial) if statistics.spatial else None,
        inception_score=inception_score(samples.probabilities),
        precision=precision,
        recall=recall,
    )


def evaluate(samples: Path, reference: Path, network: Network, folder: Path | None = None, batch: int = BATCH) -> Scores:
    """Score samples against a reference, each an .npz of ADM's layout or a folder of pictures; the reference maybe statistics alone.

    folder: keeps the features of every file, by its name and content, for the next run and for one that is killed.
    Raises ValueError or OSError if something cannot be read.
    """
    statistics = None if reference.is_dir() else reference_statistics(reference)

    def measured(path: Path) -> Measured:
        _, chunks = pictures(path, CHUNK)
        return measure(chunks, network, folder / f"{path.name}-{_fingerprint(path)}" if folder else None, batch)

    alone = statistics is not None and not _has_pictures(reference)
    return scores(measured(samples), None if alone else measured(reference), statistics)


def _has_pictures(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as archive:
        return "arr_0" in archive.files


def _fingerprint(path: Path) -> str:
    """Of a file's size and time, or those of all files in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    seen = "\n".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    return hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()
