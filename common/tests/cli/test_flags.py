from __future__ import annotations

import argparse

import pytest

from toca.cli.flags import number, truth, whole


@pytest.mark.parametrize("text, value", [("True", True), ("y", True), ("1", True), ("no", False), ("F", False), ("0", False)])
def test_truth(text: str, value: bool) -> None:
    assert truth(text) is value


@pytest.mark.parametrize("text", ["", "maybe", "2"])
def test_what_is_neither_true_nor_false(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected True or False"):
        truth(text)


@pytest.mark.parametrize("text", ["0", "-3", "11", "1e1", "x", "", "9" * 50, "1.0", "nan"])
def test_no_whole_number_of_a_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        whole(1, 10)(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e40", "-0.1", "2.1", "x", ""])
def test_no_number_of_a_range(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        number(0, 2)(text)


def test_numbers() -> None:
    assert whole(1, 10)("10") == 10 and number(0, 2)("1e-3") == 0.001
