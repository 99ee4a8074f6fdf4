"""The text encoders: T5 for one vector per token, CLIP for one vector per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from toca.loading.pretrained import from_disk_or_hub, load_encoder, load_tokenizer

CLIP_TYPES = ("clip", "clip_text_model")
CLIP_LENGTH = 77


class HFEmbedder(nn.Module):
    """A text encoder of transformers, from a folder or by its hub name; its configuration, not its name, says which kind it is.

    T5: (B, max_length, D), the last hidden states. CLIP: (B, D), the pooled output.
    Prompts are cut or padded to max_length, and the padding takes part in attention: that is what FLUX was trained with.
    Raises ValueError if the folder is neither kind, damaged, or lacks tensors or a tokenizer, OSError if there is none.
    """

    def __init__(self, source: str | Path, max_length: int, dtype: torch.dtype = torch.bfloat16) -> None:
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel

        super().__init__()
        kind = from_disk_or_hub(AutoConfig, source).model_type
        if kind != "t5" and kind not in CLIP_TYPES:
            raise ValueError(f"{source} holds a model of type {kind!r}; FLUX reads prompts with T5 and CLIP")
        self.is_clip, self.max_length = kind in CLIP_TYPES, max_length
        self.tokenizer = load_tokenizer(AutoTokenizer, source)
        cls = CLIPTextModel if self.is_clip else T5EncoderModel
        self.hf_module = load_encoder(cls, source, dtype=dtype)

    @property
    def width(self) -> int:
        """D of the output."""
        return self.hf_module.config.hidden_size

    @torch.no_grad()
    def forward(self, text: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(text), truncation=True, max_length=self.max_length, padding="max_length", return_tensors="pt")
        output = self.hf_module(input_ids=tokens["input_ids"].to(self.hf_module.device), attention_mask=None)
        return output.pooler_output if self.is_clip else output.last_hidden_state
