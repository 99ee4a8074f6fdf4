"""Find checkpoints, open them without running code, check them, and load them strictly.

A checkpoint is a file (safetensors or torch's, told apart by content), the index of a sharded one, or a folder that holds one of these.
`check_header` compares names and shapes before anything is read; `load_state_dict` reads; `load_into` fills a model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from toca.console import announce
from toca.loading.layouts import layout_of

PARTS = ("ema", "model")
WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.bin")  # in folders
INDEX = ".index.json"
DECISIVE = {".safetensors", ".bin", ".pt", ".pth", ".json", ".model", ".txt"}  # of what a network computes
WRAPPERS = r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."  # what torch.compile and FSDP put into names, anywhere
ADVICE = re.compile(r"weights_only|safe_globals|allowlist|trust|allow_pickle", re.IGNORECASE)  # of libraries, to switch safety off


def find(name: str, folder: Path, source: str, instead: str) -> Path:
    """The file `name` as a path, or inside `folder`.

    Raises FileNotFoundError that says where to get it (source), where to put it, and what else runs (instead).
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no checkpoint {name}: get it from {source}, and put it into {folder} or give its path; {instead}")


# ---- reading --------------------------------------------------------------------------------------------------------------------------


def load_state_dict(path: str | Path, parts: Sequence[str] = PARTS) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU; of a training checkpoint the first of `parts` that it has.

    Nothing in it is executed: beside tensors and plain containers only an argparse namespace, as training scripts save it, may be there.
    Prefixes of DDP, FSDP and torch.compile go from the names, and a line says so.
    Raises FileNotFoundError if a file is missing; ValueError on any other content, and on tensors that are no weights: sparse, complex,
    quantised, NaN or infinite.
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(path):
        state |= _load_file(file, parts)
    check_tensors(state, str(path))
    return unwrapped(state, str(path))


def load_checkpoint(path: str | Path, device: str = "cpu") -> Mapping[str, Any]:
    """A torch checkpoint as it was saved, without running any code of it. Raises ValueError if it is none, or wants to run some.

    device: "meta" reads no tensors.
    """
    return _load_torch(path, device)


def shapes_of(path: str | Path, parts: Sequence[str] = PARTS) -> dict[str, tuple[int, ...]]:
    """The names in a checkpoint, as `load_state_dict` gives them, and their shapes, without reading the tensors.

    Raises ValueError as `load_state_dict`, also on a safetensors file that is cut off, but not on what the tensors hold.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        if _is_safetensors(file):
            try:
                with safe_open(file, "pt") as opened:  # checks that the file is as long as its header says
                    shapes |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            except Exception as error:
                raise ValueError(f"{file} is not a safetensors file, or damaged: {plain_reason(error)}") from error
        else:
            shapes |= {key: tuple(tensor.shape) for key, tensor in _tensors(_load_torch(file, "meta"), file, parts).items()}
    return unwrapped(shapes, None)


def check_header(
    path: str | Path, expected: Mapping[str, Sequence[int]], parts: Sequence[str] = PARTS, ignored: Collection[str] = ()
) -> None:
    """Make sure, in milliseconds, that a checkpoint has the names and shapes of a model: `{k: v.shape for k, v in state_dict().items()}`.

    ignored: names that may be there and mean nothing. Raises ValueError as `load_into` would, and as `shapes_of`.
    """
    found = shapes_of(path, parts)
    _check_fit({key: shape for key, shape in found.items() if key not in ignored}, expected, str(path))


def parts_of(path: str | Path) -> list[str]:
    """What a training checkpoint has parts of, without reading the tensors: what `parts` of the other functions may name.

    None of a file that holds tensors alone. Raises as `shapes_of`.
    """
    files = [file for file in weight_files(path) if not _is_safetensors(file)]
    return [str(key) for file in files for key, value in _load_torch(file, "meta").items() if isinstance(value, Mapping)]


def weight_files(path: str | Path) -> list[Path]:
    """The files of a checkpoint: a file itself; of an index or a folder those that hold its tensors.

    Raises FileNotFoundError if they are not all there, ValueError if an index is none or names files elsewhere.
    """
    path = Path(path)
    if path.is_dir():
        names = [name for whole in WHOLE for name in (whole, f"{whole}{INDEX}") if (path / name).is_file()]
        if not names:
            raise FileNotFoundError(f"{path} holds no weights: there is no {', '.join(WHOLE[:2])} and no {WHOLE[0]}{INDEX}")
        path /= names[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no index of a sharded checkpoint") from error
    if strange := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ValueError(f"{path} names {strange[0]!r}, which is no file beside it")
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise FileNotFoundError(f"{path.parent} lacks {_some(missing)}, which {path.name} names")
    if not names:
        raise ValueError(f"{path} names no files")
    return [path.parent / name for name in names]


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes that tell a length below 4 GB, and a brace. Raises ValueError on files known to be something else."""
    with open(path, "rb") as file:
        start = file.read(64)
    what = (
        "is empty" if not start
        else "is a GGUF file, which no program here reads: get the safetensors file" if start.startswith(b"GGUF")
        else "is a pointer of Git LFS: fetch the file itself (git lfs pull)" if start.startswith(b"version https://git-lfs")
        else "is a web page: what was downloaded is no checkpoint" if start.lstrip().lower().startswith((b"<!doctype", b"<html"))
        else None
    )  # fmt: skip
    if what:
        raise ValueError(f"{path} {what}")
    return start[4:9] == b"\0\0\0\0{"


