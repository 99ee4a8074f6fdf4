from __future__ import annotations

import copy
import weakref

import pytest
import torch
from golden_data import manifest
from safetensors.torch import load_file
from tiny_parts import TINY_FLUX, save_adapter, save_flux

from flux.model import Flux
from flux.modules.lora import LinearLora, merge, replace_linear_with_lora, set_lora_scale, with_adapter
from flux.sampler import denoise, get_schedule, image_ids
from flux.spec import CONFIGS
from toca.loading.weights import load_into
from toca.methods import NoCaching, TaylorSeer, ToCa
from toca.testing.parts import randomize

CONTROL = TINY_FLUX.replace(in_channels=128)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Tensors of a base model and of an adapter that widens its input."""
    folder = tmp_path_factory.mktemp("lora")
    return load_file(save_flux(folder / "base.safetensors")), load_file(save_adapter(folder / "lora.safetensors", CONTROL))


def kept(states, scale: float) -> Flux:
    model = Flux(CONTROL)
    replace_linear_with_lora(model, 4, scale)
    load_into(model, with_adapter(*states), "kept")
    return model.requires_grad_(False)


def merged(states, scale: float) -> Flux:
    model = Flux(CONTROL)
    base, adapter = dict(states[0]), states[1]
    merge(base, adapter, scale)
    load_into(model, base, "merged")
    return model.requires_grad_(False)


def run(model: Flux, method=None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    img, cond, txt, vec = (torch.randn(*shape, generator=generator) for shape in ((2, 12, 64), (2, 12, 64), (2, 5, 40), (2, 24)))
    inputs = dict(img=img, img_ids=image_ids(2, 3, 4, img.device), txt=txt, txt_ids=torch.zeros(2, 5, 3), vec=vec, img_cond=cond)
    return denoise(model, **inputs, timesteps=get_schedule(8, 12), method=method or NoCaching())


def test_adapter_keys_are_the_published_ones():
    with torch.device("meta"):
        model = Flux(CONFIGS["flux-dev-canny-lora"])
        replace_linear_with_lora(model)
    own = {key: list(value.shape) for key, value in model.state_dict().items() if "lora_" in key}
    assert own == manifest("lora") and len(own) == 942
    assert sum(torch.Size(shape).numel() for shape in own.values()) == 622_106_688


@pytest.mark.parametrize("method", [NoCaching(), ToCa(interval=3, ratio=0.3), TaylorSeer(interval=3, order=1)], ids=lambda m: m.name)
@pytest.mark.parametrize("scale", [1.0, 0.85])
def test_kept_and_merged_agree_under_caching(states, method, scale):
    torch.testing.assert_close(run(kept(states, scale), method), run(merged(states, scale), method), rtol=1e-3, atol=1e-4)


def test_scale_zero_is_the_base_model_with_a_blind_input(states):
    base, adapter = states
    plain = {key: value for key, value in adapter.items() if "lora_" in key}  # without the norms that the adapter replaces
    model = kept((base, plain), 1.0)
    assert (run(model) - run(merged((base, plain), 0.0))).abs().max() > 1e-2
    set_lora_scale(model, 0.0)
    torch.testing.assert_close(run(model), run(merged((base, plain), 0.0)), rtol=1e-4, atol=1e-5)
    wide = merged((base, plain), 0.0).img_in.weight
    assert torch.equal(wide[:, :64], base["img_in.weight"]) and not wide[:, 64:].any()


def test_the_adapter_replaces_the_norms(states):
    base, adapter = states
    key = "single_blocks.0.norm.query_norm.scale"
    assert torch.equal(with_adapter(base, adapter)[key], adapter[key])
    own = dict(base)
    merge(own, adapter, 0.5)
    assert torch.equal(own[key], adapter[key])


def test_merging_lets_every_replaced_tensor_go(states):
    base, adapter = (copy.deepcopy(state) for state in states)
    weights = {key: weakref.ref(base[key]) for key in base if key.removesuffix(".weight") + ".lora_A.weight" in adapter}
    merge(base, adapter, 1.0)
    assert weights and not any(weight() is not None for weight in weights.values())


def test_a_linear_with_an_adapter():
    linear = randomize(LinearLora(6, 5, True, 2, 0.5, "cpu"))
    x = torch.randn(3, 6)
    expected = x @ linear.weight.T + linear.bias + 0.5 * (x @ linear.lora_A.weight.T @ linear.lora_B.weight.T + linear.lora_B.bias)
    torch.testing.assert_close(linear(x), expected)


def test_an_adapter_of_another_model_is_refused(states):
    base, adapter = states
    wrong = {**adapter, "txt_in.lora_A.weight": torch.zeros(4, 41)}
    with pytest.raises(ValueError, match="does not fit the model at txt_in"):
        merge(dict(base), wrong, 1.0)
    with pytest.raises(ValueError, match="does not fit the model at blocks"):
        merge(dict(base), {"blocks.lora_A.weight": torch.zeros(1, 1)}, 1.0)
