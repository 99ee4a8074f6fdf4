"""`python -m flux [t2i | fill | control | redux] ...`; text to image unless said otherwise."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {"t2i": "flux.cli", "fill": "flux.cli_fill", "control": "flux.cli_control", "redux": "flux.cli_redux"}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv and argv[0] in COMMANDS else None
    if argv and not argv[0].startswith("-") and command is None:
        raise SystemExit(f"error: there is no command {argv[0]!r}: choose from {', '.join(COMMANDS)}, or give the flags of t2i")
    importlib.import_module(COMMANDS[command or "t2i"]).main(argv[1:] if command else argv)


if __name__ == "__main__":
    main()
