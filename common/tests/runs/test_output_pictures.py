"""From a decoder's output to picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toca.runs.pictures import check_finite, save_picture, to_uint8


def test_latents_that_are_not_finite_stop_a_run() -> None:
    check_finite(torch.zeros(2, 4, 8, 8), "the latents")
    check_finite(torch.full((3,), 65504.0, dtype=torch.float16), "the latents")
    for bad in (torch.nan, torch.inf, -torch.inf):
        latents = torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)
        latents[0, 1, 0] = bad
        with pytest.raises(ValueError, match=r"^the latents of image 3: 2 of 16 values are NaN or infinite; .*try bf16 or fp32$"):
            check_finite(latents, "the latents of image 3")


def test_levels_are_the_nearest_or_the_ones_below() -> None:
    values = torch.tensor([-1.0, 0.0, 0.001, 1.0]).expand(1, 3, 1, 4)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 128, 128, 255]
    assert to_uint8(values, truncate=True)[0, 0, :, 0].tolist() == [0, 127, 127, 255]


@pytest.mark.parametrize("ending", ("png", "jpg"))
def test_pictures_are_written_whole(tmp_path: Path, ending: str) -> None:
    picture = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    save_picture(picture, tmp_path / "new" / f"a.{ending}")
    assert np.abs(np.array(Image.open(tmp_path / "new" / f"a.{ending}")).astype(int) - picture).max() <= 2
    assert len(list((tmp_path / "new").iterdir())) == 1
