from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toca.metrics import adm
from toca.metrics.inception import Features


class Colours:
    """A network whose features are the mean colour of a picture and of its left half; it counts the pictures it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: adm.Pictures) -> Features:
        self.seen += len(pictures)
        x = torch.from_numpy(pictures).double() / 255
        mean = x.mean(dim=(1, 2))
        return Features(mean, x[:, :, : x.shape[2] // 2].mean(dim=(1, 2)), mean.softmax(dim=1))


def coloured(number: int, seed: int, brightness: float = 0.5) -> adm.Pictures:
    base = np.random.default_rng(seed).normal(brightness, 0.1, (number, 1, 1, 3))
    return (255 * np.broadcast_to(base, (number, 4, 4, 3)).clip(0, 1)).round().astype(np.uint8)


def measured(pictures: adm.Pictures, **options: object) -> adm.Measured:
    return adm.measure(adm.chunks(len(pictures), iter_reader(pictures)), Colours(), **options)


def iter_reader(pictures: adm.Pictures):
    parts = iter(pictures)
    return lambda number: np.stack([next(parts) for _ in range(number)])


def test_equal_sets_are_at_no_distance_and_brighter_ones_are() -> None:
    same, other = measured(coloured(2000, 0)), measured(coloured(2000, 1, brightness=0.7))
    scores = adm.scores(same, same)
    assert scores.fid == pytest.approx(0, abs=1e-9) and (scores.precision, scores.recall) == (1, 1)
    moved = adm.scores(other, same)
    expected = ((other.pool_gaussian.mean - same.pool_gaussian.mean) ** 2).sum()
    assert moved.fid == pytest.approx(expected, rel=0.05) and moved.sfid == pytest.approx(moved.fid, rel=1e-6)
    assert moved.precision < 0.5


def test_statistics_of_a_file_take_the_place_of_its_pictures(tmp_path: Path) -> None:
    samples, few, all_ = measured(coloured(500, 0)), measured(coloured(40, 1)), measured(coloured(5000, 2, brightness=0.6))
    path = tmp_path / "reference.npz"
    parts = dict(mu=all_.pool_gaussian.mean, sigma=all_.pool_gaussian.covariance)
    np.savez(path, arr_0=coloured(40, 1), **parts, mu_s=all_.spatial_gaussian.mean, sigma_s=all_.spatial_gaussian.covariance)
    statistics = adm.reference_statistics(path)
    given, own = adm.scores(samples, few, statistics), adm.scores(samples, few)
    assert given.fid == pytest.approx(adm.scores(samples, all_).fid) and given.fid != pytest.approx(own.fid, rel=0.1)
    assert (given.precision, given.recall) == (own.precision, own.recall)
    np.savez(path, arr_0=coloured(40, 1))
    assert adm.reference_statistics(path) is None
    np.savez(path, **parts)
    with pytest.raises(ValueError, match="brings mu, sigma alone"):
        adm.reference_statistics(path)


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adm, "CHUNK", 10)
    pictures, network = coloured(35, 0), Colours()
    with pytest.raises(KeyboardInterrupt):

        def until_killed():
            for number, some in enumerate(adm.chunks(35, iter_reader(pictures))):
                if number == 2:
                    raise KeyboardInterrupt
                yield some

        adm.measure(until_killed(), network, tmp_path, batch=4)
    assert network.seen == 20
    resumed = adm.measure(adm.chunks(35, iter_reader(pictures)), network, tmp_path)
    assert network.seen == 35 and len(resumed.pool) == 35
    torch.testing.assert_close(resumed.pool, measured(pictures).pool)
    (tmp_path / "00001.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"00001.safetensors is damaged: remove it"):
        adm.measure(adm.chunks(35, iter_reader(pictures)), network, tmp_path)


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        measured(coloured(1, 0))
