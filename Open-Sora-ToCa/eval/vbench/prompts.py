"""The prompts of VBench, one per line and in its order, from the list that its package brings.

Usage: python eval/vbench/prompts.py assets/texts/VBench/all_dimension.txt [VBench_full_info.json]
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from toca.runs.files import atomic_path
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
        return [entry["prompt_en"] for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not VBench's list of prompts: {type(error).__name__} {error}") from error


@program_errors()
def main(target: str, info: str | None = None) -> None:
    prompts = read_info(find_info(info))
    with atomic_path(target) as part:
        part.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    print(f"{len(prompts)} prompts -> {target}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
