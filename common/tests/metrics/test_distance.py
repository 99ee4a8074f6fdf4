from __future__ import annotations

import numpy as np
import pytest

from toca.metrics.distance import psnr, ssim


def pictures(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 230, (count, 32, 32, 3), dtype=np.uint8)


def test_equal_pictures_have_no_distance() -> None:
    assert psnr(pictures(0), pictures(0)) == float("inf")
    assert ssim(pictures(0), pictures(0)) == pytest.approx(1.0)


def test_psnr_is_the_mean_over_pictures_of_its_definition() -> None:
    reference = pictures(0, 2)
    changed = reference.copy()
    changed[0] += 5
    changed[1] += 20
    expected = np.mean([20 * np.log10(255 / 5), 20 * np.log10(255 / 20)])
    assert psnr(changed, reference) == pytest.approx(expected, abs=1e-4)


def test_more_noise_is_further_away() -> None:
    reference, noise = pictures(0), np.random.default_rng(1).normal(size=(3, 32, 32, 3))
    near, far = ((reference + scale * noise).clip(0, 255).astype(np.uint8) for scale in (2, 10))
    assert psnr(near, reference) > psnr(far, reference)
    assert ssim(near, reference) > ssim(far, reference)


def test_sets_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(pictures(0, 2), pictures(0, 3))
