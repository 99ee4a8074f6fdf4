from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from toca.cli.flags import Parser, number, truth, whole
from toca.testing.hostile import NO_NUMBERS, hopeless_numbers, refused


def parser() -> Parser:
    p = Parser(prog="program")
    p.add_argument("--steps", type=whole(1, 1000), default=10)
    p.add_argument("-g", "--guidance", type=number(0, 100), default=1.0)
    p.add_argument("--side", type=whole(16, 64), default=32)
    p.add_argument("--share", type=number(0, 0.5), default=0.1)
    p.add_argument("--switch", type=truth, default=False)
    p.add_argument("--name", default="a")
    return p


def program(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    print("plan: ten steps")
    raise SystemExit(f"error: --name {args.name} is nobody")


def test_a_refusal_is_its_line(tmp_path: Path) -> None:
    assert refused(program, ["--steps", "0"], tmp_path) == "program: error: argument --steps: must be a whole number of 1 to 1000, got '0'"
    assert refused(program, ["--name", "b"], tmp_path) == "error: --name b is nobody"


def test_every_number_of_a_parser_is_tried(tmp_path: Path) -> None:
    cases = list(hopeless_numbers(parser()))
    assert {flag for flag, _ in cases} == {"--steps", "--guidance", "--side", "--share"} and len(cases) == 4 * len(NO_NUMBERS)
    for flag, word in cases:
        assert f"argument {'-g/' * (flag == '--guidance')}{flag}: must be" in refused(program, [word], tmp_path)


def taken(argv: list[str]) -> None:
    print("done")


def raises(argv: list[str]) -> None:
    raise KeyError("x")


def interrupted(argv: list[str]) -> None:
    raise SystemExit(130)


def chatters(argv: list[str]) -> None:
    raise SystemExit("error: one\nand two")


def builds(argv: list[str]) -> None:
    torch.nn.ReLU()  # has no parameters
    torch.nn.Linear(1, 1, device="meta")
    torch.nn.Linear(1, 1)


def hides_a_network(argv: list[str]) -> None:
    try:
        torch.nn.Linear(1, 1)
    except AssertionError:
        raise SystemExit("error: no") from None


def writes(argv: list[str]) -> None:
    Path("output").mkdir()
    raise SystemExit("error: no")


def changes(argv: list[str]) -> None:
    Path("there").write_text("more")
    raise SystemExit("error: no")


def hangs(argv: list[str]) -> None:
    while True:
        time.sleep(0.01)


WRONG = {
    taken: "was taken; it said 'done",
    raises: "with a traceback: KeyError",
    interrupted: "ended with status 130",
    chatters: "is answered by 2 lines",
    builds: "a network is built: Linear",
    hides_a_network: "built a network before it was refused: Linear",
    writes: r"left \[\('output'",
    changes: r"left \[\('there'",
    hangs: "longer than",
}


@pytest.mark.parametrize("main", WRONG, ids=lambda main: main.__name__)
def test_what_is_no_refusal(main, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("some")
    with pytest.raises(AssertionError, match=WRONG[main]):
        refused(main, [], tmp_path, seconds=0.2 if main is hangs else 20)