def _load_file(path: Path, parts: Sequence[str]) -> dict[str, Tensor]:
    if not _is_safetensors(path):
        return _tensors(_load_torch(path, "cpu"), path, parts)
    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is not a safetensors file, or damaged: {plain_reason(error)}") from error


def _load_torch(path: str | Path, device: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file, torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own about kinds of pickle
            state = torch.load(file, map_location=device, weights_only=True)  # an open file: torch too goes by names
    except OSError:
        raise
    except Exception as error:  # an unpickler that meets arbitrary bytes raises whatever they lead to
        raise ValueError(f"{path} is refused: not a checkpoint of plain tensors ({plain_reason(error)})") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a mapping of names to tensors")
    return state


def _tensors(state: Mapping[str, Any], path: Path, parts: Sequence[str]) -> dict[str, Tensor]:
    state = next((state[part] for part in parts if isinstance(state.get(part), Mapping)), state)
    if strange := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} holds no state dict: {_some(strange)} are not tensors")
    if strange := [repr(key) for key in state if not isinstance(key, str)]:
        raise ValueError(f"{path} holds no state dict: {_some(strange)} are no names")
    return dict(state)


def plain_reason(error: BaseException) -> str:
    """Why a library refused something, in one line, without its advice to switch safety off."""
    text = " ".join(str(error).split())
    if wanted := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it wants to run {wanted[1]}"
    if "TorchScript" in text:
        return "a TorchScript archive, which is a program"
    if "trust_remote_code" in text:
        return "it wants to run code of its own"
    sentences = [sentence for sentence in re.split(r"(?<=[.;:!?])\s+", text) if not ADVICE.search(sentence)]
    return " ".join([type(error).__name__ + ":", *sentences])[:300].rstrip(" .:,(")


# ---- checking -------------------------------------------------------------------------------------------------------------------------


def check_tensors(state: Mapping[str, Tensor], source: str) -> None:
    """Raises ValueError on the first tensor that is no weights. 0.2 s for a GB on one core; floats of 8 bits are not looked through."""
    for key, tensor in state.items():
        if problem := _problem(key, tensor):
            raise ValueError(f"{source}: the tensor {key} {problem}")


