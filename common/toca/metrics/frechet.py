"""Distances and scores between two sets of feature vectors, by the conventions of ADM's evaluator (Dhariwal & Nichol, arXiv 2105.05233)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
ROWS = 10_000  # feature vectors whose distances to all others are looked at together


@dataclass(frozen=True)
class Gaussian:
    """The mean (D,) and the covariance (D, D), with divisor n - 1, of feature vectors, in float64."""

    mean: Floats
    covariance: Floats

    def __post_init__(self) -> None:
        size = len(self.mean) if self.mean.ndim == 1 else -1
        if self.covariance.shape != (size, size):
            raise ValueError(f"a mean (D,) and a covariance (D, D) are wanted, got {self.mean.shape} and {self.covariance.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("the statistics hold numbers that are not finite")


class Moments:
    """Mean and covariance of vectors that come in batches: one pass, nothing kept but sums about the first batch's mean."""

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """features: (B, D)."""
        x = features.double().cpu()
        if self._origin is None:
            self._origin = x.mean(dim=0)  # sums of squares about it lose no digits
            self._sum, self._outer = torch.zeros_like(self._origin), x.new_zeros(x.shape[1], x.shape[1])
        x = x - self._origin
        self.count += len(x)
        self._sum += x.sum(dim=0)
        self._outer.addmm_(x.mT, x)

    def gaussian(self) -> Gaussian:
        """Raises ValueError with fewer than two vectors."""
        if self.count < 2 or self._origin is None:
            raise ValueError(f"a covariance needs at least 2 pictures, got {self.count}")
        mean = self._sum / self.count
        covariance = (self._outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return Gaussian((self._origin + mean).numpy(), covariance.numpy())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) (Heusel et al., arXiv 1706.08500).

    The last trace is that of (S1^(1/2) S2 S1^(1/2))^(1/2), which is symmetric: no complex root, and covariances may be singular.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of one kind are wanted, got {len(a.mean)} and {len(b.mean)} numbers a picture")
    s1, s2 = (torch.from_numpy(g.covariance).double() for g in (a, b))
    values, vectors = torch.linalg.eigh(s1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ s2 @ root).clamp_min(0).sqrt().sum()
    difference = torch.from_numpy(a.mean - b.mean).double()
    return (difference @ difference + s1.trace() + s2.trace() - 2 * cross).item()


def inception_score(probabilities: Tensor, split: int = 5000) -> float:
    """exp(mean KL(p(y | x) || p(y))) within runs of `split` pictures, the mean over runs (Salimans et al., arXiv 1606.03498).

    probabilities: (N, classes). The last run may be shorter. Raises ValueError without pictures.
    """
    if not len(probabilities):
        raise ValueError("an Inception Score needs pictures")
    scores = []
    for some in probabilities.double().split(split):
        divergence = torch.special.xlogy(some, some) - torch.special.xlogy(some, some.mean(dim=0))
        scores.append(divergence.sum(dim=1).mean().exp())
    return torch.stack(scores).mean().item()


@torch.no_grad()
def precision_recall(reference: Tensor, samples: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991).

    reference (N, D), samples (M, D), on any device. A set's manifold is the union of balls around its vectors that reach their k-th
    neighbour; precision: share of samples inside the reference's manifold; recall: share of the reference inside the samples'.
    Raises ValueError where a set has no k neighbours.
    """
    if min(len(reference), len(samples)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} pictures on each side, got {len(samples)} and {len(reference)}")
    return _inside(samples, reference, neighbours), _inside(reference, samples, neighbours)


def _inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points in at least one ball around a centre."""
    centres, points = centres.float(), points.float()
    radii = torch.cat([
        torch.cdist(some, centres).kthvalue(neighbours + 1, dim=1).values  # the first is the centre itself
        for some in centres.split(_rows(len(centres)))
    ])  # fmt: skip
    found = [(torch.cdist(some, centres) <= radii).any(dim=1) for some in points.split(_rows(len(centres)))]
    return torch.cat(found).double().mean().item()


def _rows(columns: int) -> int:
    """Rows of a distance matrix whose part takes no more than that of `ROWS` x 1000."""
    return max(1, ROWS * 1000 // columns)
