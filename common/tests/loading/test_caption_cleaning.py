"""Cleaning of captions that people write; that it is the published one, the forks' golden data say."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ftfy")
pytest.importorskip("bs4")

from toca.loading.caption_cleaning import clean_caption, emptied

PIECES = ("<![", "<!", "<!--", "-->", "]]>", "<?", "</", "<a href='", "&#x", "&#99999999999;", "<![CDATA[", "%00", "\0", "\ud800", "x", " ")


@pytest.mark.parametrize("markup", ("<![", "<![if", "<![ x", "&lt;![", "%3C![", "<!<![", "\udcff"))
def test_markup_of_no_known_kind_is_cleaned(markup: str) -> None:
    cleaned = clean_caption(f"a red fox {markup}")
    assert cleaned.startswith("a red fox")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=10))
def test_nothing_raises_or_warns(pieces: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(clean_caption("".join(pieces)), str)


@pytest.mark.parametrize("piece", ("x", "a fox ", "a.", "1.", "a-", "www.", " ", "\n", "1", "é", "a.png", "10x20 ", "中", "@", "-", "<b>"))
def test_captions_of_64_kb_take_moments(piece: str) -> None:
    start = time.process_time()
    clean_caption((piece * 65536)[:65536])
    assert time.process_time() - start < 20  # before, some took minutes


def test_captions_that_cleaning_empties_are_told() -> None:
    assert emptied(["a fox", "http://x.com/a", "", "   ", "猫", "free shipping", "a cat"]) == [1, 4, 5]
    assert emptied([]) == []
