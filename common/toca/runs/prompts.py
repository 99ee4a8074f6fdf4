"""Files of prompts."""

from __future__ import annotations

from pathlib import Path


def read_prompts(path: str, flag: str) -> list[str]:
    """The lines of a text file, stripped, without blank ones; other characters that end a line of Unicode stay inside.

    flag: names the file in the error.

    Raises ValueError if there are none or it is no text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag} {path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ValueError(f"{flag} {path} cannot be read: {error.strerror}") from error
    if not (prompts := [line.strip() for line in text.split("\n") if line.strip()]):
        raise ValueError(f"{flag} {path} holds no prompt: one per line")
    return prompts
