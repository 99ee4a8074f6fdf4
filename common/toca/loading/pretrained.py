"""Networks, tokenizers and processors of transformers and diffusers, from a folder or by their hub name, made sure to be complete.

`check_encoder` looks at a folder in milliseconds, before any network is loaded; `load_encoder`, `load_tokenizer` and `load_processor`
load. No code that comes with a model is run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toca.console import announce
from toca.loading.weights import check_tensors, plain_reason, shapes_of

VOCABULARIES = (("tokenizer.json",), ("spiece.model",), ("vocab.json", "merges.txt"))  # files of which a tokenizer has one set
KINDS = {"t5": "T5", "clip": "CLIP", "clip_text_model": "CLIP"}  # type of an encoder's model -> how its tokenizer's class begins
WORDS = ("cat", "dog")


def is_hub_name(source: str | Path) -> bool:
    """Whether a name that is no folder here may be one on the hub: owner/model."""
    name = str(source)
    return name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not Path(source).exists()


def from_disk_or_hub(cls: type, source: str | Path, **options: Any) -> Any:
    """cls.from_pretrained(source): what is on this machine needs no network, and no wait for one that is down.

    Raises OSError or ValueError if there is nothing of that kind, or it would run code of its own.
    """
    if cls.__module__.partition(".")[0] == "transformers":
        options = options | {"trust_remote_code": False}
    try:
        try:
            return cls.from_pretrained(source, local_files_only=True, **options)
        except OSError:
            if not is_hub_name(source):
                raise
        announce(f"fetching {source} from the hub")
        return cls.from_pretrained(source, **options)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ValueError(f"{source} wants to run code of its own, which is refused") from error
        raise


# ---- encoders -------------------------------------------------------------------------------------------------------------------------


def load_encoder(cls: type, source: str | Path, **options: Any) -> Any:
    """A model of transformers, in evaluation mode and without gradients, made sure to be complete.

    Raises ValueError if the weights are damaged, not finite, or lack tensors, OSError if there are none.
    """
    try:
        model, info = from_disk_or_hub(cls, source, output_loading_info=True, **options)
    except (OSError, ValueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # SafetensorError, unpicklers', and torch's on shapes that differ
        raise ValueError(f"the weights in {source} are damaged, or not for its config.json: {plain_reason(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{source} lacks {len(missing)} tensors of its {model.config.model_type} text encoder, first {missing[0]}")
    check_tensors({key: value for key, value in model.state_dict().items() if value.is_floating_point()}, str(source))
    return model.eval().requires_grad_(False)


def check_encoder(source: str | Path, types: Collection[str] = ("t5",), tokenizer: bool = True) -> None:
    """Make sure, in milliseconds, that a folder holds an encoder in full: config.json, all weights, and what splits texts into tokens.

    types: what config.json may call the model, ("clip", "clip_text_model") for CLIP. tokenizer: whether one must be there.
    The name of a model on the hub passes. Raises ValueError if anything is missing, cut off, or of another kind.
    """
    folder = Path(source)
    if is_hub_name(source):
        return
    if not folder.is_dir():
        raise ValueError(f"{source} is neither a folder nor a hub name (owner/model)")
    kind = config_of(folder).get("model_type")
    if kind not in types:
        raise ValueError(f"{source} holds a model of type {kind!r}, wanted {' or '.join(types)}")
    try:
        shapes_of(folder)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if tokenizer:
        tokenizer_folder(folder)


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises ValueError if there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has no config.json") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}/config.json cannot be read: {plain_reason(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder}/config.json is no configuration: it must be a JSON object")
    return config


# ---- tokenizers -----------------------------------------------------------------------------------------------------------------------


def load_tokenizer(cls: type, source: str | Path, **options: Any) -> Any:
    """The tokenizer of an encoder, from the encoder's folder, from `tokenizer` or `tokenizer_2` beside it, or by the encoder's hub name.

    Made sure to tell words apart and to fit the encoder: transformers makes an empty one where there are no files, and every prompt
    then encodes alike. cls: AutoTokenizer, or a class of its own. Raises ValueError if there is none, or it does not fit.
    """
    from transformers import AutoConfig

    place = tokenizer_folder(source)
    try:
        rows = from_disk_or_hub(AutoConfig, source).get_text_config().vocab_size
        tokenizer = from_disk_or_hub(cls, place, **options)
        if is_hub_name(place) and not _knows_words(tokenizer):  # this machine has the encoder alone
            announce(f"fetching the tokenizer of {place} from the hub")
            tokenizer = cls.from_pretrained(place, trust_remote_code=False, force_download=True, **options)
    except Exception as error:  # tokenizers raises bare exceptions, sentencepiece runtime errors
        raise ValueError(f"the tokenizer in {place} cannot be loaded: {plain_reason(error)}") from error
    if not _knows_words(tokenizer):
        raise ValueError(f"the tokenizer in {place} knows no words: its vocabulary is missing, or another model's")
    if (largest := max(tokenizer.get_vocab().values())) >= rows:
        raise ValueError(f"the tokenizer in {place} is for another encoder: it has tokens up to {largest}, the encoder {rows} of them")
    return tokenizer


def tokenizer_folder(source: str | Path) -> Path | str:
    """Where the files of an encoder's tokenizer are: in its folder, else in a folder beside it, as diffusers lays them out.

    A hub name is returned as it is. Raises ValueError if there are none of the encoder's kind.
    """
    if not Path(source).is_dir():
        return source
    folder = Path(source).resolve()
    own = "tokenizer" + folder.name.removeprefix("text_encoder") if folder.name.startswith("text_encoder") else "tokenizer"
    kind = KINDS.get(config_of(folder).get("model_type", ""))
    beside = dict.fromkeys(folder.parent / name for name in (own, "tokenizer", "tokenizer_2"))
    for place in (Path(source), *beside):
        if any(all((place / file).is_file() for file in files) for files in VOCABULARIES) and _tokenizer_kind(place) in (None, kind):
            return place
    files = ", ".join(" and ".join(files) for files in VOCABULARIES)
    raise ValueError(f"{source} has no tokenizer{f' of {kind}' if kind else ''}, nor a folder {own} beside it: expected {files}")


def _tokenizer_kind(folder: Path) -> str | None:
    """Which of KINDS a tokenizer's own configuration says it is for; None if it says nothing of them."""
    try:
        name = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((kind for kind in set(KINDS.values()) if str(name).startswith(kind)), None)


