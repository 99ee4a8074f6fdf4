from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toca.metrics import adm
from toca.metrics.inception import Features
from toca.metrics.sources import Pictures


class Colours:
    """A network whose features are the mean colour of a picture and of its left half; it counts the pictures it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: Pictures) -> Features:
        self.seen += len(pictures)
        x = torch.from_numpy(pictures).double() / 255
        mean = x.mean(dim=(1, 2))
        return Features(mean, x[:, :, : x.shape[2] // 2].mean(dim=(1, 2)), mean.softmax(dim=1))


def coloured(number: int, seed: int, brightness: float = 0.5) -> Pictures:
    base = np.random.default_rng(seed).normal(brightness, 0.1, (number, 1, 1, 3))
    return (255 * np.broadcast_to(base, (number, 4, 4, 3)).clip(0, 1)).round().astype(np.uint8)


def chunks(pictures: Pictures, size: int = 10) -> Iterator[Pictures]:
    return (pictures[start : start + size] for start in range(0, len(pictures), size))


def measured(pictures: Pictures) -> adm.Measured:
    return adm.measure(chunks(pictures, 1024), Colours())


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
    alone = adm.scores(samples, None, adm.Statistics(statistics.pool, None))
    assert alone.fid == given.fid and (alone.sfid, alone.precision, alone.recall) == (None, None, None)
    np.savez(path, arr_0=coloured(40, 1))
    assert adm.reference_statistics(path) is None
    np.savez(path, mu=parts["mu"])
    with pytest.raises(ValueError, match="brings mu: statistics are mu and sigma"):
        adm.reference_statistics(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"reference.npz is no .npz file"):
        adm.reference_statistics(path)


def test_files_and_folders_alike(tmp_path: Path) -> None:
    pictures, path, folder = coloured(60, 0), tmp_path / "a.npz", tmp_path / "a"
    np.savez(path, arr_0=pictures)
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:06d}.png")
    network = Colours()
    found = adm.evaluate(path, folder, network, tmp_path / "features")
    assert found.fid == pytest.approx(0, abs=1e-9) and found.precision == 1 and network.seen == 120
    assert adm.evaluate(path, folder, network, tmp_path / "features") == found and network.seen == 120  # all features are known
    gaussian = measured(pictures).pool_gaussian
    np.savez(tmp_path / "statistics.npz", mu=gaussian.mean, sigma=gaussian.covariance)
    assert adm.evaluate(folder, tmp_path / "statistics.npz", network).fid == pytest.approx(0, abs=1e-9)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    pictures, network = coloured(35, 0), Colours()
    with pytest.raises(KeyboardInterrupt):

        def until_killed():
            for number, some in enumerate(chunks(pictures)):
                if number == 2:
                    raise KeyboardInterrupt
                yield some

        adm.measure(until_killed(), network, tmp_path, batch=4)
    assert network.seen == 20
    resumed = adm.measure(chunks(pictures), network, tmp_path)
    assert network.seen == 35 and len(resumed.pool) == 35
    torch.testing.assert_close(resumed.pool, measured(pictures).pool)
    (tmp_path / "00001.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"00001.safetensors is damaged: remove it"):
        adm.measure(chunks(pictures), network, tmp_path)


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        measured(coloured(1, 0))
