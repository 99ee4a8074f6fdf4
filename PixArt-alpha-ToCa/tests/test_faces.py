"""Upstream's import paths are faces of the package, from the fork's folder."""

from __future__ import annotations

import importlib

import pytest
from tiny_parts import FORK

import pixart.blocks
import pixart.model
import pixart.solvers
import pixart.t5

FACES = {
    "diffusion": (pixart.solvers, ["DPMS", "IDDPM", "SASolverSampler"]),
    "diffusion.dpm_solver": (pixart.solvers, ["DPMS"]),
    "diffusion.iddpm": (pixart.solvers, ["IDDPM"]),
    "diffusion.sa_sampler": (pixart.solvers, ["SASolverSampler"]),
    "diffusion.model.nets": (pixart.model, ["PixArt", "PixArtMS", "PixArtMS_XL_2", "PixArt_XL_2"]),
    "diffusion.model.nets.PixArt": (pixart.model, ["PixArt", "PixArt_XL_2"]),
    "diffusion.model.nets.PixArtMS": (pixart.model, ["PixArtMS", "PixArtMS_XL_2"]),
    "diffusion.model.nets.PixArt_blocks": (pixart.blocks, ["MultiHeadCrossAttention", "PixArtBlock", "T2IFinalLayer"]),
    "diffusion.model.t5": (pixart.t5, ["T5Embedder"]),
}


@pytest.mark.parametrize("face", FACES)
def test_a_face_shows_what_the_package_has(face: str) -> None:
    package, names = FACES[face]
    module = importlib.import_module(face)
    assert set(names) <= set(module.__all__) and all(getattr(module, name) is getattr(package, name) for name in module.__all__)


def test_faces_hold_no_logic_and_all_are_listed() -> None:
    paths = [path for path in (FORK / "diffusion").rglob("*.py") if path.read_text(encoding="utf-8").strip()]
    assert {".".join(path.relative_to(FORK).with_suffix("").parts).removesuffix(".__init__") for path in paths} == FACES.keys()
    for path in paths:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith('"""')]
        assert all(line.startswith(("from pixart", "__all__")) for line in lines), path
