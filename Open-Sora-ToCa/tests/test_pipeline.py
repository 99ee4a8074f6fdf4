"""Given frames and long videos: what is taken over, from where, and that it is kept."""

from __future__ import annotations

import dataclasses

import av
import pytest
import torch
from programs import infer, names, noise_video, pixels

from opensora import runs as run_module
from opensora.datasets.write_video import save_sample
from opensora.pipeline import Pipeline


@pytest.fixture
def latents(monkeypatch) -> list[dict]:
    """What every clip was sampled from and to: noise with given frames (z), the mask, and the result (out)."""
    calls = []
    load = run_module.load_pipeline

    def load_and_watch(*args, **options) -> Pipeline:
        pipeline = load(*args, **options)
        scheduler = pipeline.scheduler

        class Watched:
            num_sampling_steps = scheduler.num_sampling_steps

            def sample(self, model, z, y, y_null, **settings):
                out = scheduler.sample(model, z, y, y_null, **settings)
                calls.append(dict(z=z, mask=settings["mask"], out=out, y=y))
                return out

        return dataclasses.replace(pipeline, scheduler=Watched())

    monkeypatch.setattr(run_module, "load_pipeline", load_and_watch)
    return calls


def test_the_frame_of_a_picture_is_kept(monkeypatch, config, tmp_path, latents) -> None:
    save_sample(noise_video(1, 40, 32), tmp_path / "a.png", 24, {})
    flags = ("--prompt", "a fox", "a hen", "--batch-size", 2, "--reference-path", tmp_path / "a.png", "", "--mask-strategy", "0", "")
    infer(monkeypatch, config, tmp_path / "out", *flags)
    (call,) = latents
    assert call["mask"].tolist() == [[0, 1, 1, 1, 1], [1] * 5]
    assert torch.equal(call["out"][0, :, 0], call["z"][0, :, 0])
    assert not torch.isclose(call["out"][0, :, 1:], call["z"][0, :, 1:]).all()
    infer(monkeypatch, config, tmp_path / "free", "--prompt", "a fox", "a hen", "--batch-size", 2)
    free = latents[1]
    assert free["mask"] is None and torch.equal(call["z"][:, :, 1:], free["z"][:, :, 1:])
    torch.testing.assert_close(call["out"][1], free["out"][1], atol=1e-4, rtol=0)
    assert (call["out"][0, :, 1:] - free["out"][0, :, 1:]).abs().max() > 0.01


def test_a_video_is_edited_from_a_level_of_noise_on(monkeypatch, config, tmp_path, latents) -> None:
    save_sample(noise_video(40, 16, 24), tmp_path / "a.mp4", 24, {})
    flags = ("--prompt", "a fox", "--reference-path", tmp_path / "a.mp4", "--mask-strategy", "0,0,5,0,5,0.4", "--preset", "none")
    infer(monkeypatch, config, tmp_path / "out", *flags)
    (call,) = latents
    assert call["mask"].tolist() == [pytest.approx([0.4] * 5)]
    assert 0.1 < (call["out"] - call["z"]).abs().mean() < 3 * call["z"].std()
    again = tmp_path / "again"
    infer(monkeypatch, config, again, *flags)
    assert torch.equal(latents[1]["out"], call["out"])


def test_clips_continue_the_one_before(monkeypatch, config, tmp_path, latents) -> None:
    flags = ("--num-frames", 34, "--loop", 3, "--prompt", "|0|a fox|2|a hen", "--condition-frame-length", 5)
    infer(monkeypatch, config, tmp_path / "out", *flags)
    assert names(tmp_path / "out") == ["sample_0000.mp4"]
    with av.open(tmp_path / "out" / "sample_0000.mp4") as container:
        assert container.streams.video[0].frames == 34 + 2 * (34 - 17)
    first, second, third = latents
    assert first["mask"] is None and second["mask"].tolist() == third["mask"].tolist() == [[0] * 5 + [1] * 5]
    assert torch.equal(second["out"][:, :, :5], second["z"][:, :, :5])
    assert not torch.equal(second["z"][:, :, 5:], first["z"][:, :, 5:])
    assert torch.equal(first["y"], second["y"]) and first["y"].shape == third["y"].shape and not torch.equal(first["y"], third["y"])


def test_a_prompt_says_what_is_given_to_it(monkeypatch, config, tmp_path, latents) -> None:
    save_sample(noise_video(1, 16, 24), tmp_path / "a.png", 24, {})
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f'a fox{{"reference_path": "{tmp_path}/a.png", "mask_strategy": "0"}}\na hen\n')
    infer(monkeypatch, config, tmp_path / "out", "--prompt-path", prompts, "--prompt-as-path")
    assert names(tmp_path / "out") == ["a fox.mp4", "a hen.mp4"]
    assert latents[0]["mask"].tolist() == [[0, 1, 1, 1, 1]] and latents[1]["mask"] is None
    assert len(pixels(tmp_path / "out" / "a fox.mp4")) == 17
