from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers.models import DiTTransformer2DModel
from safetensors.torch import save_file
from tiny import MINI8, one_thread, random_dit, save_dit
from torch import Tensor

import download
from dit import layouts, weights
from dit.flags import RunSettings, class_labels, parse, sample_parser, vae_name
from dit.model import DiT
from dit.pipeline import Pipeline
from dit.spec import CONFIGS, DiTConfig
from toca.runs.programs import program_errors
from toca.testing.parts import save_vae

__all__ = ["one_thread"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path / "pretrained_models")
    monkeypatch.setattr(weights, "MINI", tmp_path / "weights" / "DiT-mini.safetensors")
    (tmp_path / "pretrained_models").mkdir()
    return tmp_path


@pytest.mark.parametrize("size", [256, 512])
def test_official_files_are_found_or_explained(folders, size):
    name = f"DiT-XL-2-{size}x{size}.pt"
    with pytest.raises(FileNotFoundError) as error:
        weights.checkpoint_path("DiT-XL/2", size)
    expected = [name, weights.SOURCE + name, str(folders / "pretrained_models"), "`--model DiT-mini` runs without any"]
    assert all(part in str(error.value) for part in expected)
    (folders / "pretrained_models" / name).touch()
    assert weights.checkpoint_path("DiT-XL/2", size) == folders / "pretrained_models" / name
    assert weights.checkpoint_path("DiT-XL/2", size, name) == folders / "pretrained_models" / name


@pytest.mark.parametrize("model, size", [("DiT-S/8", 256), ("DiT-XL/2", 128)])
def test_models_without_official_weights_ask_for_ones_own(model, size):
    with pytest.raises(FileNotFoundError, match=f"no official weights for {model} at {size} .*--ckpt"):
        weights.checkpoint_path(model, size)


def test_the_embedded_model_and_ones_own_files(folders):
    with pytest.raises(FileNotFoundError, match="no checkpoint DiT-mini"):
        weights.checkpoint_path("DiT-mini", 32)
    weights.MINI.parent.mkdir()
    weights.MINI.touch()
    assert weights.checkpoint_path("DiT-mini", 32) == weights.MINI
    with pytest.raises(FileNotFoundError) as error:
        weights.checkpoint_path("DiT-mini", 32, "results/mine.pt")
    assert weights.SOURCE not in str(error.value)  # nobody publishes results/mine.pt


def test_download_fetches_what_is_missing(folders, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path: fetched.append((url, path)))
    (folders / "pretrained_models" / "DiT-XL-2-512x512.pt").touch()
    download.main([])
    assert fetched == [(weights.SOURCE + "DiT-XL-2-256x256.pt", str(folders / "pretrained_models" / "DiT-XL-2-256x256.pt"))]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_missing_vae_is_explained_in_one_line(folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        "diffusers.AutoencoderKL.from_pretrained", lambda name, **_: (_ for _ in ()).throw(OSError(f"We couldn't connect\nto load {name}"))
    )
    with pytest.raises(SystemExit) as error, program_errors():
        weights.load_vae("mse", torch.device("cpu"))
    text = str(error.value)
    where = str(folders / "pretrained_models" / "sd-vae-ft-mse")
    assert all(part in text for part in ("stabilityai/sd-vae-ft-mse", "download.py --vae mse", where, "--model DiT-mini", "couldn't"))
    assert "\n" not in text


def test_a_folder_that_holds_no_vae_is_explained(tmp_path):
    with pytest.raises(ValueError, match="is it a diffusers folder"):
        weights.load_vae(str(tmp_path), torch.device("cpu"))


def test_a_vae_in_pretrained_models_needs_no_hub(folders):
    save_vae(folders / "pretrained_models" / "sd-vae-ft-ema")
    assert weights.load_vae("ema", torch.device("cpu")).config.latent_channels == 4
    assert weights.save_published("ema") == folders / "pretrained_models" / "sd-vae-ft-ema"


def test_a_vae_of_another_stride_is_refused(tmp_path):
    with pytest.raises(ValueError, match="stride 2"):
        weights.load_vae(save_vae(tmp_path / "vae", blocks=2), torch.device("cpu"))


def test_decoding_and_encoding(tmp_path):
    name, cpu = save_vae(tmp_path / "vae"), torch.device("cpu")
    decode, encode, model = weights.load_decoder(name, cpu), weights.load_encoder(name, cpu), weights.load_vae(name, cpu)
    latents = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(decode(latents), model.decode(latents / 0.18215).sample, atol=1e-5, rtol=1e-5)
        assert torch.equal(decode(latents)[1:2], decode(latents[1:2]))  # no picture depends on its batch
        pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        posterior = model.encode(pixels).latent_dist
        torch.manual_seed(5)
        ours = encode(pixels)
        torch.manual_seed(5)
        torch.testing.assert_close(ours, 0.18215 * (posterior.mean + posterior.std * torch.randn(posterior.mean.shape)))
    assert not ours.requires_grad


def test_pixel_models_need_no_vae():
    x = torch.randn(2, 3, 4, 4)
    assert vae_name(None, 3, "ema") == "none" and vae_name(None, 4, "ema") == "ema" and vae_name("mse", 4, "ema") == "mse"
    assert weights.load_decoder("none", torch.device("cpu"))(x) is x and weights.load_encoder("none", torch.device("cpu"))(x) is x
    for name, channels in (("ema", 3), ("none", 4)):
        with pytest.raises(ValueError, match=f"--vae {name}"):
            vae_name(name, channels, "ema")


