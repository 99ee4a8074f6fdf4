"""`toca eval`, from files to numbers; packages that are not installed here are stood in for by small ones of the same interface."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toca.cli.main import main
from toca.metrics import vbench
from toca.metrics.inception import Features

Toca = Callable[..., str]


@pytest.fixture
def toca(capsys: pytest.CaptureFixture[str]) -> Toca:
    def run(*argv: str | Path) -> str:
        main(["eval", *map(str, argv)])
        return capsys.readouterr().out

    return run


def folder(path: Path, number: int, shift: int = 0) -> Path:
    path.mkdir()
    draw = np.random.default_rng(0).integers(0, 200, (number, 16, 16, 3), dtype=np.uint8)
    for i, picture in enumerate(draw):
        Image.fromarray(picture + np.uint8(shift)).save(path / f"{i:06d}.png")
    return path


def prompts(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


class ColourInception:
    """Stands in for `Inception`: the mean colour of a picture."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        if not weights.exists():
            raise ValueError(f"there are no Inception weights at {weights}")

    def __call__(self, pictures: np.ndarray) -> Features:
        mean = torch.from_numpy(pictures).double().mean(dim=(1, 2)) / 255
        return Features(mean, mean, mean.softmax(dim=1))


def test_fid(toca: Toca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toca.metrics.inception.Inception", ColourInception)
    a, b, weights = folder(tmp_path / "a", 8), folder(tmp_path / "b", 8, shift=51), prompts(tmp_path / "w.pth", "x")
    line = toca("fid", b, a, "--inception", weights, "--features", tmp_path / "features")
    assert line.startswith("FID 0.1200, sFID 0.1200, Inception Score 1.0")  # three channels, each 0.2 brighter
    data = json.loads(toca("fid", a, a, "--inception", weights, "--json"))
    assert data["fid"] == pytest.approx(0, abs=1e-9) and data["precision"] == data["recall"] == 1
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert "(sFID, precision, recall: the reference brings no more)" in toca("fid", a, tmp_path / "statistics.npz", "--inception", weights)


def test_geneval_and_vbench(toca: Toca, tmp_path: Path) -> None:
    lines = [dict(tag=tag, prompt=f"{tag} {i}", correct=i < 3) for tag in ("colors", "counting") for i in range(4)]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert toca("geneval", tmp_path / "results.jsonl").endswith("overall, the mean of the tasks: 0.7500\n")
    for name, at in vbench.DIMENSIONS.items():
        (tmp_path / f"{name}_eval_results.json").write_text(json.dumps({name: [at.high, []]}))
    assert toca("vbench", tmp_path).endswith("quality 100.00%, semantic 100.00%, total 100.00%\n")


@pytest.mark.parametrize("metric, module", [("image-reward", "ImageReward"), ("hpsv2", "hpsv2")])
def test_rewards_get_every_picture_with_its_prompt(
    toca: Toca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, module: str
) -> None:
    seen: list[tuple[str, str]] = []

    def score(picture: str, prompt: str) -> float:
        seen.append((Path(picture).name, prompt))
        return float(len(prompt))

    fake = types.ModuleType(module)
    fake.load = lambda name, device: types.SimpleNamespace(score=lambda prompt, picture: score(picture, prompt))
    fake.score = lambda picture, prompt, hps_version: [score(picture, prompt)]
    monkeypatch.setitem(sys.modules, module, fake)
    samples, texts = folder(tmp_path / "a", 3), prompts(tmp_path / "p.txt", "a", "ab", "abc")
    assert toca(metric, samples, texts) == f"{metric}: 2.0000 +- 0.5774 (3 pictures)\n"
    assert seen == [("000000.png", "a"), ("000001.png", "ab"), ("000002.png", "abc")]


@pytest.mark.parametrize("metric, module, maker, ends", [("lpips", "lpips", "LPIPS", (-1, 1)), ("dists", "DISTS_pytorch", "DISTS", (0, 1))])
def test_perceptual_metrics_get_pictures_in_their_range(
    toca: Toca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, module: str, maker: str, ends: tuple[int, int]
) -> None:
    class Network(torch.nn.Module):
        def __init__(self, **options: object) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 3 and ends[0] <= x.min() and x.max() <= ends[1] and y.max() > 0.5
            return (y - x).mean(dim=(1, 2, 3), keepdim=True)

    fake = types.ModuleType(module)
    setattr(fake, maker, Network)
    monkeypatch.setitem(sys.modules, module, fake)
    a, b = folder(tmp_path / "a", 2), folder(tmp_path / "b", 2, shift=51)
    expected = 0.2 * (ends[1] - ends[0])
    assert toca(metric, a, b) == f"{metric.upper()}: {expected:.4f} +- 0.0000 (2 pictures)\n"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["fid", "here", "nowhere", "--inception", "w"], "No such file or directory: 'nowhere'"),
        (["fid", "here", "here", "--inception", "nowhere"], "no Inception weights at nowhere"),
        (["fid", "here", "here"], "required: --inception"),
        (["fid", "here", "here", "--inception", "w", "--batch", "0"], "--batch: must be a whole number of 1 to 4096"),
        (["fid", "here", "here", "--inception", "w", "--device", "toaster"], "no such kind of device"),
        (["clip", "here", "two.txt", "--clip", "nowhere"], "here holds 3 pictures, two.txt 2 prompts"),
        (["image-reward", "here", "two.txt"], "here holds 3 pictures, two.txt 2 prompts"),
        (["hpsv2", "here", "three.txt"], "hpsv2 needs its package: pip install hpsv2"),
        (["image-reward", "here", "three.txt"], "image-reward needs its package: pip install image-reward"),
        (["image-reward", "two.txt", "two.txt"], "two.txt is no folder of pictures"),
        (["lpips", "here", "here"], "lpips needs its package: pip install lpips"),
        (["dists", "here", "here"], "dists needs its package: pip install DISTS-pytorch"),
        (["geneval", "nowhere"], "No such file or directory: 'nowhere'"),
        (["geneval", "two.txt"], "line 1 is no JSON"),
        (["vbench", "here"], "here lacks subject_consistency_eval_results.json"),
        (["beauty", "here"], "invalid choice: 'beauty'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_rated_is_one_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("hpsv2", "ImageReward", "lpips", "DISTS_pytorch"):
        monkeypatch.setitem(sys.modules, module, None)  # not installed, whatever this machine has
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "here", 3)
    for name, lines in {"two.txt": "ab", "three.txt": "abc", "w": "x"}.items():
        prompts(tmp_path / name, *lines)
    with pytest.raises(SystemExit, match="2"):
        main(["eval", *argv])
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("toca eval")
