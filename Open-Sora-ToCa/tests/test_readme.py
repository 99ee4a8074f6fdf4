"""The README names flags and presets that exist, and all of them."""

from __future__ import annotations

import re

from programs import ROOT

from opensora.flags import parser
from toca.presets import OPENSORA

README = (ROOT / "README.md").read_text()
FLAGS = {flag for action in parser("sample.mp4")._actions for flag in action.option_strings}
FOREIGN = {"--nproc_per_node"}


def test_flags() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]\w*", README))
    assert named <= FLAGS | FOREIGN, sorted(named - FLAGS)
    assert {flag for flag in FLAGS if flag.startswith("--")} - named <= {"--help"}


def test_presets() -> None:
    named = set(re.findall(r"--preset ([a-z0-9-]+)", README))
    assert named and named <= OPENSORA.keys()


def test_configurations() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.py", README))
    assert named and all((ROOT / path).is_file() for path in named)