# ---- checkpoints that are not as train.py or the official files have them ------------------------------------------------------------


def settings_of(*flags: str) -> RunSettings:
    args = parse(sample_parser(), ["--model", "DiT-mini", "--image-size", "8", "--device", "cpu", *flags])
    return RunSettings.from_args(args, class_labels(args))


def save(path: Path, state: dict[str, Tensor]) -> str:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return str(path)


@pytest.mark.parametrize("config", [*CONFIGS.values(), MINI8.replace(class_dropout_prob=0.0, mlp_ratio=2.0, learn_sigma=False)])
def test_the_shapes_of_a_checkpoint_are_the_networks(config: DiTConfig) -> None:
    with torch.device("meta"):
        state = DiT(config).state_dict()
    assert layouts.shapes(config) == {key: tuple(value.shape) for key, value in state.items()}


def reference(config: DiTConfig) -> DiTTransformer2DModel:
    """diffusers' model with random weights, and DiT's own frequencies; diffusers spaces them a little wider."""
    torch.manual_seed(0)
    heads = config.num_heads
    model = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=config.hidden_size // heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.input_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    ).eval()
    state = model.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.randn_like(value) * 0.05)
            if ".norm1.emb." in key:
                value.copy_(state[re.sub(r"blocks\.\d+", "blocks.0", key)])
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return model


@torch.no_grad()
def test_diffusers_weights_are_converted(tmp_path, capsys) -> None:
    theirs = reference(MINI8)
    theirs.save_pretrained(tmp_path / "pipeline" / "transformer")
    folder = tmp_path / "pipeline" / "transformer"
    assert layouts.diffusers_shapes(MINI8) == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    for ckpt in (tmp_path / "pipeline", folder, folder / "diffusion_pytorch_model.safetensors"):
        model = weights.load_model(settings_of("--ckpt", str(ckpt)), CPU)
        x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 437, 999]), torch.tensor([0, 7, 20])
        torch.testing.assert_close(model(x, t, y), theirs(x, timestep=t, class_labels=y).sample, atol=2e-5, rtol=1e-5)
    out = capsys.readouterr().out
    assert "diffusers' layout, converted" in out and "no table of positions: computed for the 16" in out


def test_diffusers_weights_that_are_no_dit_are_refused(tmp_path) -> None:
    theirs = reference(MINI8)
    theirs.transformer_blocks[3].norm1.emb.timestep_embedder.linear_1.bias.data += 1
    ckpt = save(tmp_path / "a.safetensors", theirs.state_dict())
    with pytest.raises(ValueError, match=r"blocks have a timestep_embedder\.linear_1\.bias each of their own"):
        weights.load_model(settings_of("--ckpt", ckpt), CPU)
    with pytest.raises(ValueError, match=r"transformer_blocks\.7"):
        settings_of("--ckpt", save(tmp_path / "b.safetensors", reference(MINI8.replace(depth=7)).state_dict()))


@pytest.mark.parametrize("diffusers", [False, True])
def test_a_model_without_null_label_samples_without_guidance_alone(tmp_path, diffusers: bool) -> None:
    config = MINI8.replace(class_dropout_prob=0.0)
    state = random_dit(config).state_dict()
    if diffusers:
        state = reference(MINI8).state_dict()
        state |= {key: value[:20].clone() for key, value in state.items() if "class_embedder" in key}
    ckpt = save(tmp_path / "a.safetensors", state)
    with pytest.raises(ValueError, match=r"without a null label .*20 rows .*: sample with --cfg-scale 1"):
        settings_of("--ckpt", ckpt)
    pipeline = Pipeline.load(settings_of("--ckpt", ckpt, "--cfg-scale", "1", "--num-sampling-steps", "2"), CPU)
    assert pipeline.sampler.model.y_embedder.embedding_table.num_embeddings == 20
    assert pipeline.pictures(0, [0, 1], [0, 19]).isfinite().all()


def test_a_checkpoint_without_positions_is_read_as_one_with_them(tmp_path, capsys) -> None:
    state = random_dit(MINI8).state_dict()
    without = {key: value for key, value in state.items() if key != "pos_embed"}
    model = weights.load_model(settings_of("--ckpt", save(tmp_path / "a.safetensors", without)), CPU)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert "no table of positions: computed for the 16" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_names_are_read(tmp_path, capsys, prefix: str) -> None:
    state = random_dit(MINI8).state_dict()
    torch.save(dict(model={}, ema={prefix + key: value for key, value in state.items()}, opt={}, args={}), tmp_path / "a.pt")
    model = weights.load_model(settings_of("--ckpt", str(tmp_path / "a.pt")), CPU)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert f"{prefix}pos_embed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(depth=7), r"unexpected: blocks\.7|missing: blocks\.7"),
        (dict(input_size=12), None),
        (dict(num_classes=30), r"embedding_table\.weight is \(31, 128\), wanted \(21, 128\)"),
    ],
)
def test_a_checkpoint_is_checked_before_it_is_read(tmp_path, monkeypatch, change: dict, message: str | None) -> None:
    ckpt = save_dit(tmp_path / "a.safetensors", MINI8.replace(**change))
    monkeypatch.setattr(weights, "load_state_dict", lambda path: pytest.fail("it was read"))
    if message:
        with pytest.raises(ValueError, match=message):
            settings_of("--ckpt", ckpt)
    else:
        settings_of("--ckpt", ckpt)  # another size, which was asked for
