"""The text encoder of Open-Sora: the encoder of T5 v1.1 XXL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from opensora.registry import MODELS
from toca.loading.pretrained import check_encoder, encode_padded, load_encoder, load_tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # not fp16, in which T5 overflows


def check_t5(source: str, dtype: str = "fp32") -> None:
    """Make sure, without loading it, that a folder holds a T5 with its tokenizer. Raises ValueError."""
    if dtype not in DTYPES:
        raise ValueError(f"text encoder: there is no dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    check_encoder(source)


@MODELS.register_module("t5")
class T5Encoder:
    """Texts to the last hidden states of a T5, from a folder of transformers or by its hub name.

    model_max_length: tokens that a text is padded or cut to. dtype: fp32, which it is published to run in, or bf16.
    shardformer: of ColossalAI, accepted because configurations have it.
    Raises ValueError if the folder holds something else, is damaged or lacks tensors, OSError if it or its tokenizer cannot be read.
    """

    def __init__(
        self,
        from_pretrained: str = "DeepFloyd/t5-v1_1-xxl",
        model_max_length: int = 300,
        dtype: str = "fp32",
        device: torch.device | str = "cpu",
        shardformer: bool = False,
    ) -> None:
        check_t5(from_pretrained, dtype)
        self.model_max_length = model_max_length
        self.tokenizer = load_tokenizer(AutoTokenizer, from_pretrained)
        self.model = load_encoder(T5EncoderModel, from_pretrained, dtype=DTYPES[dtype]).to(device)

    @property
    def output_dim(self) -> int:
        return self.model.config.d_model

    def encode(self, text: Sequence[str]) -> dict[str, Tensor]:
        """y: (n, 1, L, D), the states of cleaned texts; mask: (n, L), 1 at their tokens. L is model_max_length."""
        states, mask = encode_padded(self.tokenizer, self.model, text, self.model_max_length)
        return dict(y=states[:, None], mask=mask)