def _problem(key: str, tensor: Tensor) -> str | None:
    if tensor.is_quantized:
        return "is quantised"
    if tensor.layout is not torch.strided:
        return "is sparse"
    if tensor.is_complex():
        return "is complex"
    if not tensor.is_floating_point() and key.endswith((".weight", ".bias")):
        return f"is {_dtype(tensor)}, and weights are floats"
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64) and tensor.numel():
        least, most = torch.aminmax(tensor.detach())  # NaN if any value is
        if not (torch.isfinite(least) and torch.isfinite(most)):
            return "holds NaN or infinite values: the file is damaged, or its training had failed"
    return None


def unwrapped(state: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """Names as they were before DDP, FSDP or torch.compile wrapped the model: without `module.` before all, or `_orig_mod.` anywhere.

    source: what the line that is announced calls it; None announces nothing.
    """
    names = {key: re.sub(rf"(^|(?<=\.)){WRAPPERS}", "", key) for key in state}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {key: re.sub(rf"^{WRAPPERS}", "", name.removeprefix("module.")) for key, name in names.items()}
    if len(set(names.values())) < len(names):  # two names would become one: not what wrapping does
        return dict(state)
    if source and (changed := next((key for key, name in names.items() if key != name), None)):
        announce(f"{source}: its names were wrapped, {changed} is read as {names[changed]}")
    return {names[key]: value for key, value in state.items()}


def _check_fit(found: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]], source: str) -> None:
    """Raises ValueError that names every missing and unexpected key and every shape that differs."""
    differing = [key for key in own if key in found and tuple(found[key]) != tuple(own[key])]
    problems = {
        "missing": [key for key in own if key not in found],
        "unexpected": [key for key in found if key not in own],
        "wrong shape": [f"{key} is {tuple(found[key])}, wanted {tuple(own[key])}" for key in differing],
    }
    if any(problems.values()):
        what = "; ".join(f"{problem}: {_some(keys)}" for problem, keys in problems.items() if keys)
        layout = layout_of(found)
        known = f"it is {layout}; " if layout and layout != layout_of(own) else ""
        raise ValueError(f"{source} does not fit the model: {known}{what}")


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# ---- loading --------------------------------------------------------------------------------------------------------------------------


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; a model on the meta device takes over the tensors themselves. A prefix `model.` before all names may go.

    Raises ValueError that names every missing and unexpected key and every shape that differs, and says what the file is if it is known;
    and on whole numbers where the model has floats, or the other way round.
    """
    own = model.state_dict()
    if state and all(key.startswith("model.") for key in state) and not any(key.startswith("model.") for key in own):
        inner = {key.removeprefix("model."): value for key, value in state.items()}
        if inner.keys() & own.keys():
            announce(f"{source}: `model.` before all its names is left out")
            state = inner
    _check_fit({key: value.shape for key, value in state.items()}, {key: value.shape for key, value in own.items()}, source)
    for key, value in state.items():
        if value.is_floating_point() != own[key].is_floating_point():
            raise ValueError(f"{source} does not fit the model: {key} is {_dtype(value)}, wanted {_dtype(own[key])}")
    model.load_state_dict(dict(state), assign=any(p.is_meta for p in model.parameters()))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def fingerprint(path: str | Path, ends: int = 2**20) -> str:
    """A short hash of a file's size and its first and last bytes: tells two checkpoints apart without reading gigabytes."""
    size = Path(path).stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with open(path, "rb") as file:
        digest.update(file.read(ends))
        file.seek(max(0, size - ends))
        digest.update(file.read(ends))
    return digest.hexdigest()


def identity(*sources: str | Path, more: Sequence[str] = ()) -> str:
    """Tells networks apart that may give different outputs: a short hash of the ends of the files, or of all files in the folders, that
    hold weights or say what to do with them; of a hub name itself.

    more: what else decides the outputs.
    """
    content = []
    for source in map(Path, sources):
        files = sorted(file for file in source.iterdir() if file.suffix in DECISIVE) if source.is_dir() else [source]
        content += [f"{file.name} {fingerprint(file)}" for file in files if file.is_file()] or [str(source)]
    return hashlib.blake2b("\n".join([*content, *more]).encode(), digest_size=8).hexdigest()
