from __future__ import annotations

import json

import pytest
import torch
import torch.nn as nn

from toca.loading.weights import load_checkpoint, load_state_dict
from toca.training import disk
from toca.training.loop import train
from toca.training.muon import optimisers
from toca.training.settings import Settings

EVERY_STEP = 1e-9  # minutes between checkpoints


class Killed(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 6))


def loss(model: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(8, 6)
    return (model(x) - x.roll(1, dims=1)).square().mean()


def run(folder, steps=20, killed_at=None, resume=False, **settings):
    model = network()

    def killing(network, step):
        if step == killed_at:
            raise Killed
        return loss(network, step)

    chosen = Settings(**{"batch": 8, "steps": steps, "lr": 1e-2, "warmup": 5, "cooldown": 0.3, "log_every": 5} | settings)
    return model, train(model, killing, optimisers(model, [model[2].weight], 1e-2), chosen, folder, resume=resume)


def test_a_killed_run_that_is_resumed_ends_as_an_unbroken_one(tmp_path):
    model, ema = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "broken", killed_at=10, save_minutes=EVERY_STEP)
    model_again, ema_again = run(tmp_path / "broken", resume=True)
    for one, two in ((model, model_again), (ema, ema_again)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name
    lines = [[json.loads(line) for line in (tmp_path / kind / "log.jsonl").read_text().splitlines()] for kind in ("whole", "broken")]
    assert [line["step"] for line in lines[1]] == [5, 10, 15, 20]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]


def test_lines_after_the_checkpoint_are_dropped_on_resuming(tmp_path):
    run(tmp_path, steps=10, log_every=2)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 12, "loss": 9}\n{"step": 1')
    run(tmp_path, steps=14, resume=True, log_every=2)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 4, 6, 8, 10, 12, 14]


def test_it_learns_and_the_average_follows(tmp_path):
    _, ema = run(tmp_path, steps=300, ema_decay=0.9, log_every=50)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.3 * losses[0]
    assert not any(p.requires_grad for p in ema.parameters())
    torch.manual_seed(1)
    assert loss(ema, 0) < 0.3 * losses[0]


def test_the_time_limit_ends_a_run_with_a_whole_checkpoint(tmp_path):
    _, ema = run(tmp_path, steps=None, minutes=0.01)
    state = load_checkpoint(disk.newest(tmp_path))
    assert state["step"] >= 1 and {"model", "ema", "opt", "note"} <= state.keys()
    for name, value in load_state_dict(disk.newest(tmp_path).with_suffix(".safetensors")).items():
        assert torch.equal(value, ema.state_dict()[name])


def test_old_checkpoints_go(tmp_path):
    run(tmp_path, steps=6, save_minutes=EVERY_STEP, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "0000005.pt", "0000005.safetensors", "0000006.pt", "0000006.safetensors",
    ]  # fmt: skip


def test_a_run_that_is_over_changes_nothing(tmp_path):
    _, ema = run(tmp_path, steps=5)
    _, again = run(tmp_path, steps=5, resume=True)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ema.state_dict().items())


def test_nothing_to_resume_and_other_checkpoints_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint to go on from"):
        run(tmp_path, resume=True)
    (tmp_path / "checkpoints").mkdir()
    torch.save(dict(weight=torch.zeros(2)), tmp_path / "checkpoints" / "0000001.pt")
    with pytest.raises(ValueError, match="lacks model, ema, opt, step; --init starts a new run"):
        run(tmp_path, resume=True)


def test_a_warm_start_takes_what_fits(tmp_path):
    run(tmp_path, steps=2)
    other = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 3))
    first = other[4].weight.clone()
    path = disk.newest(tmp_path).with_suffix(".safetensors")
    assert disk.warm_start(other, load_state_dict(path)) == "4 of 6 tensors"
    assert torch.equal(other[0].weight, load_state_dict(path)["0.weight"]) and torch.equal(other[4].weight, first)


def test_in_bfloat16_weights_stay_float32(tmp_path):
    model, _ = run(tmp_path, steps=3, bf16=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
