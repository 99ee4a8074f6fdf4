"""flux-mini: its words and encoders, its folder, its training program and its judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flux import evaluate_mini, mini, train_mini
from flux.model import Flux
from flux.modules.conditioner import HFEmbedder
from flux.sampler import pack, prepare
from flux.util import load_clip, load_t5
from toca.loading.weights import load_state_dict
from toca.methods import ToCa
from toca.training import disk
from toca.training.judging import TASKS
from toca.training.muon import optimisers
from toca.training.program import Draws
from toca.training.world import TEXT_TOKENS, Pool, words

CAPTIONS = ["a red circle left of a blue square", "four yellow crosses", "a magenta triangle in the lower right", ""]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = mini.Mini()
    for p in model.flux.parameters():
        torch.nn.init.normal_(p, std=0.5 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return mini.save(model, tmp_path_factory.mktemp("mini"), torch.float32)


def test_a_word_is_one_token_for_clip_and_no_two_share_it():
    tokenizer = mini.clip_tokenizer()
    ids = [tokenizer(word)["input_ids"] for word in words()]
    assert {len(some) for some in ids} == {3}  # with start and end
    assert len({tuple(some) for some in ids}) == len(ids)
    assert len(tokenizer("purple")["input_ids"]) > 3  # another word is spelt


def test_byte_pairs_are_joined_in_the_order_of_the_merges():
    assert mini.merged(list("abab"), [("a", "b"), ("ab", "ab")]) == ["abab"]
    assert mini.merged(list("abc"), [("b", "c"), ("a", "b")]) == ["a", "bc"]


def test_the_encoders_load_through_flux_s_own_code_and_tell_words_apart(model, folder):
    t5 = load_t5("cpu", TEXT_TOKENS, str(folder / mini.T5), torch.float32)
    clip = load_clip("cpu", str(folder / mini.CLIP), torch.float32)
    txt, y = model.encode(model.tokenize(CAPTIONS))
    torch.testing.assert_close(t5(CAPTIONS), txt)
    torch.testing.assert_close(clip(CAPTIONS), y)  # of 77 tokens, not of TEXT_TOKENS
    for encoder in (t5, clip):
        states = encoder(words()).flatten(1)
        distance = torch.cdist(states, states) + torch.eye(len(states)) * 1e9
        assert distance.min() > 1e-3
        assert len(encoder.tokenizer) <= encoder.hf_module.config.vocab_size


def test_the_folder_loads_strictly(model, folder, tmp_path):
    flux, t5, clip = mini.load(folder)
    assert isinstance(t5, HFEmbedder) and (t5.is_clip, clip.is_clip) == (False, True)
    state = flux.state_dict()
    assert state.keys() == Flux(mini.PARAMS).state_dict().keys() and "double_blocks.0.img_attn.qkv.weight" in state
    assert all(torch.equal(value, model.flux.state_dict()[name]) for name, value in state.items())
    saved = load_file(folder / mini.WEIGHTS)
    saved.pop("img_in.bias")
    save_file(saved, tmp_path / mini.WEIGHTS)
    with pytest.raises(ValueError, match=r"missing: img_in\.bias"):
        mini.load(tmp_path)


def test_training_goes_on_from_a_folder(model, folder):
    state = mini.read(folder)
    other = mini.Mini()
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_is_kept_in_half_precision_fits_the_repository(model, tmp_path):
    mini.save(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 16e6
    flux, t5, _ = mini.load(tmp_path)
    assert flux.img_in.weight.dtype is t5(["a"]).dtype is torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # saving leaves the model as it is


def test_training_and_sampling_mean_the_same_call(model, folder):
    """The training model's velocity is that of the loaded networks, called as `denoise` calls them."""
    flux, t5, clip = mini.load(folder)
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([0.3, 0.9])
    inputs = prepare(t5, clip, x, CAPTIONS[:2])
    there = flux(inputs["img"], inputs["img_ids"], inputs["txt"], inputs["txt_ids"], t, inputs["vec"])
    torch.testing.assert_close(model(x, t, model.tokenize(CAPTIONS[:2])), there, rtol=1e-3, atol=3e-4)


def test_patches_are_packed_as_flux_packs():
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(mini.patches(x, 2), pack(x))
    assert mini.patches(x, 4).shape == (2, 64, 48)


def flow(model, batch=8, drop=0.1, **options):
    draws = Draws(Pool(model.tokenize, 16, ["single"], 0), batch, drop, torch.device("cpu"))
    return train_mini.Flow(draws, **options)


def test_the_loss_falls_on_a_fixed_batch():
    torch.manual_seed(0)
    model = mini.Mini(mini.PARAMS.replace(in_channels=48, out_channels=48))
    opts, losses = optimisers(model, model.hidden_matrices(), 3e-3), []
    for _ in range(12):
        torch.manual_seed(1)
        loss = flow(model, patch=4).loss(model, 0)
        loss.backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_x_t_lies_between_picture_and_noise(model):
    some = flow(model).draw(0)
    at = some.t[:, None, None, None]
    x = flow(model).draws.pool.batch(np.arange(8))[0]
    torch.testing.assert_close(some.x - at * some.velocity, x)


