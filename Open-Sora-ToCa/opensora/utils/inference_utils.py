"""Prompts and names: what is written behind a prompt, its parts for the clips of a long video, and the file it becomes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

LONGEST_NAME = 255  # bytes of a file name


def append_score(prompt: str, aes: float | None = None, flow: float | None = None, camera_motion: str | None = None) -> str:
    """The prompt with the scores that the model was trained to read, each unless it is there already."""
    scores = (
        ("aesthetic score:", None if aes is None else f"{aes:.1f}"),
        ("motion score:", None if flow is None else f"{flow:.1f}"),
        ("camera motion:", camera_motion),
    )
    for name, value in scores:
        if value is not None and name not in prompt:
            prompt = f"{prompt} {name} {value}."
    return prompt


def split_prompt(prompt: str) -> tuple[list[str], list[int] | None]:
    """`|0|a day|2|a night` to (["a day", "a night"], [0, 2]); a prompt that does not begin with |0| is one part without numbers."""
    if not prompt.startswith("|0|"):
        return [prompt], None
    pieces = re.split(r"\|(\d+)\|", prompt)[1:]
    return [text.strip() for text in pieces[1::2]], [int(number) for number in pieces[::2]]


def merge_prompt(texts: Sequence[str], numbers: Sequence[int] | None) -> str:
    """The inverse of `split_prompt`."""
    return texts[0] if numbers is None else "".join(f"|{number}|{text}" for number, text in zip(numbers, texts, strict=True))


def check_numbers(prompt: str, numbers: Sequence[int] | None, loops: int) -> None:
    """Make sure that every part of a prompt is shown. Raises ValueError if not."""
    if numbers is None:
        return
    if any(then <= now for now, then in itertools.pairwise(numbers)):
        raise ValueError(f"the prompt {prompt!r} must number its parts in rising order")
    if numbers[-1] >= loops:
        raise ValueError(f"the prompt {prompt!r} has a part from clip {numbers[-1]} on, there are {loops} (counted from 0): see --loop")


def prompt_of_loop(texts: Sequence[str], numbers: Sequence[int] | None, loop: int) -> str:
    """The part that the clip `loop` of a long video shows: the last one that begins with it or before."""
    return texts[max(i for i, number in enumerate(numbers or [0]) if number <= loop)]


def extract_json(prompt: str) -> tuple[str, str, str]:
    """(prompt, reference path, mask strategy) of a prompt that may end in a JSON object with them. Raises ValueError if it is malformed."""
    text, brace, rest = prompt.partition("{")
    if not brace:
        return prompt, "", ""
    try:
        given = json.loads(brace + rest)
    except json.JSONDecodeError as error:
        raise ValueError(f"what follows {{ in the prompt {prompt!r} is not JSON: {error}") from error
    if unknown := given.keys() - {"reference_path", "mask_strategy"}:
        raise ValueError(f"the prompt {prompt!r} sets {', '.join(sorted(unknown))}; it may set reference_path and mask_strategy")
    if strange := [key for key, value in given.items() if not isinstance(value, str)]:
        raise ValueError(f'the prompt {prompt!r} sets {strange[0]} to {given[strange[0]]!r}: it must be a text, as "0" is')
    return text, given.get("reference_path", ""), given.get("mask_strategy", "")


def get_save_path_name(
    save_dir: str | Path,
    sample_name: str | None = None,
    sample_idx: int = 0,
    prompt: str = "",
    prompt_as_path: bool = False,
    num_sample: int = 1,
    k: int = 0,
) -> Path:
    """The path of sample k of a prompt, without its ending: by number, or by the prompt as VBench wants it.

    Raises ValueError if the prompt cannot name a file.
    """
    name = f"{sample_name or ''}{prompt}" if prompt_as_path else f"{sample_name or 'sample'}_{sample_idx:04d}"
    if num_sample > 1:
        name += f"-{k}"
    if prompt_as_path and ("/" in name or "\0" in name or len(name.encode()) > LONGEST_NAME - len("..12345678.part.mp4")):
        raise ValueError(f"prompt_as_path: {prompt[:80]!r} cannot name a file, it holds a / or is too long")
    return Path(save_dir) / name
