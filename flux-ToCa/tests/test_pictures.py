"""What pictures carry, and what pictures are read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from flux.cli import Order
from flux.cli_control import Control
from flux.cli_control import parser as control_parser
from flux.cli_fill import pair
from flux.conditions import to_tensor
from flux.flags import RunSettings, parse
from flux.pictures import MOST_IN_JPEG, exif, prompt_of

PROMPTS = {
    "plain": "a fox",
    "letters": "狐 in 雪, naïve — 🦊",
    "long": "fox " * 16_384,
    "long letters": "狐🦊" * 9_000,
    "lines": "a\nb\x00c",
}
ENDINGS = ("jpg", "png", "webp")


def written(path: Path, prompt: str | None) -> Image.Image:
    most = MOST_IN_JPEG if path.suffix == ".jpg" else None
    Image.new("RGB", (16, 16)).save(path, exif=exif(prompt, "flux-dev", most))
    return Image.open(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_of_any_length_in_any_letters_are_read_back(name, ending, tmp_path):
    """Whole, but for more than a JPEG holds."""
    prompt = PROMPTS[name]
    found = prompt_of(written(tmp_path / f"a.{ending}", prompt))
    assert found and prompt.startswith(found)
    assert found == prompt or (ending == "jpg" and len(found.encode("utf-16-le")) >= MOST_IN_JPEG - 2)
    assert (found == prompt) == (ending != "jpg" or not name.startswith("long") or len(prompt.encode("utf-16-le")) <= MOST_IN_JPEG)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_rest_of_the_metadata(ending, tmp_path):
    data = written(tmp_path / f"a.{ending}", "a fox").getexif()
    assert data[ExifTags.Base.Software] == "AI generated;txt2img;flux" and data[ExifTags.Base.Make] == "Black Forest Labs"
    assert data[ExifTags.Base.Model] == "flux-dev" and data[ExifTags.Base.ImageDescription] == "a fox"
    assert prompt_of(written(tmp_path / f"b.{ending}", None)) is None


def test_the_description_starts_a_long_prompt(tmp_path):
    assert written(tmp_path / "a.jpg", "fox " * 1000).getexif()[ExifTags.Base.ImageDescription] == "fox " * 250 + "..."


# ---- pictures as people see them -----------------------------------------------------------------------------------------------------


def turned(path: Path, picture: Image.Image) -> None:
    """Stored on its side with a note to turn it, as phones do."""
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=data)


@pytest.fixture
def landscape() -> Image.Image:
    array = np.zeros((32, 64, 3), np.uint8)
    array[:16, :32] = (250, 20, 20)
    return Image.fromarray(array)


def test_a_phones_picture_and_a_mask_with_alpha_fit_each_other(tmp_path, landscape):
    turned(tmp_path / "phone.png", landscape)
    mask = np.zeros((32, 64, 4), np.uint8)
    mask[..., :3] = 255  # white all over, and what covers is what counts
    mask[:, :16, 3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    picture, read = pair(str(tmp_path / "phone.png"), str(tmp_path / "mask.png"))
    assert np.array_equal(np.asarray(picture), np.asarray(landscape))
    assert to_tensor(read)[0, 0].unique().tolist() == [0, 1] and to_tensor(read)[0, 0, :, :16].eq(1).all()


def maps(path: Path) -> torch.Tensor:
    """What a depth model is conditioned on for a finished map, before the autoencoder."""
    flags = ["--name", "flux-dev-depth", "--img_is_map", "--img_cond_path", str(path), "--width", "64", "--height", "32"]
    args = parse(control_parser(), flags)
    seen = []

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.new_zeros(1, 16, 4, 8)

    Control(args).prepare(Order("", RunSettings.from_args(args), dict(i=str(path))))[1]["condition"](Encoder())
    return seen[0]


def test_maps_of_sixteen_bits_turned_and_cut_out(tmp_path, landscape):
    deep = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(32, 0)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = torch.from_numpy(np.rint(deep / 257.0)) / 127.5 - 1
    torch.testing.assert_close(maps(tmp_path / "deep.png"), expected.float().expand(1, 3, -1, -1), atol=1e-6, rtol=0)
    landscape.save(tmp_path / "plain.png")
    turned(tmp_path / "phone.png", landscape)
    assert torch.equal(maps(tmp_path / "phone.png"), maps(tmp_path / "plain.png"))
    cut = landscape.convert("RGBA")
    cut.putalpha(Image.new("L", cut.size, 0))
    cut.save(tmp_path / "clear.png")
    assert maps(tmp_path / "clear.png").eq(1).all()  # white shows through
