"""From prompts to files: what scripts/inference.py and sample.py write, and that only what should changes it."""

from __future__ import annotations

import errno
import json
import shutil
from types import SimpleNamespace

import av
import pytest
import torch
from PIL import Image
from programs import alike, fails, infer, names, noise_video, pixels, run
from safetensors.torch import load_file, save_file
from tiny_parts import MODEL_SIZES

from opensora import runs as run_module
from opensora.datasets import write_video
from opensora.datasets.write_video import about_sample, read_sample, save_sample
from opensora.models.stdit.stdit3 import STDiT3
from toca.runs.folder import RunFolder

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


def counting(monkeypatch) -> list[list]:
    """The batches that are sampled."""
    batches = []
    generate = run_module.Pipeline.generate
    monkeypatch.setattr(run_module.Pipeline, "generate", lambda self, items: batches.append(list(items)) or generate(self, items))
    return batches


@pytest.mark.parametrize("flags", [("--num-frames", 1), ()], ids=["picture", "video"])
def test_a_watermark_is_added_to_what_is_finished(monkeypatch, config, tmp_path, capsys, flags) -> None:
    command = (*PROMPT, "--num-sample", 2, "--image-size", 64, 96, *flags)
    infer(monkeypatch, config, tmp_path / "out", *command)
    plain = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    batches = counting(monkeypatch)
    infer(monkeypatch, config, tmp_path / "out", *command, "--watermark", "yes")
    assert "0 to do" in capsys.readouterr().out and not batches
    assert len(names(tmp_path / "out")) == 4 and all(path.read_bytes() == content for path, content in plain.items())
    for path in plain:
        mark = path.with_stem(f"{path.stem}_watermark")
        brighter = (read_sample(mark).float() - read_sample(path).float()).mean(dim=(0, 3))  # the codec of videos changes both ways
        assert about_sample(mark) == about_sample(path) and brighter[48:, 40:].max() > 60 > 20 > brighter[:32].abs().max()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    infer(monkeypatch, config, tmp_path / "out", *command, "--watermark", "yes")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_reference_that_changed_is_another_video(monkeypatch, config, tmp_path, capsys) -> None:
    command = (*PROMPT, "--num-frames", 1, "--reference-path", tmp_path / "a.png", "--mask-strategy", "0,0,0,0,1,0.5")
    for colour, todo in (("red", 1), ("red", 0), ("blue", 1)):
        Image.new("RGB", (24, 16), colour).save(tmp_path / "a.png")
        infer(monkeypatch, config, tmp_path / "out", *command)
        assert f"{todo} to do" in capsys.readouterr().out


def test_what_cleaning_leaves_nothing_of_is_said(monkeypatch, config, tmp_path, capsys) -> None:
    infer(monkeypatch, config, tmp_path / "a", "--prompt", "a fox", "[]", "--num-frames", 1)
    out = capsys.readouterr().out
    assert "prompt 1 is empty once it is cleaned: '[]'; --clean-prompts false has it read as it is" in out and "prompt 0" not in out
    assert about_sample(tmp_path / "a" / "sample_0001.png")["texts"] == ["aesthetic score: 6.5."]
    infer(monkeypatch, config, tmp_path / "b", "--prompt", "a fox", "[]", "--num-frames", 1, "--clean-prompts", "false")
    assert about_sample(tmp_path / "b" / "sample_0001.png")["texts"] == ["[] aesthetic score: 6.5."]
    assert "is empty" not in capsys.readouterr().out
    infer(monkeypatch, config, tmp_path / "c", "--prompt", "a fox <![", "--num-frames", 1)
    assert names(tmp_path / "c") == ["sample_0000.png"]


def test_upstreams_flags_that_do_nothing_are_named(monkeypatch, config, tmp_path, capsys) -> None:
    infer(monkeypatch, config, tmp_path / "a", *PROMPT, "--num-frames", 1, "--flash-attn", "no", "--outputs", "x", "--resolution", "144p")
    assert "--flash-attn, --outputs, --resolution: accepted and not used" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.pt", "weights.SAFETENSORS", "weights.sft", "weights"])
def test_weights_are_told_by_what_is_in_them(monkeypatch, config, tmp_path, made, name) -> None:
    state = load_file(config.parent / "stdit" / "model.safetensors")
    (torch.save if name.endswith(".pt") else save_file)(state, tmp_path / name)
    settings = json.loads((config.parent / "stdit" / "config.json").read_text())
    sizes = {key: settings[key] for key in MODEL_SIZES}
    (tmp_path / "file.py").write_text(config.read_text() + f"model.update({sizes})\n")
    infer(monkeypatch, tmp_path / "file.py", tmp_path / "out", *PROMPT, "--num-frames", 1, "--ckpt-path", tmp_path / name)
    infer(monkeypatch, config, tmp_path / "folder", *PROMPT, "--num-frames", 1)
    frames = [about_sample(tmp_path / folder / "sample_0000.png") for folder in ("out", "folder")]
    assert frames[0]["texts"] == frames[1]["texts"]
    pictures = [read_sample(tmp_path / folder / "sample_0000.png") for folder in ("out", "folder")]
    assert torch.equal(*pictures)


def test_weights_that_are_not_finite_are_refused(monkeypatch, config, tmp_path) -> None:
    state = load_file(config.parent / "stdit" / "model.safetensors")
    state["t_block.1.bias"][3] = float("nan")
    shutil.copytree(config.parent / "stdit", tmp_path / "stdit")
    save_file(state, tmp_path / "stdit" / "model.safetensors")
    with pytest.raises(SystemExit, match=r"t_block\.1\.bias holds NaN or infinite values"):
        infer(monkeypatch, config, tmp_path / "out", *PROMPT, "--num-frames", 1, "--ckpt-path", tmp_path / "stdit")
    assert names(tmp_path / "out") == []


def test_latents_that_are_not_finite_are_no_black_picture(monkeypatch, config, tmp_path) -> None:
    monkeypatch.setattr(STDiT3, "unpatchify", lambda self, x, *sizes: torch.full((2, 8, *sizes[1]), float("inf")))
    with pytest.raises(SystemExit, match=r"the latents of a clip: .* values are NaN or infinite"):
        infer(monkeypatch, config, tmp_path / "out", *PROMPT, "--num-frames", 1)
    assert names(tmp_path / "out") == []


def test_a_second_run_in_a_folder_is_refused(monkeypatch, config, tmp_path) -> None:
    with RunFolder(tmp_path / "out", None), pytest.raises(SystemExit, match="another run is at work in"):
        infer(monkeypatch, config, tmp_path / "out", *PROMPT)
    assert names(tmp_path / "out") == []


def test_sample_leaves_the_parts_of_others_alone(monkeypatch, config, tmp_path) -> None:
    (tmp_path / ".b.0123abcd.part.png").write_bytes(b"half")
    flags = ("--image-size", 16, 24, "--num-frames", 1, "--num-sampling-steps", 2, *PROMPT)
    run(monkeypatch, "sample.py", config, *flags, "--output", tmp_path / "a.png")
    assert names(tmp_path) == [".b.0123abcd.part.png", "a.png"]


def test_a_full_disk_is_one_line(monkeypatch, config, tmp_path) -> None:
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SystemExit, match="the disk is full"):
        infer(monkeypatch, config, tmp_path / "out", *PROMPT, "--num-frames", 1)
    assert names(tmp_path / "out") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "this run writes about" in fails(monkeypatch, config, tmp_path / "none", *PROMPT, "--num-frames", 1)
