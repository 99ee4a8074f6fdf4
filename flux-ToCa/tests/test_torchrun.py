"""The sampling programs over two processes, as torchrun starts them, against one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_programs import parts, tiny

from flux import geneval
from flux.runs import sample_prompts
from toca.testing.programs import run

__all__ = ["parts", "tiny"]
HERE = Path(__file__).parent


def torchrun(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return run(HERE / "tiny_main.py", program, *flags, processes=2, paths=(HERE, HERE.parent / "src", HERE.parent))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def pictures_agree(a: Path, b: Path) -> bool:
    """To the bit only in processes of their own: MKL rounds as its first product was told to."""
    names = [name for name in files(a) if name.endswith((".jpg", ".png"))]
    pairs = [[np.asarray(Image.open(folder / name)).astype(int) for folder in (a, b)] for name in names]
    return files(a) == files(b) and all(abs(one - other).max() <= 3 for one, other in pairs)


def test_two_processes_share_a_prompt_file(tmp_path: Path, tiny: list[str]) -> None:
    """Every picture once, as one process makes it; a resumed run makes what is lacking."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\ntwo dogs\na fish\n")
    flags = ["--prompt_file", str(prompts), *tiny, "--model_name", "flux-dev", "--num_steps", "6", "--num_images_per_prompt", "2"]
    flags += ["--cache_type", "random", "--batch_size", "2", "--add_sampling_metadata"]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    done = torchrun("sample", *flags, "--output_dir", str(shared))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"6 pictures, \d+ to make", done.stdout) == ["6 pictures, 6 to make"]  # one process reports
    assert files(shared) == {*(f"img_{i}.jpg" for i in range(6)), "manifest.json"}
    sample_prompts([*flags, "--output_dir", str(alone)])
    assert pictures_agree(shared, alone)
    (shared / "img_3.jpg").unlink()
    sample_prompts([*flags, "--output_dir", str(shared)])
    assert pictures_agree(shared, alone)


def test_two_processes_share_genevals_prompts(tmp_path: Path, tiny: list[str]) -> None:
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("".join(f'{{"prompt": "a {name}"}}\n' for name in ("bench", "cow", "fork")))
    flags = [str(metadata), *tiny, "--model_name", "flux-dev", "--steps", "4", "--n_samples", "2"]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    done = torchrun("geneval", *flags, "--output_dir", str(shared))
    assert done.returncode == 0, done.stderr
    names = ("grid.png", "metadata.jsonl", "samples/00000.png", "samples/00001.png")
    assert files(shared) == {"manifest.json", *(f"0000{i}/{name}" for i in range(3) for name in names)}
    geneval.main([*flags, "--output_dir", str(alone)])
    assert pictures_agree(shared, alone)


def test_a_wrong_file_ends_all_processes(tmp_path: Path, tiny: list[str]) -> None:
    done = torchrun("sample", "--prompt_file", str(tmp_path / "none.txt"), *tiny, "--output_dir", str(tmp_path / "out"))
    assert done.returncode != 0 and f"error: --prompt_file {tmp_path / 'none.txt'} cannot be read" in done.stderr
    assert not (tmp_path / "out").exists()
