"""Files of prompts."""

from __future__ import annotations

import codecs
from pathlib import Path

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BOM = "\ufeff"  # which begins files of some editors, and lines of joined ones


def read_prompts(path: str, flag: str) -> list[str]:
    """The lines of a UTF-8 text file, stripped, without blank ones; other characters that end a line of Unicode stay inside.

    flag: names the file in the error. Lines end as on any system.
    Raises ValueError, with the line, if it is no text, and if there are no prompts.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{flag} {path} cannot be read: {error.strerror}") from error
    if content.startswith(UTF_16) and b"\0" in content:
        raise ValueError(f"{flag} {path} is not UTF-8 text but UTF-16: save it as UTF-8")
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    prompts = [_text(line, f"{flag} {path}", number) for number, line in enumerate(lines, start=1)]
    if not (prompts := [prompt for prompt in prompts if prompt]):
        raise ValueError(f"{flag} {path} holds no prompt: one per line")
    return prompts


def _text(line: bytes, name: str, number: int) -> str:
    try:
        text = line.decode("utf-8").removeprefix(BOM).strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text: line {number} holds the byte 0x{line[error.start]:02x}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{name} is no text: line {number} holds a NUL")
    return text
