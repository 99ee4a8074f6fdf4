from __future__ import annotations

import numpy as np
import pytest
import torch

from toca.loading.weights import load_state_dict
from toca.training import disk, program
from toca.training.loop import Loss
from toca.training.program import Draws
from toca.training.world import Pool, padded, t5_tokenizer

CPU = torch.device("cpu")
TOKENIZER = t5_tokenizer()


class Captioner(torch.nn.Module):
    """Guesses the mean colour of a picture from its caption."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = torch.nn.Embedding(len(TOKENIZER), 8), torch.nn.Linear(8, 3)

    def tokenize(self, captions):
        return padded(TOKENIZER, captions)

    def hidden_matrices(self):
        return [self.out.weight]

    def forward(self, tokens):
        return self.out(self.embedding(tokens).mean(dim=1))


def loss_of(model: Captioner, draws: Draws) -> Loss:
    def loss(network, step):
        x, tokens = draws(step)
        return (network(tokens) - x.mean(dim=(2, 3))).square().mean()

    return loss


def args(folder, *flags):
    return program.parser("", steps=6).parse_args(["--output", str(folder), "--device", "cpu", "--batch", "4", "--pool", "16", *flags])


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
    assert (draws(drop=1.0)(0)[1] == draws().empty).all()
    assert (draws(drop=0.0)(0)[1] != draws().empty).any(dim=1).all()


def test_processes_share_a_batch():
    whole = draws(batch=8)(2)[0]
    parts = [draws(batch=4, rank=rank, world=2)(2)[0] for rank in (0, 1)]
    assert np.array_equal(torch.cat(parts), whole)
