from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_parts import CLIP_WIDTH, T5_WIDTH
from transformers import CLIPTextModel, T5EncoderModel

from flux.modules.conditioner import HFEmbedder
from flux.weights import load_clip, load_t5
from toca.testing.parts import save_clip, save_t5

FP32 = torch.float32


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Named so that spelling would mislead: the T5 folder is called as CLIP's hub name, and the other way round."""
    root = tmp_path_factory.mktemp("encoders")
    return save_t5(root / "openai-clip", T5_WIDTH), save_clip(root / "t5-v1_1-xxl", CLIP_WIDTH)


def test_the_configuration_says_which_encoder_it_is(folders):
    t5, clip = (HFEmbedder(folder, 12, FP32) for folder in folders)
    assert (t5.is_clip, clip.is_clip) == (False, True)
    assert (t5.width, clip.width) == (T5_WIDTH, CLIP_WIDTH)


@pytest.mark.parametrize("length", [512, 256, 128])
def test_t5_reads_a_fixed_length_and_attends_to_padding(folders, length):
    t5 = HFEmbedder(folders[0], length, FP32)
    prompts = ["a cat", "word " * 600]
    out = t5(prompts)
    assert out.shape == (2, length, T5_WIDTH)
    ids = t5.tokenizer(prompts, truncation=True, max_length=length, padding="max_length", return_tensors="pt")["input_ids"]
    reference = T5EncoderModel.from_pretrained(folders[0])
    with torch.no_grad():
        torch.testing.assert_close(out, reference(ids).last_hidden_state)
        masked = reference(ids, attention_mask=(ids != 0).long()).last_hidden_state
    assert (out - masked)[0, 0].abs().max() > 1e-4


def test_clip_pools_one_vector(folders):
    clip = HFEmbedder(folders[1], 77, FP32)
    out = clip(["cat", "dog " * 100])
    assert out.shape == (2, CLIP_WIDTH)
    ids = clip.tokenizer("cat", padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(out[:1], CLIPTextModel.from_pretrained(folders[1])(ids).pooler_output)


def test_a_prompt_does_not_depend_on_its_batch(folders):
    for folder, length in zip(folders, (20, 77)):
        encoder = HFEmbedder(folder, length, FP32)
        torch.testing.assert_close(encoder(["a", "b b"])[1:], encoder(["b b"]), rtol=1e-5, atol=1e-6)


def test_the_dtype_is_the_one_asked_for(folders):
    assert load_clip("cpu", str(folders[1]))(["a"]).dtype is torch.bfloat16
    assert load_t5("cpu", 8, str(folders[0]), FP32)(["a"]).dtype is FP32


def test_another_kind_of_model_is_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="bert")))
    with pytest.raises(ValueError, match=r"holds a model of type 'bert'"):
        HFEmbedder(tmp_path, 8)
    with pytest.raises(ValueError, match="is no CLIP encoder: --clip wants one"):
        load_clip("cpu", str(folders[0]))


def test_missing_tensors_are_an_error(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folders[1], tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    state.pop(next(key for key in state if key.endswith("final_layer_norm.weight")))
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors of its clip_text_model text encoder, first .*final_layer_norm.weight"):
        HFEmbedder(broken, 77)
    (broken / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(ValueError, match=r"the weights in .*broken are damaged"):
        HFEmbedder(broken, 77)


def test_a_missing_encoder_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"no T5 encoder at .*huggingface.co/google/t5-v1_1-xxl.*FLUX_T5 or --t5"):
        load_t5("cpu", source=str(tmp_path / "nowhere"))
    monkeypatch.setenv("FLUX_CLIP", str(tmp_path))
    with pytest.raises(ValueError, match=f"no CLIP encoder at {tmp_path}"):
        load_clip("cpu")
