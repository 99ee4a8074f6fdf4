from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toca.loading.weights import load_checkpoint, load_state_dict
from toca.testing.programs import run
from toca.training import disk, program
from toca.training.program import Draws
from toca.training.world import Pool

from .captioner import Captioner, loss_of

CPU = torch.device("cpu")
SHARED = ["--device", "cpu", "--batch", "4", "--pool", "16", "--drop", "0"]


def args(folder, *flags):
    return program.parser("", steps=6).parse_args(["--output", str(folder), *SHARED, *flags])


def test_a_run_from_the_flags_on(tmp_path, capsys):
    average = program.run(args(tmp_path / "a"), Captioner, loss_of)
    path = disk.newest(tmp_path / "a").with_suffix(".safetensors")
    assert all(torch.equal(value, average.state_dict()[name]) for name, value in load_state_dict(path).items())
    program.run(args(tmp_path / "b", "--init", str(path), "--workers", "1", "--kinds", "single"), Captioner, loss_of)
    assert "warm start from" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds no checkpoint"):
        program.run(args(tmp_path / "c", "--resume"), Captioner, loss_of)


@pytest.mark.parametrize("flags, named", [(["--pool", "0"], "--pool must be in 1"), (["--drop", "2"], r"--drop must be in 0..1, got 2")])
def test_wrong_flags_are_named(tmp_path, flags, named):
    with pytest.raises(ValueError, match=named):
        program.run(args(tmp_path, *flags), Captioner, loss_of)


def draws(**options) -> Draws:
    model = Captioner()
    return Draws(Pool(model.tokenize, 64, ["single"], 0), **dict(batch=8, drop=0.0, device=CPU) | options)


def test_left_out_captions_are_the_empty_one():
    assert (draws(drop=1.0)(0)[1] == draws().pool.empty).all()
    assert (draws(drop=0.0)(0)[1] != draws().pool.empty).any(dim=1).all()


def test_processes_share_a_batch():
    whole = draws(batch=8)(2)[0]
    parts = [draws(batch=4, rank=rank, world=2)(2)[0] for rank in (0, 1)]
    assert np.array_equal(torch.cat(parts), whole)


def test_two_processes_learn_what_one_does_and_resume(tmp_path):
    """Nothing is drawn at random here, so that the mean of two halves of a batch is the whole batch's."""
    average = program.run(args(tmp_path / "one", "--steps", "8"), Captioner, loss_of)
    for steps, more in (("4", ()), ("8", ("--resume",))):
        flags = ["--output", str(tmp_path / "two"), *SHARED, "--steps", steps, *more]
        done = run(Path(__file__).with_name("captioner.py"), *flags, processes=2)
        assert done.returncode == 0, done.stderr
    state = load_checkpoint(disk.newest(tmp_path / "two"))
    assert state["step"] == 8
    for name, value in average.state_dict().items():
        torch.testing.assert_close(state["ema"][name], value, msg=name)
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 2
