"""`toca plan | flops | memory | table dit`: numbers against the published ones, pictures, errors of one line, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from dit.flags import RunSettings, parse, sample_ddp_parser
from toca.cli.main import main
from toca.presets import DIT

README = ["--ddim-sample", "--num-sampling-steps", "50", "--fresh-threshold", "3", "--fresh-ratio", "0.07"]
EXACT = [*README, "--upstream-exact"]
Run = Callable[..., str]


@pytest.fixture
def toca(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> str:
        main(argv)
        return capsys.readouterr().out

    return run


def test_plan_prints_steps_and_a_summary(toca: Run) -> None:
    lines = toca("plan", "dit", *EXACT).splitlines()
    assert lines[0] == "DiT-XL/2, DDIM-50, toca(interval=3, ratio=0.07, upstream_exact=True)"
    assert lines[2].split() == ["steps", "kind", "attn", "tokens", "share", "mlp", "tokens", "share", "GFLOPs/step", "of", "uncached"]
    assert lines[4].split() == ["0", "full", "256", "100.0%", "256", "100.0%", "474.5", "100.0%"]
    assert "18 full, 8 reuse, 2 mixed, 22 partial" in lines[-1]
    assert "10.242 TFLOPs a sample, 2.32x fewer than 23.724" in lines[-1]


def test_plan_data_has_every_step_layer_and_branch(toca: Run) -> None:
    data = json.loads(toca("plan", "dit", *EXACT, "--json"))
    assert data["kinds"] == {"full": 18, "reuse": 8, "mixed": 2, "partial": 22}
    assert [len(step["branches"]["mlp"]["tokens"]) for step in data["steps"]] == [28] * 50
    assert sum(step["flops"]["upstream"] for step in data["steps"]) == 10232809588736
    mixed = next(step for step in data["steps"] if step["kind"] == "mixed")
    assert mixed["branches"]["attn"]["kinds"] == ["full"] + ["reuse"] * 27


@pytest.mark.parametrize("flags", (README, ["--preset", "duca3-ddim50"], ["--preset", "taylorseer-n3-o1-ddim50"], ["--method", "none"]))
def test_plan_draws_a_picture(toca: Run, tmp_path, flags: list[str]) -> None:
    path = tmp_path / "plan.png"
    toca("plan", "dit", *flags, "--png", str(path))
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("flags", "total", "uncached"),
    (
        (EXACT, 10232809588736, 23735281203200),
        (["--preset", "toca4-ddpm250", "--upstream-exact"], 43420574210048, 118676406016000),
        (["--preset", "toca1-ddpm250", "--upstream-exact"], 103549585270784, 118676406016000),
    ),
)
def test_flops_are_the_published_ones(toca: Run, flags: list[str], total: int, uncached: int) -> None:
    for images in (1, 3):
        counter = json.loads(toca("flops", "dit", *flags, "--images", str(images), "--json"))["counters"]["upstream"]
        assert (counter["total"], counter["uncached"]) == (images * total, images * uncached)
        assert sum(counter["kinds"].values()) == counter["total"]
    assert str(total)[:-12] + "." + str(total)[-12:] in toca("flops", "dit", *flags)


def test_without_guidance_an_image_is_one_row(toca: Run) -> None:
    guided, plain = (json.loads(toca("flops", "dit", *README, "--cfg-scale", scale, "--json")) for scale in ("1.5", "1"))
    assert guided["counters"]["matmul"]["total"] == 2 * plain["counters"]["matmul"]["total"]


def test_memory_of_the_readme_run(toca: Run) -> None:
    data = json.loads(toca("memory", "dit", *README, "--json"))
    outputs = 28 * 2 * 2 * 256 * 1152 * 4
    assert {step["outputs"] for step in data["steps"]} == {0, outputs}
    assert data["steps"][-1]["outputs"] == 0
    assert data["published_attention_maps"] == 28 * 2 * 256**2 * 4
    assert data["peak"]["total"] == max(step["total"] for step in data["steps"])
    text = toca("memory", "dit", *README, "--batch", "64", "--dtype", "bf16")
    assert "batch 64 (128 rows), bf16" in text
    assert "exceed the budget of 256.00 MiB" in text
    assert "peak 3.95 GiB" in text


def test_table_lists_every_published_row(toca: Run) -> None:
    data = {entry["preset"]: entry for entry in json.loads(toca("table", "dit", "--json"))}
    assert data.keys() == DIT.keys()
    lines = toca("table", "dit").splitlines()
    assert sum(line.endswith("]") for line in lines) == sum(len(preset.published) for preset in DIT.values())
    row = next(line for line in lines if line.startswith("toca3-ddim50"))
    assert row.split()[:7] == ["toca3-ddim50", "10.233", "2.32", "10.23", "2.32", "11.133", "2.13"]


def test_table_of_one_preset_with_another_flag(toca: Run) -> None:
    (entry,) = json.loads(toca("table", "dit", "--preset", "ddim50", "--cfg-scale", "1", "--json"))
    assert entry["exact"]["flops"] == 23735281203200 // 2


@pytest.mark.parametrize(
    ("argv", "message"),
    (
        (["plan", "flux9"], "there is no model 'flux9'; installed: "),
        (["bench", "flux9"], "there is no benchmark 'flux9'; installed: "),
        (["plan", "dit", "--model", "DiT-XXL/2"], "argument --model: invalid choice"),
        (["plan", "dit", "--image-size", "100"], "--image-size must be a multiple of 16"),
        (["plan", "dit", "--image-size", "0"], "argument --image-size: must be a whole number of 1 to 16384"),
        (["plan", "dit", "--num-sampling-steps", "0"], "argument --num-sampling-steps: must be a whole number of 1 to 1000, got '0'"),
        (["plan", "dit", "--num-sampling-steps", "1001"], "argument --num-sampling-steps: must be a whole number of 1 to 1000, got '1001'"),
        (["flops", "dit", "--fresh-threshold", "0"], "argument --fresh-threshold: must be a whole number of 1 to 1000, got '0'"),
        (["flops", "dit", "--fresh-ratio", "-1"], "argument --fresh-ratio: must be 0 to 1000, got '-1'"),
        (["flops", "dit", "--fresh-ratio", "nan"], "argument --fresh-ratio: must be 0 to 1000, got 'nan'"),
        (["flops", "dit", "--images", "0"], "argument --images: must be a whole number of at least 1, got '0'"),
        (["flops", "dit", "--cfg-scale", "0.5"], "argument --cfg-scale: must be 1 to 1000, got '0.5'"),
        (["memory", "dit", "--dtype", "fp8"], "argument --dtype: invalid choice"),
        (["table", "dit", "--preset", "toca9"], "argument --preset: invalid choice"),
        (["plan", "dit", "--steps", "3"], "unrecognized arguments: --steps 3"),
        (["plan", "dit", "--png", "plan.xyz"], "cannot draw plan.xyz"),
    ),
)
def test_mistakes_end_with_one_line(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as exit:
        main(argv)
    out, err = capsys.readouterr()
    assert exit.value.code == 2
    assert not out
    assert err.startswith(f"toca {argv[0]} {argv[1]}: error: {message}")
    assert err.count("\n") == 1


def test_help_names_the_model_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["memory", "dit", "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert "usage: toca memory dit" in out
    for flag in ("--fresh-threshold", "--preset", "--batch", "--dtype", "--json"):
        assert flag in out


@pytest.mark.parametrize("command", ("plan", "flops", "memory", "table"))
def test_answers_without_torch_numpy_or_matplotlib(command: str) -> None:
    """These are what takes longer than a second to import."""
    code = (
        "import sys; from toca.cli.main import main; main(sys.argv[1:]); "
        "sys.exit(', '.join({'torch', 'numpy', 'matplotlib'} & sys.modules.keys()) or None)"
    )
    subprocess.run([sys.executable, "-c", code, command, "dit", "--preset", "toca3-ddim50"], check=True, stdout=subprocess.DEVNULL)


def test_bench_hands_its_arguments_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["bench", "dit", "--help"])
    assert exit.value.code == 0
    assert "usage: toca bench dit" in capsys.readouterr().out


def test_a_solver_takes_the_place_of_ddim_and_ddpm() -> None:
    argv = ["--model", "DiT-mini", "--solver", "unipc", "--num-sampling-steps", "17", "--method", "none"]
    settings = RunSettings.from_args(parse(sample_ddp_parser(), argv))
    assert settings.solver == ("unipc", "karras") and settings.run.title == "DiT-mini, unipc (karras)-17"
    assert settings.pictures()["solver"] == ("unipc", "karras") and "-unipc-karras-step-17-" in settings.folder_name()
    assert RunSettings.from_args(parse(sample_ddp_parser(), [*argv, "--grid", "quadratic"])).solver == ("unipc", "quadratic")


@pytest.mark.parametrize(
    "more, message",
    [
        (["--grid", "karras"], "--grid karras needs --solver"),
        (["--solver", "unipc", "--ddim-sample"], "--ddim-sample and --solver unipc are two samplers"),
        (["--solver", "unipc", "--upstream-stream"], "leave --solver out"),
        (["--solver", "unipc", "--eta", "0.5"], "--eta needs --ddim-sample"),
    ],
)
def test_solvers_that_do_not_go_with_other_flags(more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunSettings.from_args(parse(sample_ddp_parser(), ["--model", "DiT-mini", *more]))
