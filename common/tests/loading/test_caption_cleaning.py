"""What upstream's cleaning would end with a traceback on; what it cleans is tested with the forks' reference data."""

from __future__ import annotations

import pytest

pytest.importorskip("ftfy")
clean_caption = pytest.importorskip("toca.loading.caption_cleaning").clean_caption


@pytest.mark.parametrize(
    "caption, cleaned", [("a <![ b", "a <! b"), ("<![", "<!"), ("a cat <![if x]> b", "a cat b"), ("a <b>cat</b>", "a cat"), ("[]", "")]
)
def test_what_only_looks_like_markup_stays(caption: str, cleaned: str) -> None:
    assert clean_caption(caption) == cleaned