def _knows_words(tokenizer: Any) -> bool:
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS]
    return ids[0] != ids[1] and all(word and tokenizer.unk_token_id not in word for word in ids)


@torch.no_grad()
def encode_padded(tokenizer: Any, encoder: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Last hidden states (B, length, D) of texts, cut or padded to `length` tokens, and the mask (B, length), 1 for real tokens."""
    tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(encoder.device)
    states = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return states, tokens["attention_mask"]


# ---- processors -----------------------------------------------------------------------------------------------------------------------


def load_processor(cls: type, source: str | Path, side: int | None = None, **options: Any) -> Any:
    """What turns pictures into the pixels of a vision model, made sure to tell black from white.

    side: of the pixels, where the model takes one size alone. Raises ValueError if there is none, or it does not fit.
    """
    from PIL import Image

    try:
        processor = from_disk_or_hub(cls, source, **options)
        black, white = (processor(images=[Image.new("RGB", (40, 30), c)], return_tensors="pt")["pixel_values"] for c in ("black", "white"))
    except Exception as error:
        raise ValueError(f"the image processor in {source} cannot be loaded: {plain_reason(error)}") from error
    if not bool((white > black).all()) or not bool(torch.isfinite(white - black).all()):
        raise ValueError(f"the image processor in {source} does not tell black from white: check its preprocessor_config.json")
    if side is not None and tuple(black.shape[-2:]) != (side, side):
        raise ValueError(
            f"the image processor in {source} makes {black.shape[-1]} x {black.shape[-2]} pixels, the model takes {side} x {side}"
        )
    return processor
