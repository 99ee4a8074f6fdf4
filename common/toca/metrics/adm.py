"""FID, sFID, Inception Score, precision and recall, as ADM's evaluator has them: samples against a reference, both .npz files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from toca.metrics.frechet import Gaussian, Moments, frechet_distance, inception_score, precision_recall
from toca.metrics.inception import Features
from toca.runs.files import atomic_path

BATCH, CHUNK = 64, 1024  # pictures in the network; pictures whose features are one file, while a run is on its way
Pictures = NDArray[np.uint8]
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
    fid: float
    sfid: float
    inception_score: float
    precision: float
    recall: float


def chunks(count: int, read: Callable[[int], Pictures]) -> Iterator[Pictures]:
    """The pictures of a source of `count`, `CHUNK` at a time."""
    return (read(min(CHUNK, count - start)) for start in range(0, count, CHUNK))


def measure(pictures: Iterable[Pictures], network: Network, folder: Path | None = None, batch: int = BATCH) -> Measured:
    """Features of all pictures, which come in chunks; those of finished chunks are kept in `folder`, where a killed run goes on.

    Raises ValueError if there are fewer than two pictures, or a file in the folder is damaged.
    """
    pool, probabilities, pools, spatials = [], [], Moments(), Moments()
    for number, some in enumerate(pictures):
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


def reference_statistics(path: Path) -> tuple[Gaussian, Gaussian] | None:
    """(of pool, of spatial features) that a reference file brings, as ADM's do beside their pictures; None if it brings none.

    Raises ValueError if some are missing or have another shape.
    """
    with np.load(path, allow_pickle=False) as archive:
        present = [key for key in ("mu", "sigma", "mu_s", "sigma_s") if key in archive.files]
        if not present:
            return None
        if len(present) < 4:
            raise ValueError(f"{path} brings {', '.join(present)} alone: ADM's statistics are mu, sigma, mu_s, sigma_s")
        return Gaussian(archive["mu"], archive["sigma"]), Gaussian(archive["mu_s"], archive["sigma_s"])


def scores(samples: Measured, reference: Measured, statistics: tuple[Gaussian, Gaussian] | None = None) -> Scores:
    """statistics: of the reference, where its file brings them (of the whole training set; its pictures are a part of it)."""
    pool, spatial = statistics or (reference.pool_gaussian, reference.spatial_gaussian)
    precision, recall = precision_recall(reference.pool, samples.pool)
    return Scores(
        fid=frechet_distance(samples.pool_gaussian, pool),
        sfid=frechet_distance(samples.spatial_gaussian, spatial),
        inception_score=inception_score(samples.probabilities),
        precision=precision,
        recall=recall,
    )
