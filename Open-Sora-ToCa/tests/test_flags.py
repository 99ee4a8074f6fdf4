"""Flags, presets and configurations: what they are worth to each other, and what a run is made of."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT
from test_spec import README, XL, planned

from opensora import flags
from opensora.flags import parse, size_of
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa


@pytest.mark.parametrize(
    ("argv", "method"),
    [
        ([], README),
        (["--preset", "toca-r80"], ToCa(interval=3, ratio=0.13)),
        (["--preset", "duca", "--fresh-ratio", "0.2"], DuCa(interval=3, ratio=0.2, score="kv-norm")),
        (["--preset", "none"], NoCaching()),
        (["--preset", "fora"], FORA(2)),
        (["--preset", "taylorseer", "--max-order", "2"], TaylorSeer(3, 2)),
        (["--frozen-scores"], ToCa(interval=3, ratio=0.1, frozen=True)),
    ],
)
def test_flags(argv: list[str], method: Method) -> None:
    assert planned(*argv).method == method


def test_flags_of_the_spec() -> None:
    s4 = ("--bonus", "0.3", "--bonus-frames", "2")
    run = planned("--cycles", "2", "5", "4", "3", *s4, "--model", "STDiT3-3B/2", "--image-size", "64", "80")
    branches = {(stack.name, branch.name): branch for stack in run.spec.stacks for branch in stack.branches}
    assert [branches["spatial_blocks", name].interval for name in ("attn", "cross_attn", "mlp")] == [2, 4, 3]
    assert branches["temporal_blocks", "attn"].interval == 5 and branches["temporal_blocks", "mlp"].width == 1872
    assert branches["temporal_blocks", "mlp"].tokens == 15 * 4 * 5
    ranking = run.method.ranking(run.spec)
    assert (ranking.block, ranking.bonus, ranking.frames) == (2, 0.3, 2)
    assert README.ranking(XL).block == 0  # off, as in the published runs


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resolution", "500p"], "there is no resolution '500p'"),
        (["--aspect-ratio", "7:3"], "480p has no aspect ratio '7:3'"),
    ],
)
def test_flags_that_make_no_sense(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = planned(*argv).plan


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num-frames", "2m"], "number of frames '2m'"),
        (["--text-tokens", "301"], "--text-tokens: must be a whole number of 1 to 300"),
        (["--image-size", "4", "80"], "--image-size: must be a whole number of 8 to 16384, got '4'"),
        (["--cycles", "3", "3", "0", "3"], "--cycles: must be a whole number of 1 to 1000, got '0'"),
        (["--bonus-frames", "0"], "--bonus-frames: must be a whole number of 1 to"),
        (["--num-sampling-steps", "0"], "--num-sampling-steps: must be a whole number of 1 to 1000, got '0'"),
    ],
)
def test_numbers_that_make_no_sense(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        planned(*argv)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_planning_needs_no_torch() -> None:
    code = "import sys, opensora.flags; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_flags_fit_any_parser() -> None:
    parser = argparse.ArgumentParser()
    flags.add_method_flags(parser)
    assert flags.method_from(parser.parse_args([])) == README  # what upstream's program does


def test_flags_win_over_the_configuration_and_it_over_the_preset(config) -> None:
    path = config.with_name("with_ratio.py")
    path.write_text(config.read_text() + "fresh_ratio = 0.3\nsave_fps = 8\n")
    args, parts = parse([str(path), "--save-fps", "6", "--cfg-scale", "2"])
    assert (args.preset, args.method, args.fresh_ratio, args.save_fps, args.aes) == ("toca-r85", "toca", 0.3, 6, 6.5)
    assert parts["scheduler"]["cfg_scale"] == 2.0 and parts["scheduler"]["num_sampling_steps"] == 6
    args, _ = parse([str(path), "--method", "fora", "--fresh-threshold", "5"])
    assert (args.preset, args.method, args.fresh_threshold) == (None, "fora", 5)


def test_the_published_configurations_parse() -> None:
    readme = ["--num-frames", "2s", "--resolution", "480p", "--aspect-ratio", "9:16"]
    args, parts = parse([str(ROOT / "configs/opensora-v1-2/inference/sample.py"), *readme, "--prompt", "a beautiful waterfall"])
    size = size_of(args)
    assert (size.num_frames, size.height, size.width, size.latent) == (51, 480, 854, (15, 60, 106))
    assert parts["model"]["from_pretrained"] == "hpcai-tech/OpenSora-STDiT-v3" and args.aes == 6.5
    image, _ = parse([str(ROOT / "configs/opensora-v1-2/inference/image.py")])
    assert size_of(image).num_frames == 1
    vbench, _ = parse([str(ROOT / "configs/opensora-v1-2/inference/vbench.py")])
    assert (vbench.num_sample, vbench.prompt_as_path, vbench.resolution) == (5, True, "480p")
    assert json.loads(json.dumps(vars(vbench)))["preset"] == "toca-r85"
    assert Path(args.config).name == "sample.py"
