"""From prompts to files: what scripts/inference.py and sample.py write, and that only what should changes it."""

from __future__ import annotations

import av
import pytest
import torch
from PIL import Image
from programs import alike, fails, infer, names, noise_video, pixels, run

from opensora import runs as run_module
from opensora.datasets import write_video
from opensora.datasets.write_video import about_sample, save_sample

PROMPT = ("--prompt", "a beautiful waterfall")


@pytest.fixture
def made(monkeypatch) -> dict[str, torch.Tensor]:
    """The frames of every file, as they were before the codec, which makes much of the last bit."""
    frames_of = {}

    def save(frames, path, fps, about) -> None:
        frames_of[path.name] = frames.int()
        save_sample(frames, path, fps, about)

    monkeypatch.setattr(run_module, "save_sample", save)
    return frames_of


def test_a_prompt_becomes_a_playable_video(monkeypatch, config, tmp_path) -> None:
    folder = tmp_path / "out"
    infer(monkeypatch, config, folder, *PROMPT, "--save-fps", 12)
    assert names(folder) == ["sample_0000.mp4"]
    with av.open(folder / "sample_0000.mp4") as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 12, 17)
        assert (stream.height, stream.width) == (16, 24)
    assert pixels(folder / "sample_0000.mp4").float().std() > 1
    about = about_sample(folder / "sample_0000.mp4")
    assert about["texts"] == ["a beautiful waterfall aesthetic score: 6.5."] and about["method"]["name"] == "toca"


def test_one_frame_becomes_a_picture(monkeypatch, config, tmp_path) -> None:
    infer(monkeypatch, config, tmp_path / "out", *PROMPT, "--num-frames", 1, "--num-sample", 2, "--sample-name", "short")
    assert names(tmp_path / "out") == ["short_0000-0.png", "short_0000-1.png"]
    with Image.open(tmp_path / "out" / "short_0000-0.png") as picture:
        assert picture.size == (24, 16)


def test_sample_writes_one_file(monkeypatch, config, tmp_path, made) -> None:
    flags = ("--image-size", 16, 24, "--num-frames", 17, "--num-sampling-steps", 6, *PROMPT)
    run(monkeypatch, "sample.py", config, *flags, "--output", tmp_path / "a.mp4")
    infer(monkeypatch, config, tmp_path / "out", *PROMPT)
    assert torch.equal(made["a.mp4"], made["sample_0000.mp4"]) and alike(tmp_path / "a.mp4", tmp_path / "out" / "sample_0000.mp4")
    with pytest.raises(SystemExit, match=r"ends in \.mp4"):
        run(monkeypatch, "sample.py", config, *flags, "--output", tmp_path / "a.png")