def test_a_window_is_part_of_the_picture(model):
    windowed = flow(model, window=5)
    keep = windowed._window(torch.device("cpu"))
    rows, columns = keep // 16, keep % 16
    assert keep.shape == (25,) and rows.max() - rows.min() == columns.max() - columns.min() == 4
    assert windowed.loss(model, 0) > 0


def test_distillation_at_guidance_one_asks_for_the_teacher_itself(model, monkeypatch):
    monkeypatch.setattr(train_mini, "GUIDANCE", (1.0, 1.0))
    student = mini.Mini(mini.PARAMS.replace(guidance_embed=True))
    student.load_state_dict(student.state_dict() | model.state_dict())
    assert flow(model, batch=2).distil(model, student, 0) < 1e-8  # its guidance embedding begins as zero
    monkeypatch.setattr(train_mini, "GUIDANCE", (3.0, 3.0))
    assert flow(model, batch=2).distil(model, student, 0) > 1e-6


class Killed(Exception):
    pass


def run(folder, *flags):
    shared = "--patch 4 --pool 40 --batch 2 --warmup 5 --log-every 5 --save-minutes 1e-9 --no-bf16 --device cpu --kinds placed counted"
    train_mini.main(train_mini.parser().parse_args(["--output", str(folder), *shared.split(), *flags]))
    return load_state_dict(disk.newest(folder).with_suffix(".safetensors"))


def test_a_run_killed_at_step_10_and_resumed_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", "--steps", "20")
    drawn = train_mini.Flow.draw

    def killing(self, step):
        if step == 10:
            raise Killed
        return drawn(self, step)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(train_mini.Flow, "draw", killing)
        run(tmp_path / "broken", "--steps", "20")
    resumed = run(tmp_path / "broken", "--steps", "20", "--resume")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    logs = [[json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("whole", "broken")]
    assert logs[0] == logs[1] and len(logs[0]) == 4


def test_from_coarse_over_fine_and_distilled_to_judged_pictures(tmp_path, capsys):
    run(tmp_path / "coarse", "--steps", "2")
    coarse = disk.newest(tmp_path / "coarse").with_suffix(".safetensors")
    run(tmp_path / "fine", "--steps", "2", "--patch", "2", "--init", str(coarse))
    fine = disk.newest(tmp_path / "fine").with_suffix(".safetensors")
    assert "warm start" in capsys.readouterr().out
    run(tmp_path / "guided", "--steps", "2", "--patch", "2", "--distil", str(fine))
    flux, *_ = mini.load(tmp_path / "guided")
    assert flux.params.guidance_embed
    capsys.readouterr()
    flags = [
        "--weights",
        str(tmp_path / "guided"),
        "--images",
        "4",
        "--num_steps",
        "2",
        "--device",
        "cpu",
        "--sheet",
        str(tmp_path / "s.png"),
    ]
    evaluate_mini.main(evaluate_mini.parser().parse_args(flags))
    out = capsys.readouterr().out
    assert all(tag in out for tag in TASKS) and "whole caption" in out and "of 24" in out
    assert (tmp_path / "s.png").stat().st_size > 0


def test_it_samples_under_caching(folder):
    sampler = evaluate_mini.Sampler(mini.load(folder), num_steps=6, method=ToCa(interval=3, ratio=0.3))
    pictures = sampler(["a red circle", "a blue cross"], [1, 2])
    assert pictures.shape == (2, 32, 32, 3)
    plain = evaluate_mini.Sampler(mini.load(folder), num_steps=6)(["a red circle", "a blue cross"], [1, 2])
    assert (pictures != plain).any()


def test_wrong_flags_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="--lr must be a number above 0"):
        run(tmp_path, "--steps", "2", "--lr", "-1")
    with pytest.raises(SystemExit, match="give --steps, --minutes or both"):
        run(tmp_path)
    with pytest.raises(SystemExit, match=r"--window must be in 0..8, got 9"):
        run(tmp_path, "--steps", "2", "--window", "9")
    with pytest.raises(SystemExit, match=r"--distil goes without --init, --patch and --window"):
        run(tmp_path, "--steps", "2", "--distil", "x")  # with the patches of 4 of these runs
    assert not (tmp_path / "log.jsonl").exists()


def test_the_weights_that_come_with_the_fork() -> None:
    """They load strictly, and words are where training put them: another order of the vocabulary would mean other words."""
    own = Path(__file__).resolve().parents[1] / "weights"
    flux = mini.load(own)[0]
    assert f"{sum(p.numel() for p in flux.parameters()) / 1e6:.2f} million parameters" in (own / "README.md").read_text(encoding="utf-8")
    saved = json.loads((own / mini.T5 / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["model"] == json.loads(mini.t5_tokenizer().backend_tokenizer.to_str())["model"]
