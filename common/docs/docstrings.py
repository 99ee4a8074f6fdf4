"""How the API pages show docstrings: a line "name: what it is" is a line of a list."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

FIELD = re.compile(r"^(\w+(?:, \w+)*): ")
BRACKET = re.compile(r"(`[^`]*`)|\[")  # no link, unless it stands in code


class Fields(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """A docstring in Markdown; figures, which are indented, stay as they are."""
    lines: list[str] = []
    for line in text.splitlines():
        if match := FIELD.match(line):
            if lines and lines[-1].strip() and not lines[-1].startswith("- "):
                lines.append("")
            line = f"- `{match[1]}`: {line[match.end() :]}"
        elif lines and lines[-1].startswith("- ") and line.startswith(("Raises", "Returns")):
            lines.append("")
        lines.append(line if line.startswith("    ") else BRACKET.sub(lambda found: found[1] or r"\[", line))
    return "\n".join(lines)
