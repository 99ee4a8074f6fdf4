"""The reference files beside the sampling cases: everything inside an uncached call, and inside the first cached steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from golden_data import MODULES, load_model, metadata, tensors, toca_of
from golden_sampling import check_ranking
from torch import Tensor

from flux.model import Flux
from flux.spec import flux_spec
from toca.engine import cache as engine
from toca.engine.attention import attention_with_mass
from toca.engine.cache import Cache
from toca.engine.linear import linear_part
from toca.engine.slots import gather
from toca.testing.golden import assert_close
from toca.testing.replay import Recorder, outputs_of

ATOL = 5e-5
EMBEDDERS = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in")


@contextmanager
def streams_of(model: Flux, single: str, double: str) -> Iterator[dict[str, Tensor]]:
    """Outputs of the embedders and, once left, of the blocks by name, as patterns of the layer's number."""
    modules: dict[str, torch.nn.Module] = {name: getattr(model, name) for name in EMBEDDERS if hasattr(model, name)}
    modules |= {double.format(layer): block for layer, block in enumerate(model.double_blocks)}
    modules |= {single.format(layer): block for layer, block in enumerate(model.single_blocks)}
    with outputs_of(modules) as seen:
        yield seen
    for name in [name for name, out in seen.items() if isinstance(out, tuple)]:
        seen[f"{name}.img"], seen[f"{name}.txt"] = seen.pop(name)


def matrices(pe: Tensor) -> Tensor:
    """Rotations as upstream has them: (..., 2, 2)."""
    return torch.stack((pe.real, -pe.imag, pe.imag, pe.real), dim=-1).unflatten(-1, (2, 2))


def inputs_of(data: dict[str, Tensor]) -> list[Tensor]:
    return [data[f"input.{name}"] for name in ("img", "img_ids", "txt", "txt_ids", "timesteps", "vec")]


@torch.no_grad()
def check_forward_trace(file: str, patch: pytest.MonkeyPatch) -> None:
    data, model = tensors(file), load_model(metadata(file)["config"])
    with streams_of(model, "single.{}", "double.{}") as seen:
        seen["output"] = model(*inputs_of(data), data["input.guidance"])
    ids = torch.cat((data["input.txt_ids"], data["input.img_ids"]), dim=1)
    seen["pe"] = matrices(model.pe_embedder(ids))
    seen["vec_total"] = seen["time_in"] + seen["guidance_in"] + seen["vector_in"]
    expected = {key: value for key, value in data.items() if not key.startswith("input.")}
    assert expected.keys() <= seen.keys(), f"tensors this runner does not know: {expected.keys() - seen.keys()}"
    for key, value in expected.items():
        assert_close(seen[key], value, 1e-6 if key == "pe" else ATOL, key)


@torch.no_grad()
def check_cached_step_trace(file: str, patch: pytest.MonkeyPatch) -> None:
    data, notes = tensors(file), metadata(file)
    model, num_steps = load_model(notes["config"]), notes["num_steps"]
    img, img_ids, txt, txt_ids, timesteps, vec = inputs_of(data)
    masses, seen = [], {}

    def attend(*args: Tensor) -> tuple[Tensor, Tensor]:
        out, mass = attention_with_mass(*args)
        masses.append(mass / mass.shape[1])
        return out, mass

    patch.setattr(engine, "attention_with_mass", attend)
    cache = Cache(flux_spec(model.params, img.shape[1], txt.shape[1]), toca_of(notes["cache"]), num_steps)
    heard = Recorder(cache)
    heard.listen(patch)
    for step, t in enumerate(timesteps):
        with streams_of(model, f"s{step}.single.{{}}.out", f"s{step}.double.{{}}.out") as found:
            output = model(img * (1 - 0.05 * step), img_ids, txt, txt_ids, t.expand(1), vec, torch.tensor([3.5]), cache=cache)
        seen |= found | {f"s{step}.output": output}
        heard.look()
        if any(key.startswith(f"s{step}.cache.") for key in data):
            stored = stored_outputs(cache, f"s{step}.cache")
    names = [f"s2.double.{layer}.attn_colmean" for layer in range(model.params.depth)]
    names += [f"s2.single.{layer}.attn_colmean" for layer in range(model.params.depth_single_blocks)]
    seen |= dict(zip(names, masses, strict=False))

    for key, expected in data.items():
        if match := re.fullmatch(r"s(\d+)\.(double|single)\.(\d+)\.(\w+)\.(score|indices|counter_before)", key):
            step, stream, layer, module, what = match.groups()
            stack, branch = MODULES[f"{stream}_stream", module]
            check_ranking(key, what, heard, (int(step), stack, int(layer), branch), expected)
        elif key.startswith("s2.cache."):
            ours = as_stored(model, key, expected, txt.shape[1])
            for rows, value in stored[key]:
                assert_close(value, ours if rows is None else gather(ours, rows), ATOL, key)
        elif not key.startswith("input."):
            assert_close(seen[key], expected, 1e-5 if "colmean" in key else ATOL, key)


def stored_outputs(cache: Cache, prefix: str) -> dict[str, list[tuple[Tensor | None, Tensor]]]:
    """(rows, their values) that every branch stores: all of them (None), or the rows that each coming step will read."""
    branches = {"double": ("double_blocks", ("attn", "img_mlp", "txt_mlp")), "single": ("single_blocks", ("attn", "total"))}
    stored = {}
    for short, (stack, names) in branches.items():
        for index, layer in enumerate(cache._layers[stack]):
            for name in names:
                slot, reader = getattr(layer, name).slot, getattr(layer, name).reader
                chosen = [step[index] for step in reader.ranked if step[index] is not None] if slot.parts else [None]
                values = slot.parts or [slot.value.clone()]
                stored[f"{prefix}.{short}.{index}.{name}"] = list(zip(chosen, list(values), strict=True))
    return stored


def as_stored(model: Flux, key: str, value: Tensor, txt_tokens: int) -> Tensor:
    """Upstream stores attention before its projection; we store what it adds to the block."""
    _, _, stream, layer, name = key.split(".")
    if name != "attn":
        return value
    if stream == "single":
        return linear_part(model.single_blocks[int(layer)].linear2, value, inputs=slice(model.params.hidden_size))
    block = model.double_blocks[int(layer)]
    return torch.cat((block.txt_attn.proj(value[:, :txt_tokens]), block.img_attn.proj(value[:, txt_tokens:])), dim=1)


CHECKS = {
    "forward_trace_b.safetensors": check_forward_trace,
    "cached_step_trace_b.safetensors": check_cached_step_trace,
}
