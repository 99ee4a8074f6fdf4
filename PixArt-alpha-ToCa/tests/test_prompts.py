"""Cleaning prompts and reading their aspect-ratio flags, against diffusers' pipeline; what a prompt may not be."""

from __future__ import annotations

import random
import warnings

import pytest
from diffusers import PixArtAlphaPipeline

from pixart.aspect_ratios import BINS, parse_prompt
from pixart.prompts import MAX_CHARACTERS, SHOWN, read_lines
from toca.loading.caption_cleaning import clean_caption

TEXT = (
    "a photo of cat http://x.com/a www.foo.org foo.com/x me@site.net @bob <b>bold</b> <person> &amp; &quot; &lt; 10x20 3.5×4 #12 #12345"
    " 1234567 jc6640 jc6640vc 6640vc231 j2d1a2a page 3 free download shipping worldwide click for on img_01.jpg png images .hidden a.b"
    " c,d e/f x : y -- __ - _ ' \" '' “q” ‘s’ ½ ® ~ * ( ) [ ] { } | \\ \\n 192.168.0.1 12:34 1:23 猫 㐀 ㈀ — – Ä ñ café ÃÂ© 😀 ... . 3d 4k"
    " x.png.jpg a.com.b.com@ www:/// https:x %20 + %41 co.it U.S. AND"
)
PIECES = TEXT.split()


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


# ---- prompts ---------------------------------------------------------------------------------------------------------------------------


def test_prompts_that_cleaning_empties_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a fox", "一只狐狸", "12345678", "@someone", "photo.jpg", "--ar 3:2"]
    assert [p.text for p in read_lines(lines, 1024)] == ["a fox", "", "", "", "", ""]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("cleaning leaves nothing of prompt 2 ('一只狐狸'), prompt 3 ('12345678'), prompt 4 ('@someone'), prompt 5 (")
    assert line.endswith("--clean_caption False takes prompts as they are")
    read_lines(["12345678"] * 30, 256)
    assert f"and {30 - SHOWN} more; --clean" in capsys.readouterr().out


def test_prompts_may_be_taken_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["一只狐狸 --ar 3:2", "  A <b>Fox</b> &amp; 12345678", "photo.jpg"]
    assert [p.text for p in read_lines(lines, 1024, clean=False)] == ["一只狐狸", "A <b>Fox</b> &amp; 12345678", "photo.jpg"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("clean", (True, False))
@pytest.mark.parametrize(
    "line",
    [
        "<![ a fox",
        "<!DOCTYPE a fox ]]>",
        "a\x00fox",
        "\u202ea fox",
        "👩‍👩‍👧‍👦 \u0301",
        "a\ufefffox",
        "<" * MAX_CHARACTERS,
        "\U0010ffff",
        "http://" + "a." * 30_000,
    ],
    ids=lambda line: repr(line[:12]),
)
def test_prompts_of_any_letters_are_read(line: str, clean: bool) -> None:
    (prompt,) = read_lines([line], 1024, clean)
    assert prompt.line == line and (clean or prompt.text == line.strip())


def test_what_is_no_prompt_is_refused_by_its_number() -> None:
    with pytest.raises(ValueError, match=f"prompt 2 has {MAX_CHARACTERS + 1} characters, at most {MAX_CHARACTERS} are read"):
        read_lines(["a", "x" * (MAX_CHARACTERS + 1)], 256)
    with pytest.raises(ValueError, match="prompt 2 is no text: it holds bytes that are not UTF-8"):
        read_lines(["a", "a \udcff fox"], 256)
    with pytest.raises(ValueError, match=r"prompt 2: .* is no aspect ratio"):
        read_lines(["a", "b --hw 1:2"], 256)
