"""pixart-mini: its folder, its training program and its judge."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart import evaluate_mini, mini, train_mini
from pixart.sampler import Sampler
from toca.diffusion import create_diffusion
from toca.loading.weights import load_state_dict
from toca.methods import NoCaching, ToCa
from toca.training import disk
from toca.training.judging import TASKS
from toca.training.muon import optimisers
from toca.training.program import Draws
from toca.training.world import Pool, words

CAPTIONS = ["a red circle left of a blue square", "four yellow crosses"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = mini.Mini()
    for p in model.pixart.parameters():
        torch.nn.init.normal_(p, std=0.5 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return mini.save(model, tmp_path_factory.mktemp("mini"), torch.float32)


def test_the_folder_loads_strictly(model, folder, tmp_path):
    loaded, _ = mini.load(folder)
    assert all(torch.equal(value, model.pixart.state_dict()[name]) for name, value in loaded.state_dict().items())
    saved = load_file(folder / mini.WEIGHTS)
    saved.pop("x_embedder.proj.bias")
    save_file(saved, tmp_path / mini.WEIGHTS)
    with pytest.raises(ValueError, match=r"missing: x_embedder\.proj\.bias"):
        mini.load(tmp_path)


def test_what_is_kept_in_half_precision_fits_the_repository(model, tmp_path):
    mini.save(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 16e6
    loaded, t5 = mini.load(tmp_path)
    assert loaded.dtype is t5.model.dtype is torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # saving leaves the model as it is


def test_the_encoder_tells_words_apart(folder):
    _, t5 = mini.load(folder)
    states, mask = t5.get_text_embeddings(words())
    assert (mask.sum(dim=1) == 2).all()  # a word is one token
    distance = torch.cdist(states[:, 0], states[:, 0]) + torch.eye(len(states)) * 1e9
    assert distance.min() > 1e-3 and len(t5.tokenizer) <= t5.model.config.vocab_size


def test_training_and_sampling_mean_the_same_call(model, folder):
    loaded, t5 = mini.load(folder)
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([300, 900])
    y, mask = t5.get_text_embeddings(CAPTIONS)
    here = model(x, t, model.tokenize(CAPTIONS), torch.tensor([False, True]))
    torch.testing.assert_close(here[:1], loaded(x[:1], t[:1], y[:1], mask[:1]), rtol=1e-3, atol=3e-4)
    nothing = loaded.y_embedder.y_embedding[None]
    torch.testing.assert_close(here[1:], loaded(x[1:], t[1:], nothing, mask[1:]), rtol=1e-3, atol=3e-4)


def test_a_coarse_model_spans_the_same_positions(model):
    coarse, fine = (mini.Mini(patch).pixart.pos_embed.unflatten(1, (32 // patch, -1)) for patch in (4, 2))
    torch.testing.assert_close(coarse, fine[:, ::2, ::2])


def noise(model, drop=0.1):
    return train_mini.Noise(Draws(Pool(model.tokenize, 16, ["single"], 0), 8, 0.0, CPU), create_diffusion(""), 0.0, 1.0, drop)


def test_the_loss_falls_on_a_fixed_batch():
    torch.manual_seed(0)
    model = mini.Mini(patch=4)
    opts, losses = optimisers(model, model.hidden_matrices(), 3e-3), []
    for _ in range(12):
        torch.manual_seed(1)
        loss = noise(model).loss(model, 0)
        loss.backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


class Killed(Exception):
    pass


def run(folder, *flags):
    shared = "--patch 4 --pool 40 --batch 2 --warmup 5 --log-every 5 --save-minutes 1e-9 --no-bf16 --device cpu --kinds placed counted"
    train_mini.main(train_mini.parser().parse_args(["--output", str(folder), *shared.split(), *flags]))
    return load_state_dict(disk.newest(folder).with_suffix(".safetensors"))


def test_a_run_killed_at_step_10_and_resumed_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", "--steps", "20")
    loss = train_mini.Noise.loss

    def killing(self, network, step):
        if step == 10:
            raise Killed
        return loss(self, network, step)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(train_mini.Noise, "loss", killing)
        run(tmp_path / "broken", "--steps", "20")
    resumed = run(tmp_path / "broken", "--steps", "20", "--resume")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    logs = [[json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("whole", "broken")]
    assert logs[0] == logs[1] and len(logs[0]) == 4


def test_from_coarse_over_fine_to_judged_pictures(tmp_path, capsys):
    run(tmp_path / "coarse", "--steps", "2")
    coarse = disk.newest(tmp_path / "coarse").with_suffix(".safetensors")
    run(tmp_path / "fine", "--steps", "2", "--patch", "2", "--init", str(coarse))
    assert "warm start" in capsys.readouterr().out
    files = ["--weights", str(tmp_path / "fine"), "--sheet", str(tmp_path / "s.png")]
    evaluate_mini.main(evaluate_mini.parser().parse_args([*files, "--images", "4", "--num_steps", "2", "--device", "cpu"]))
    out = capsys.readouterr().out
    assert all(tag in out for tag in TASKS) and "of 24" in out and (tmp_path / "s.png").stat().st_size > 0


def test_it_samples_under_caching(folder):
    model, t5 = mini.load(folder)
    plain, cached = (
        evaluate_mini.CaptionSampler(Sampler(model, method, "dpm-solver", 6, 3.0), t5)(CAPTIONS, [1, 2])
        for method in (NoCaching(), ToCa(interval=3, ratio=0.3))
    )
    assert plain.shape == (2, 32, 32, 3) and (plain != cached).any()
