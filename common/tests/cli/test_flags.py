from __future__ import annotations

import argparse

import pytest

from toca.cli.flags import truth


@pytest.mark.parametrize("text, value", [("True", True), ("y", True), ("1", True), ("no", False), ("F", False), ("0", False)])
def test_truth(text: str, value: bool) -> None:
    assert truth(text) is value


@pytest.mark.parametrize("text", ["", "maybe", "2"])
def test_what_is_neither_true_nor_false(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected True or False"):
        truth(text)
