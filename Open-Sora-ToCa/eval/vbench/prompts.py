"""The prompts of VBench, one per line and in its order, from the list that its package brings.

Usage: python eval/vbench/prompts.py assets/texts/VBench/all_dimension.txt [VBench_full_info.json]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from toca.cli.flags import Parser
from toca.console import announce
from toca.runs.files import atomic_path
from toca.runs.outputs import check_file
from toca.runs.programs import program_errors

INFO = "VBench_full_info.json"


def find_info(given: str | None = None) -> Path:
    """VBench's list of prompts: a path, or that of the installed package. Raises FileNotFoundError that says what would help."""
    package = find_spec("vbench")
    path = Path(given) if given else Path(package.origin).parent / INFO if package and package.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"there is no {path or INFO}: pip install vbench, or get {INFO} of VBench and set VBENCH_INFO to its path")
    return path


def read_info(path: Path) -> list[str]:
    """The prompts of VBench's list. Raises ValueError if it is none."""
    try:
        prompts = [entry["prompt_en"] for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not VBench's list of prompts: {type(error).__name__} {error}") from error
    if strange := [prompt for prompt in prompts if not isinstance(prompt, str) or len(prompt.splitlines()) != 1]:
        raise ValueError(f"{path} is not VBench's list of prompts: {strange[0]!r} is not one line of text")
    return prompts


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    p = Parser(prog="prompts.py", description=__doc__)
    p.add_argument("target", help="text file to write")
    p.add_argument("info", nargs="?", help=f"{INFO} (default: that of the installed package)")
    args = p.parse_args(argv)
    check_file(Path(args.target), "target")
    prompts = read_info(find_info(args.info))
    with atomic_path(args.target) as part:
        part.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    announce(f"{len(prompts)} prompts -> {args.target}")


if __name__ == "__main__":
    main()
