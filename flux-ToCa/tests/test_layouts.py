"""Weights and adapters in other layouts: against diffusers' own networks, and against the arithmetic of adapters."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import SMALL, inputs, small_flux
from tiny_parts import TINY_AE, TINY_FLUX, save_adapter
from tiny_programs import parts, tiny, tiny_params

from flux import layouts
from flux.model import Flux
from flux.modules.lora import merge
from flux.spec import CONFIGS
from flux.weights import load_ae, load_flow_model
from toca.loading.weights import load_into
from toca.testing.parts import randomize

__all__ = ["parts", "tiny"]
CPU, FP32 = "cpu", torch.float32


def their_flux(params):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=params.in_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.head_dim,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=params.guidance_embed,
        axes_dims_rope=params.axes_dim,
    )
    return randomize(theirs)


def their_autoencoder():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[TINY_AE.ch] * 4,
        layers_per_block=TINY_AE.num_res_blocks,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return randomize(theirs)


# ---- checkpoints --------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def predictions(ours: Flux, theirs, params) -> tuple[torch.Tensor, torch.Tensor]:
    data, t = inputs(2, params=params), torch.tensor([0.71, 0.2])
    expected = theirs(
        hidden_states=data["img"],
        encoder_hidden_states=data["txt"],
        pooled_projections=data["y"],
        timestep=t,
        img_ids=data["img_ids"][0],
        txt_ids=data["txt_ids"][0],
        guidance=data["guidance"] if params.guidance_embed else None,
        return_dict=False,
    )[0]
    return ours(timesteps=t, **data), expected


@pytest.mark.parametrize("guidance", [True, False])
def test_a_transformer_of_diffusers(guidance: bool) -> None:
    params = SMALL.replace(guidance_embed=guidance)
    theirs, ours = their_flux(params), Flux(params)
    load_into(ours, layouts.transformer(theirs.state_dict()), "diffusers")
    actual, expected = predictions(ours, theirs, params)
    torch.testing.assert_close(actual, expected, atol=5e-4, rtol=0)  # they round the sinusoids otherwise


def test_every_published_name_has_its_place_in_diffusers_layout() -> None:
    """At full size, on the meta device: what is converted is what was published, nothing left, nothing missing."""
    with torch.device("meta"):
        model = Flux(CONFIGS["flux-dev"])
        theirs = {}
        for ours, names in layouts.linears(19, 38).items():
            outputs, width = model.get_submodule(ours).weight.shape
            rows = {1: [outputs], 3: [width] * 3, 4: [width] * 3 + [outputs - 3 * width]}[len(names)]
            for name, count in zip(names, rows):
                theirs |= {f"{name}.weight": torch.empty(count, width), f"{name}.bias": torch.empty(count)}
        for stack, blocks, norms in (
            ("transformer_blocks", 19, layouts.DOUBLE_NORMS),
            ("single_transformer_blocks", 38, layouts.SINGLE_NORMS),
        ):
            theirs |= {f"{stack}.{i}.{name}.weight": torch.empty(128) for i in range(blocks) for name in norms.values()}
        load_into(model, layouts.transformer(theirs), "converted")


@pytest.mark.parametrize("how", ["folder", "pipeline", "shards", "file"])
def test_diffusers_folders_and_files_are_taken_for_checkpoints(how, tmp_path, tiny) -> None:
    theirs = their_flux(tiny_params("flux-dev"))
    folder = tmp_path / ("transformer" if how == "pipeline" else "any")
    theirs.save_pretrained(folder, **dict(max_shard_size="200KB") if how == "shards" else {})
    assert len(list(folder.glob("*.safetensors"))) > (how == "shards")
    given = {"pipeline": tmp_path, "file": folder / "diffusion_pytorch_model.safetensors"}.get(how, folder)
    model = load_flow_model("flux-dev", CPU, FP32, str(given))
    expected = layouts.transformer(theirs.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_an_autoencoder_of_diffusers(tmp_path, tiny) -> None:
    theirs = their_autoencoder()
    theirs.save_pretrained(tmp_path / "vae")
    for given in (tmp_path, tmp_path / "vae"):
        ours = load_ae(CPU, str(given))
        x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            moments = theirs.encode(x).latent_dist.parameters
            picture = theirs.decode(ours.encode(x) / TINY_AE.scale_factor + TINY_AE.shift_factor).sample
        torch.testing.assert_close(ours.encoder(x), moments, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.decode(ours.encode(x)), picture, rtol=1e-4, atol=1e-5)


def test_a_transformer_inside_a_file_of_all_networks(tmp_path, parts, tiny) -> None:
    plain = load_file(parts / "flux1-dev.safetensors")
    ae = load_file(parts / "ae.safetensors")
    whole = {f"model.diffusion_model.{key}": value for key, value in plain.items()} | {f"vae.{key}": value for key, value in ae.items()}
    save_file(whole, tmp_path / "all.safetensors")
    model = load_flow_model("flux-dev", CPU, FP32, str(tmp_path / "all.safetensors"))
    assert all(torch.equal(value, plain[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, ae[key]) for key, value in load_ae(CPU, str(tmp_path / "all.safetensors")).state_dict().items())


@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
def test_scaled_fp8_is_multiplied_out(ending, rows, tmp_path, parts, tiny) -> None:
    plain = load_file(parts / "flux1-dev.safetensors")
    state = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, value in plain.items():
        state[key] = value
        if key.endswith("qkv.weight"):
            scale = (value.abs().amax(1) if rows else value.abs().max()) / 448
            state[key] = (value / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn)
            state[key.removesuffix("weight") + ending] = scale
            state[key.removesuffix("weight") + "scale_input"] = torch.ones(())
    save_file(state, tmp_path / "fp8.safetensors")
    model = load_flow_model("flux-dev", CPU, FP32, str(tmp_path / "fp8.safetensors"))
    for key, value in model.state_dict().items():
        if key.endswith("qkv.weight"):
            torch.testing.assert_close(value, plain[key], rtol=2**-4, atol=plain[key].abs().max().item() * 2**-8)
            assert not torch.equal(value, plain[key])
        else:
            assert torch.equal(value, plain[key])


def test_plain_fp8_is_widened(tmp_path, parts, tiny) -> None:
    plain = load_file(parts / "flux1-dev.safetensors")
    save_file({key: value.to(torch.float8_e4m3fn) for key, value in plain.items()}, tmp_path / "fp8.sft")
    model = load_flow_model("flux-dev", CPU, torch.bfloat16, str(tmp_path / "fp8.sft"))
    key = "single_blocks.0.linear1.weight"
    assert torch.equal(model.state_dict()[key], plain[key].to(torch.float8_e4m3fn).to(torch.bfloat16))


def test_fp8_scaled_by_blocks_is_refused(tmp_path, parts, tiny) -> None:
    plain = load_file(parts / "flux1-dev.safetensors")
    save_file(plain | {"img_in.weight_scale": torch.ones(4, 2)}, tmp_path / "blocks.safetensors")
    with pytest.raises(ValueError, match=r"blocks.safetensors: img_in.weight_scale has 8 numbers .*fp8 scaled by blocks is not read"):
        load_flow_model("flux-dev", CPU, FP32, str(tmp_path / "blocks.safetensors"))


@pytest.mark.parametrize("name", ["flux.sft", "flux.SAFETENSORS", "flux.bin", "flux.pt", "flux"])
def test_content_says_what_a_file_is(name, tmp_path, parts, tiny) -> None:
    state = load_file(parts / "flux1-dev.safetensors")
    if name.endswith(("bin", "pt")):
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    model = load_flow_model("flux-dev", CPU, FP32, str(tmp_path / name))
    assert torch.equal(model.img_in.weight, state["img_in.weight"])


# ---- adapters -----------------------------------------------------------------------------------------------------------------------

BASE = small_flux(TINY_FLUX).requires_grad_(False)
SHAPES = {name: tuple(m.weight.shape) for name, m in BASE.named_modules() if isinstance(m, torch.nn.Linear)}
RANK = 3


def factors(names: list[str], widths: dict[str, tuple[int, int]], seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(RANK, widths[name][1], generator=g) * 0.3, torch.randn(widths[name][0], RANK, generator=g) * 0.3)
        for name in names
    }


def merged(adapter: dict[str, torch.Tensor], scale: float = 1.0, alpha: float | None = None) -> dict[str, torch.Tensor]:
    state = {key: value.clone() for key, value in BASE.state_dict().items()}
    merge(state, layouts.adapter(adapter, SHAPES, alpha), scale)
    return state


@pytest.mark.parametrize("ends", layouts.PAIRS, ids=lambda pair: pair[0])
def test_kohyas_layout_with_its_alpha(ends) -> None:
    """Names with underscores; alpha / rank weighs the product."""
    chosen = factors(["double_blocks.0.img_attn.qkv", "single_blocks.2.linear1", "final_layer.adaLN_modulation.1"], SHAPES)
    adapter = {}
    for name, (down, up) in chosen.items():
        stem = f"lora_unet_{name.replace('.', '_')}"
        adapter |= {stem + ends[0]: down, stem + ends[1]: up, f"{stem}.alpha": torch.tensor(1.5)}
    state = merged(adapter, 0.8)
    for name, weight in BASE.named_parameters():
        linear = name.removesuffix(".weight")
        expected = weight + 0.8 * (1.5 / RANK) * chosen[linear][1] @ chosen[linear][0] if linear in chosen else weight
        torch.testing.assert_close(state[name], expected)


@pytest.mark.parametrize("prefix", ["transformer.", "base_model.model.", "base_model.model.transformer.", ""])
def test_adapters_of_diffusers_and_peft_equal_diffusers_merged_weights(prefix) -> None:
    """Every linear adapted on its own there; the converted adapter gives what the converted merged weights are."""
    theirs = their_flux(TINY_FLUX)
    linears = {name: m for name, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)}
    chosen = factors(list(linears), {name: tuple(m.weight.shape) for name, m in linears.items()})
    base = layouts.transformer({key: value.clone() for key, value in theirs.state_dict().items()})
    adapter = {f"{prefix}{name}.lora_{side}.weight": value for name, pair in chosen.items() for side, value in zip("AB", pair)}
    merge(base, layouts.adapter(adapter, SHAPES, 2.0), 0.7)
    for name, (down, up) in chosen.items():
        linears[name].weight.data += 0.7 * (2.0 / RANK) * up @ down
    expected = layouts.transformer(theirs.state_dict())
    assert base.keys() == expected.keys()
    for key, value in base.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)


def test_a_part_alone_leaves_the_others() -> None:
    down, up = torch.randn(RANK, 32), torch.randn(32, RANK)
    stem = "transformer.single_transformer_blocks.1.attn.to_k"
    state = merged({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up})
    weight, before = state["single_blocks.1.linear1.weight"], BASE.single_blocks[1].linear1.weight
    torch.testing.assert_close(weight[32:64], before[32:64] + up @ down)
    assert torch.equal(weight[:32], before[:32]) and torch.equal(weight[64:], before[64:])


def pair(name: str, rank: int = 2, outputs: int = 32, inputs: int = 32) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_A.weight": torch.ones(rank, inputs), f"{name}.lora_B.weight": torch.ones(outputs, rank)}


WRONG = {
    "no LoRA in it": {"double_blocks.0.img_attn.qkv.weight": torch.ones(96, 32)},
    "is for no linear of this model": pair("transformer.transformer_blocks.7.attn.to_q"),
    "has no .*lora_B.weight beside it": {"double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(2, 32)},
    "factors at .* do not fit each other": pair("txt_in") | {"txt_in.lora_B.weight": torch.ones(32, 3)},
    "does not fit the model at double_blocks.0.img_attn.proj: made for 48 inputs": pair("double_blocks.0.img_attn.proj", inputs=48),
    "1 of its tensors are no part of a LoRA": pair("transformer.transformer_blocks.0.attn.to_q") | {"x.dora_scale": torch.ones(1)},
    "is adapted as a whole and in parts": pair("transformer_blocks.0.attn.to_q") | pair("double_blocks.0.img_attn.qkv", outputs=96),
    "must be one number": {
        **pair("lora_unet_double_blocks_0_img_attn_proj"),
        "lora_unet_double_blocks_0_img_attn_proj.alpha": torch.ones(2),
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_adapter_is_said(message) -> None:
    with pytest.raises(ValueError, match=message):
        layouts.adapter(WRONG[message], SHAPES)


def test_errors_blame_the_adapter_not_the_base(tmp_path, parts, tiny) -> None:
    control = save_adapter(tmp_path / "control.safetensors", tiny_params("flux-dev-canny"))
    with pytest.raises(ValueError, match=r"control.safetensors.*--lora wants a LoRA") as error:
        load_flow_model("flux-dev", CPU, FP32, str(parts), lora=str(control))
    assert "flux1-dev" not in str(error.value)
    save_file(pair("transformer.transformer_blocks.0.attn.to_q", inputs=48), tmp_path / "large.safetensors")
    with pytest.raises(ValueError, match=r"large.safetensors: it does not fit the model at double_blocks.0.img_attn.qkv"):
        load_flow_model("flux-schnell", CPU, FP32, str(parts), lora=str(tmp_path / "large.safetensors"))
    save_file({"img_in.weight": torch.zeros(1)}, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match=r"base.safetensors does not fit the model") as error:
        load_flow_model("flux-dev-canny-lora", CPU, FP32, str(tmp_path / "base.safetensors"), lora=str(control))
    assert "control" not in str(error.value)


def test_pefts_folder_says_its_alpha(tmp_path, parts, tiny) -> None:
    stem = "base_model.model.transformer_blocks.0.attn.to_add_out"
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    adapter = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    save_file(adapter | {"text_encoder.x.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(dict(lora_alpha=8, r=4)))
    key = "double_blocks.0.txt_attn.proj.weight"
    plain = load_flow_model("flux-dev", CPU, FP32, str(parts)).state_dict()[key]
    model = load_flow_model("flux-dev", CPU, FP32, str(parts), lora=str(tmp_path), lora_scale=0.5)
    torch.testing.assert_close(
        model.state_dict()[key], plain + 0.5 * 2 * adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
    )
    config.write_text(json.dumps(dict(lora_alpha=8, r=4, use_dora=True)))
    with pytest.raises(ValueError, match=r"adapter_config.json asks for use_dora"):
        load_flow_model("flux-dev", CPU, FP32, str(parts), lora=str(tmp_path))
    config.write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config.json cannot be read: lora_alpha"):
        load_flow_model("flux-dev", CPU, FP32, str(parts), lora=str(tmp_path))


def test_a_layout_that_is_not_read_is_named(tmp_path, parts, tiny) -> None:
    save_file({f"{layer}.weight.absmax": torch.ones(1) for layer in ("img_in", "txt_in")}, tmp_path / "nf4.safetensors")
    with pytest.raises(ValueError, match="it is weights quantised by bitsandbytes"):
        load_flow_model("flux-dev", CPU, FP32, str(tmp_path / "nf4.safetensors"))