def test_a_video_does_not_depend_on_its_batch(monkeypatch, config, tmp_path, made) -> None:
    """Nor on the prompts before it, their lengths, or how many samples each has."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na much longer text of a hen in the snow\na fox\n")
    flags = ("--prompt-path", prompts, "--cache-type", "random", "--fresh-ratio", 0.3)
    infer(monkeypatch, config, tmp_path / "b", *flags, "--batch-size", 3)
    infer(monkeypatch, config, tmp_path / "s", *flags, "--start-index", 1, "--num-sample", 2)
    assert names(tmp_path / "s") == [f"sample_000{i}-{k}.mp4" for i in (1, 2) for k in (0, 1)]
    for i in (1, 2):
        assert (made[f"sample_000{i}.mp4"] - made[f"sample_000{i}-0.mp4"]).abs().max() <= 1
    assert (made["sample_0000.mp4"] - made["sample_0002.mp4"]).abs().max() > 10, "the same prompt twice has different noise"


def test_noise_as_published_is_shared_by_prompts(monkeypatch, config, tmp_path, made) -> None:
    infer(monkeypatch, config, tmp_path / "out", "--prompt", "a fox", "a fox", "--shared-noise")
    first, second = made.values()
    assert (first - second).abs().max() <= 1


@pytest.mark.parametrize("flags", ["--method none", "--seed 7", "--cfg-scale 1", "--preset fora", "--flow 1", "--cycles 2 3 4 5"])
def test_settings_change_the_video(monkeypatch, config, tmp_path, flags) -> None:
    infer(monkeypatch, config, tmp_path / "a", *PROMPT)
    infer(monkeypatch, config, tmp_path / "b", *PROMPT, *flags.split())
    assert not torch.equal(*(pixels(tmp_path / folder / "sample_0000.mp4") for folder in "ab"))


def test_the_same_command_goes_on_where_it_stopped(monkeypatch, config, tmp_path, capsys, made) -> None:
    folder, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a fox\na hen\na fox\n")
    command = ("--prompt-path", prompts, "--prompt-as-path", "--num-sample", 2)
    infer(monkeypatch, config, folder, *command)
    assert names(folder) == ["a fox-0.mp4", "a fox-1.mp4", "a hen-0.mp4", "a hen-1.mp4"]
    before = dict(made)
    made.clear()
    (folder / "a hen-0.mp4").unlink()
    (folder / ".a hen-0.0123abcd.part.mp4").write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("a fox*")}
    infer(monkeypatch, config, folder, *command)
    assert "1 to do" in capsys.readouterr().out
    assert made.keys() == {"a hen-0.mp4"} and torch.equal(made["a hen-0.mp4"], before["a hen-0.mp4"])
    assert names(folder) == sorted(before)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(SystemExit, match=r"a fox-0\.mp4 was made with other settings \(seed\)"):
        infer(monkeypatch, config, folder, *command, "--seed", 1)


def test_numbered_files_are_made_anew_with_other_settings(monkeypatch, config, tmp_path) -> None:
    infer(monkeypatch, config, tmp_path / "out", "--prompt", "a fox")
    before = pixels(tmp_path / "out" / "sample_0000.mp4")
    infer(monkeypatch, config, tmp_path / "out", "--prompt", "a hen")
    assert about_sample(tmp_path / "out" / "sample_0000.mp4")["texts"][0].startswith("a hen")
    assert not torch.equal(pixels(tmp_path / "out" / "sample_0000.mp4"), before)


def test_half_a_video_is_never_there(monkeypatch, tmp_path) -> None:
    frames = noise_video(20, 16, 24)

    def broken(self, frame=None):
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(write_video, "_write_video", lambda frames, path, fps, comment: (path.write_bytes(b"half"), broken(None)))
        with pytest.raises(RuntimeError, match="disk"):
            save_sample(frames, tmp_path / "a.mp4", 24, {})
    assert names(tmp_path) == []
    save_sample(frames, tmp_path / "a.mp4", 24, dict(prompt="ä “x”"))
    assert about_sample(tmp_path / "a.mp4") == dict(prompt="ä “x”")
    assert len(pixels(tmp_path / "a.mp4")) == 20


def test_a_watermarked_copy(monkeypatch, config, tmp_path) -> None:
    infer(monkeypatch, config, tmp_path / "out", *PROMPT, "--image-size", 64, 96, "--watermark", "yes", "--num-frames", 1)
    plain, mark = (torch.frombuffer(bytearray(Image.open(tmp_path / "out" / name).tobytes()), dtype=torch.uint8).int()
                   for name in ("sample_0000.png", "sample_0000_watermark.png"))  # fmt: skip
    changed = (mark - plain).view(64, 96, 3).abs().amax(dim=2)
    assert changed.any() and changed[:32].eq(0).all() and changed[:, :30].eq(0).all()


def test_a_bad_flag_or_file_is_one_line_before_anything_runs(monkeypatch, config, tmp_path) -> None:
    video, text, cut = (tmp_path / f"{name}.mp4" for name in ("video", "text", "cut"))
    save_sample(noise_video(5, 16, 24), video, 24, {})
    text.write_text("no video")
    (tmp_path / "empty.txt").write_text("\n")
    cut.write_bytes(video.read_bytes()[:300])
    wrong = {
        "--image-size: must be a whole number of 8 to 16384": (*PROMPT, "--image-size", 4, 16),
        "1 (a picture) or at least 17, got 16": (*PROMPT, "--num-frames", 16),
        "number of frames '3 s'": (*PROMPT, "--num-frames", "3 s"),
        "there is no reference": (*PROMPT, "--reference-path", tmp_path / "none.mp4", "--mask-strategy", "0"),
        f"reference {text}: not a readable video": (*PROMPT, "--reference-path", text, "--mask-strategy", "0"),
        f"reference {cut}: not a readable video": (*PROMPT, "--reference-path", cut, "--mask-strategy", "0"),
        "expected a picture": (*PROMPT, "--reference-path", tmp_path / "empty.txt", "--mask-strategy", "0"),
        "is malformed": (*PROMPT, "--reference-path", video, "--mask-strategy", "0;x"),
        "names reference 1": (*PROMPT, "--reference-path", video, "--mask-strategy", "0,1"),
        "has 2 latent frames, none at 5": (*PROMPT, "--reference-path", video, "--mask-strategy", "0,0,5", "--align", 1),
        "2 values for 1 prompts": (*PROMPT, "--mask-strategy", "0", "0"),
        "empty.txt holds no prompt": ("--prompt-path", tmp_path / "empty.txt"),
        "cannot be read: No such file": ("--prompt-path", tmp_path / "none.txt"),
        "there is no prompt": (),
        "is not JSON": ("--prompt", "a fox{"),
        "cannot name a file": ("--prompt", "a/b", "--prompt-as-path"),
        "must be a multiple of 5": (*PROMPT, "--loop", 2, "--condition-frame-length", 4, "--num-frames", 34),
        "must be in 1..4": (*PROMPT, "--loop", 2, "--condition-frame-length", 5),
        "--num-sample: must be a whole number of 1 to": (*PROMPT, "--num-sample", 0),
        "--num-sampling-steps: must be a whole number of 1 to": (*PROMPT, "--num-sampling-steps", 0),
        "there is no checkpoint /none": (*PROMPT, "--ckpt-path", "/none"),
        "--cfg-scale: must be -1000 to 1000, got 'nan'": (*PROMPT, "--cfg-scale", "nan"),
        "--fresh-threshold: must be a whole number of 1 to": (*PROMPT, "--fresh-threshold", 0),
        "127.0.0.1:9/a.png: cannot be fetched": (*PROMPT, "--reference-path", "http://127.0.0.1:9/a.png", "--mask-strategy", "0"),
        "llm-refine": (*PROMPT, "--llm-refine", "true"),
    }
    for message, flags in wrong.items():
        assert message in fails(monkeypatch, config, tmp_path / "out", *flags)


def test_an_unknown_size_is_one_line(monkeypatch, config, tmp_path) -> None:
    for flags, message in ((("481p", "9:16"), "no resolution '481p'"), (("480p", "7:3"), "480p has no aspect ratio '7:3'")):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, "scripts/inference.py", config, *PROMPT, "--save-dir", tmp_path / "out", "--resolution", flags[0],
                "--aspect-ratio", flags[1])  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_machine_without_an_encoder_is_one_line(monkeypatch, config, tmp_path) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    assert "no libx264 encoder" in fails(monkeypatch, config, tmp_path / "out", *PROMPT)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert "pip install av" in fails(monkeypatch, config, tmp_path / "out", *PROMPT)


@pytest.mark.parametrize(
    "change, message",
    [
        (("vae =", "vea ="), "lacks vae"),
        (("aes = 6.5", "aesthetics = 6.5"), "sets aesthetics; known are aes, align"),
        (("num_sampling_steps=6", "steps=6"), "scheduler of type 'rflow': got an unexpected keyword argument 'steps'"),
        (("OpenSoraVAE_V1_2", "OpenSoraVAE"), "no model of type 'OpenSoraVAE'; known: OpenSoraVAE_V1_2"),
        (('"fp32"', '"fp31"'), "sets dtype = 'fp31'; choose from fp16, bf16, fp32"),
        (("align = 5", "align = 2.5"), "sets align = 2.5: must be a whole number"),
        (("align = 5", "align ="), "SyntaxError"),
        (("toca-r85", "toca-r99"), "sets preset = 'toca-r99'; choose from"),
        (("/vae", "/gone"), "there is no checkpoint"),
    ],
)
def test_a_wrong_configuration_is_one_line(monkeypatch, config, tmp_path, change, message) -> None:
    text = config.read_text()
    assert change[0] in text
    (tmp_path / "wrong.py").write_text(text.replace(*change))
    assert message in fails(monkeypatch, tmp_path / "wrong.py", tmp_path / "out", *PROMPT)


def test_missing_weights_are_one_line(monkeypatch, config, tmp_path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "no_vae.py").write_text(config.read_text().replace(f"{config.parent}/vae", f"{tmp_path}/vae"))
    assert f"{tmp_path}/vae holds no weights: there is no model.safetensors" in fails(
        monkeypatch, tmp_path / "no_vae.py", tmp_path / "out", *PROMPT
    )
    (tmp_path / "no_t5.py").write_text(config.read_text().replace(f"{config.parent}/t5", f"{tmp_path}/t5"))
    with pytest.raises(SystemExit, match="t5"):
        infer(monkeypatch, tmp_path / "no_t5.py", tmp_path / "out", *PROMPT)
