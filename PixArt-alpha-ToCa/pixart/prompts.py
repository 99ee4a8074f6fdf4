"""From lines to prompts: the size that one asks for, and the text that T5 is to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixart.aspect_ratios import Request, nearest_bin, parse_prompt
from pixart.spec import CONFIGS
from toca.console import announce
from toca.loading.caption_cleaning import clean_caption

SHOWN = 8  # prompts that a line names
MAX_CHARACTERS = 2**16  # T5 reads about 500


@dataclass(frozen=True)
class Prompt:
    """A line of the prompt file.

    line: as it is there.
    text: what the encoder reads.
    size: of the picture.
    """

    line: str
    text: str
    size: Request


def read_lines(lines: Sequence[str], image_size: int, clean: bool = True) -> list[Prompt]:
    """Prompts of lines, checked, and cleaned as the captions of training were. The models of 256 and 512 pixels are square: there the
    flags are read and left. A line says which prompts cleaning empties.

    Raises ValueError that names the line.
    """
    prompts, emptied = [], []
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_CHARACTERS:
            raise ValueError(f"prompt {number} has {len(line)} characters, at most {MAX_CHARACTERS} are read: {line[:40]!r}...")
        if any("\ud800" <= letter <= "\udfff" for letter in line):
            raise ValueError(f"prompt {number} is no text: it holds bytes that are not UTF-8")
        try:
            size = parse_prompt(line, image_size)
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from error
        if not CONFIGS[image_size].micro_conditions:
            size = nearest_bin(size.text, 1.0, image_size)
        text = clean_caption(size.text) if clean else size.text
        if size.text and not text:
            emptied.append(f"prompt {number} ({size.text[:20]!r})")
        prompts.append(Prompt(line, text, size))
    if emptied:
        more = f" and {len(emptied) - SHOWN} more" if len(emptied) > SHOWN else ""
        announce(f"cleaning leaves nothing of {', '.join(emptied[:SHOWN])}{more}; --clean_caption False takes prompts as they are")
    return prompts
