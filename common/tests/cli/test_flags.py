from __future__ import annotations

import argparse

import pytest
import toy

from toca.cli.flags import Parser, add_method_flags, check_used, number, truth, whole
from toca.planning.spec import ModelSpec


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


def parser(spec: ModelSpec) -> Parser:
    p = Parser(prog="toy")
    add_method_flags(p, (), spec, "-", fresh_threshold=3, fresh_ratio=0.3)
    return p


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "1e40", "1000000000"])
@pytest.mark.parametrize("flag", ["--fresh-threshold", "--fresh-ratio", "--soft-fresh-weight", "--token-bucket", "--max-order"])
def test_settings_of_methods_out_of_range_are_refused_by_their_flag(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser(toy.spec()).parse_args([flag, value])
    assert f"argument {flag}: must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method", "none", "--fresh-ratio", "0.3"], "--fresh-ratio: --method none has no such setting; it is of toca, duca"),
        (["--method", "fora", "--max-order=1"], "--max-order: --method fora has no such setting; it is of taylorseer"),
        (["--upstream-exact", "--method", "taylorseer"], "--upstream-exact: --method taylorseer has no such setting"),
        (["--method", "none", "--fresh-threshold", "3"], "it is of fora, toca, duca, taylorseer"),
    ],
)
def test_settings_that_a_method_does_not_have_are_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    p = parser(toy.spec())
    with pytest.raises(SystemExit, match="2"):
        check_used(p, p.parse_args(argv), argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [[], ["--method", "none"], ["--fresh-ratio", "0.3"], ["--method", "taylorseer", "--max-order", "2", "--fresh-threshold", "4"]]
)
def test_settings_that_a_method_has_pass(argv: list[str]) -> None:
    p = parser(toy.spec())
    check_used(p, p.parse_args(argv), argv)


def test_a_setting_that_another_one_puts_out_of_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    p, argv = parser(toy.spec()), ["--force-fresh", "local", "--soft-fresh-weight", "0.5"]
    with pytest.raises(SystemExit, match="2"):
        check_used(p, p.parse_args(argv), argv)
    assert "argument --soft-fresh-weight: it would change nothing, with force-fresh local no score" in capsys.readouterr().err
    check_used(p, p.parse_args(argv[2:]), argv[2:])
