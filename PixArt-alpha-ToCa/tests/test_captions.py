"""Cleaning prompts and reading their aspect-ratio flags, against the published code's results and against diffusers' pipeline."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
from diffusers import PixArtAlphaPipeline
from golden_json import golden_json

from pixart.aspect_ratios import BINS, MARKERS, parse_prompt
from toca.loading.caption_cleaning import clean_caption

TEXT = (
    "a photo of cat http://x.com/a www.foo.org foo.com/x me@site.net @bob <b>bold</b> <person> &amp; &quot; &lt; 10x20 3.5×4 #12 #12345"
    " 1234567 jc6640 jc6640vc 6640vc231 j2d1a2a page 3 free download shipping worldwide click for on img_01.jpg png images .hidden a.b"
    " c,d e/f x : y -- __ - _ ' \" '' “q” ‘s’ ½ ® ~ * ( ) [ ] { } | \\ \\n 192.168.0.1 12:34 1:23 猫 㐀 ㈀ — – Ä ñ café ÃÂ© 😀 ... . 3d 4k"
    " x.png.jpg a.com.b.com@ www:/// https:x %20 + %41 co.it U.S. AND"
)
PIECES = TEXT.split()


@pytest.mark.parametrize("case", golden_json("prompt_handling")["cleaning"], ids=lambda case: case["prompt"][:20])
def test_captions_are_cleaned_as_published(case: dict[str, str]) -> None:
    assert clean_caption(case["prompt"]) == case["cleaned"]


def test_captions_are_cleaned_as_by_diffusers() -> None:
    """Between two plain words: of white space that cleaning uncovers at an end, diffusers keeps more than the published code."""
    pipeline, draw = object.__new__(PixArtAlphaPipeline), random.Random(0)
    changed = 0
    for _ in range(1500):
        caption = "".join(draw.choice(PIECES) + draw.choice(("  ", " ", " ", "")) for _ in range(draw.randint(1, 12)))
        caption = f"fox {caption} hen"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of BeautifulSoup, about text that looks like an address
            expected = pipeline._clean_caption(pipeline._clean_caption(caption))
        assert clean_caption(caption) == expected, caption
        changed += expected != caption
    assert changed > 1000


def test_long_words_are_cleaned_too() -> None:
    assert clean_caption("x" * 4_000) == "x" * 4_000
    assert clean_caption("x." * 1_000) == ("x. " * 1_000).strip()
    assert clean_caption("x" * 4_000 + ".png a fox") == "a fox"


@pytest.mark.parametrize("case", golden_json("prompt_handling")["aspect"], ids=lambda case: f"{case['prompt'][:24]}-{case['image_size']}")
def test_aspect_ratios_are_read_as_published_but_for_flags_that_say_nothing(case: dict[str, Any]) -> None:
    prompt = case["prompt"]
    if MARKERS.search(prompt) and "--ar " not in prompt.replace("--ar 1.5", "") and "--aspect_ratio" not in prompt:
        with pytest.raises(ValueError, match="no aspect ratio"):
            parse_prompt(prompt, case["image_size"])
        return
    request = parse_prompt(prompt, case["image_size"])
    assert request.text == case["clean_stripped"]
    assert [request.height, request.width] == case["bin_hw"]
    assert request.ratio == pytest.approx(case["ratio"], abs=1e-6)


@pytest.mark.parametrize("flags", ("--ar", "--ar 3", "--ar 0:2", "--ar 2:00", "--aspect_ratio a:b", "--art deco", "--hw 512:768"))
def test_flags_that_say_nothing_are_refused(flags: str) -> None:
    with pytest.raises(ValueError, match="write --ar height:width"):
        parse_prompt(f"a cat {flags}", 1024)


def test_every_bin_is_a_grid_of_tokens_with_the_area_and_the_ratio_it_is_named_by() -> None:
    assert len(BINS) == 33
    for ratio, (height, width) in BINS.items():
        assert height % 64 == width % 32 == 0  # whole tokens of 16 pixels at 256 pixels too
        assert height / width == pytest.approx(ratio, rel=0.03)
        assert height * width == pytest.approx(1024**2, rel=0.12)
