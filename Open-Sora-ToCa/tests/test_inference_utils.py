"""Every entry of the reference's inference_helpers.json: input to output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_folder import HELPERS, MODULES, WITH_HELPERS, WITH_MODULES
from PIL import Image

from opensora.datasets.aspect import get_image_size, get_num_frames, resolutions
from opensora.datasets.utils import cover_image, cover_video
from opensora.utils import inference_utils as prompts
from opensora.utils import mask_strategy as masks


def check_split(entry: dict[str, Any]) -> None:
    texts, numbers = entry["out"]
    assert prompts.split_prompt(entry["in"]) == (texts, numbers)


def check_save_path(entry: dict[str, Any]) -> None:
    assert prompts.get_save_path_name(**entry["args"]) == Path(entry["out"])


def check_scores(entry: dict[str, Any]) -> None:
    assert prompts.append_score(entry["prompt"], entry["aes"], entry["flow"], entry["camera_motion"]) == entry["out"]


def check_mask(entry: dict[str, Any]) -> None:
    """Latents of reference r, frame f hold 100 (r + 1) + f, noise holds -1."""
    z = torch.full((len(entry["mask_strategy"]), 4, entry["latent_frames"], 1, 1), -1.0)
    references = [
        [(100.0 * (r + 1) + torch.arange(frames)).view(1, -1, 1, 1).expand(4, -1, 1, 1) for r, frames in enumerate(lengths)]
        for lengths in entry["ref_latent_frames"]
    ]
    strategies = [masks.parse_mask_strategy(strategy) for strategy in entry["mask_strategy"]]
    mask = masks.apply_mask_strategy(z, references, strategies, entry["loop"], entry["align"])
    expected = torch.tensor(entry["mask"])
    assert torch.equal(torch.ones_like(expected) if mask is None else mask, expected)
    assert torch.equal(z[:, 0, :, 0, 0], torch.tensor(entry["z_after(-1=noise, 100*(ref_index+1)+ref_frame)"]))


def same(f: Callable[..., Any], *keys: str) -> Callable[[dict[str, Any]], None]:
    def check(entry: dict[str, Any]) -> None:
        assert f(*(entry[key] for key in keys)) == entry["out"]

    return check


CHECKS: dict[str, Callable[[Any], None]] = {
    "append_scores": check_scores,
    "split_prompt": check_split,
    "merge_prompt": same(prompts.merge_prompt, "texts", "idx"),
    "prompt_for_loop": same(lambda text, loop: prompts.prompt_of_loop(*prompts.split_prompt(text), loop), "in", "loop"),
    "mask_strategy_parse": same(lambda text: [list(dataclasses.astuple(group)) for group in masks.parse_mask_strategy(text)], "in"),
    "nearest_point": same(masks.find_nearest_point, "value", "point", "max"),
    "dframe_to_frame": same(masks.dframe_to_frame, "in"),
    "save_path": check_save_path,
    "json_suffix": same(lambda text: list(prompts.extract_json(text)), "in"),
    "apply_mask_strategy": check_mask,
}
ENTRIES = [(kind, i) for kind in CHECKS for i in range(len(HELPERS.get(kind, ())))]


@pytest.mark.parametrize(("kind", "index"), ENTRIES, ids=[f"{kind}-{i}" for kind, i in ENTRIES])
def test_reference(kind: str, index: int) -> None:
    CHECKS[kind](HELPERS[kind][index])


@WITH_HELPERS
def test_every_kind_of_entry_is_checked() -> None:
    assert HELPERS.keys() == CHECKS.keys() | {"num_frames", "text_cleaning"}, "text_cleaning: see test_text_encoder.py"


@WITH_HELPERS
def test_numbers_of_frames() -> None:
    assert {name: get_num_frames(name) for name in HELPERS["num_frames"]} == HELPERS["num_frames"]


@WITH_MODULES
def test_reference_pictures_and_videos() -> None:
    data = MODULES
    for name in ("image", "image2"):
        found = cover_image(Image.fromarray(data[f"ref.{name}_uint8_hwc"].numpy()), (16, 24))
        torch.testing.assert_close(found, data[f"ref.{name}_16x24"], atol=1e-5, rtol=0)
    found = cover_video(data["ref.video_uint8_tchw"], (16, 24))
    torch.testing.assert_close(found, data["ref.video_16x24_tchw"], atol=1e-5, rtol=0)


def test_sizes() -> None:
    assert get_image_size("480p", "9:16") == get_image_size("480p", "0.56") == (480, 854)
    assert get_image_size("240p", "16:9") == (426, 240)
    assert len(resolutions()) == 13
    with pytest.raises(ValueError, match=r"no resolution '481p'; choose from 144p.*480p.*4k"):
        get_image_size("481p", "9:16")
    with pytest.raises(ValueError, match=r"256 has no aspect ratio '9:16' \(height:width\); choose from .*1:1.*0\.57"):
        get_image_size("256", "9:16")


@pytest.mark.parametrize("frames", ["2 seconds", "", "0", -3, "1.5"])
def test_numbers_of_frames_that_make_no_sense(frames: object) -> None:
    with pytest.raises(ValueError, match="number of frames"):
        get_num_frames(frames)


@pytest.mark.parametrize("strategy", ["a", "0;", "0,1,2,3,4,0.5,6", "0,,0", "0,0,0,0,0", "-1", "0,-1", "0,0,0,0,1,1.5"])
def test_malformed_strategies(strategy: str) -> None:
    with pytest.raises(ValueError, match="mask strategy"):
        masks.parse_mask_strategy(strategy)


@pytest.mark.parametrize("strategy, problem", [("0,1", "names reference 1"), ("1", "names clip 1"), ("0,0,0,15", "names frame 15")])
def test_strategies_that_name_what_is_not_there(strategy: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        masks.check_mask_strategy(strategy, references=1, frames=15)


@pytest.mark.parametrize("total", [5, 17, 34, 60, 200])
@pytest.mark.parametrize("start, length", [(0, 1), (3, 4), (8, 2), (13, 20)])
def test_reading_less_of_a_reference_changes_nothing(total: int, start: int, length: int) -> None:
    """The frames that are read give the same latents at the same positions as the whole reference."""
    group = masks.Group(reference_start=start, length=length)
    read = min(masks.frames_to_read([group], 0, 5), total)
    whole, part = masks.latent_frames(total), masks.latent_frames(read)
    assert masks.position(start, whole, 5) == masks.position(start, part, 5)
    first = masks.position(start, whole, 5)
    assert min(length, whole - first) == min(length, part - first)


@pytest.mark.parametrize("prompt", ["a {b", 'a {"x": 1}', "a {} b {}"])
def test_malformed_json_behind_a_prompt(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt"):
        prompts.extract_json(prompt)


@pytest.mark.parametrize("prompt", ["a/b", "x" * 300])
def test_prompts_that_cannot_name_a_file(prompt: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        prompts.get_save_path_name("out", prompt=prompt, prompt_as_path=True)
