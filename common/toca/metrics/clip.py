"""CLIP score: 100 times the cosine of a picture and its text (Hessel et al., arXiv 2104.08718), through transformers' CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MODEL = "openai/clip-vit-large-patch14"


class ClipScorer:
    """Rates pictures (B, H, W, 3) uint8 against one text each, pair by pair.

    rescaled_twice: what several published tables of this field print, with values near 16: pictures given as numbers in 0..1, which the
    processor divides by 255 once more, so that the network sees almost black. Not comparable with anything else.
    """

    def __init__(self, source: str | Path, device: torch.device, rescaled_twice: bool = False) -> None:
        """source: a folder or a hub name, of `MODEL` by convention. Raises ValueError if there is none, or a part of it is missing."""
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        try:
            self.model, info = CLIPModel.from_pretrained(source, output_loading_info=True)
            self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            self.processor = CLIPImageProcessor.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"no CLIP {source}: give its folder ({MODEL} by convention) with --clip ({reason})") from error
        if lacking := sorted(info["missing_keys"]):
            raise ValueError(f"{source} lacks {len(lacking)} tensors of CLIP, first {lacking[0]}")
        if (known := len(self.tokenizer)) != (wanted := self.model.config.text_config.vocab_size):
            raise ValueError(f"{source}: the tokenizer knows {known} words, the model {wanted}")
        self.model.to(device).eval().requires_grad_(False)
        self.device, self.rescaled_twice = device, rescaled_twice

    @torch.no_grad()
    def __call__(self, pictures: NDArray[np.uint8], texts: Sequence[str]) -> Tensor:
        """100 cos(picture, text), (B,), which may be negative. Raises ValueError if there are not as many texts as pictures."""
        if len(pictures) != len(texts):
            raise ValueError(f"one text a picture is wanted, got {len(pictures)} pictures and {len(texts)} texts")
        images = [picture.astype(np.float32) / 255 if self.rescaled_twice else picture for picture in pictures]
        pixels = self.processor(images, return_tensors="pt", do_rescale=True)["pixel_values"]
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        out = self.model(pixel_values=pixels.to(self.device), **tokens.to(self.device))
        return 100 * (out.image_embeds * out.text_embeds).sum(dim=1)  # both of length one
