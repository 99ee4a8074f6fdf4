"""flux-mini: a small FLUX on 32 x 32 pixels that draws what captions of `toca.shapeworld` say, with tiny text encoders of its own.

No autoencoder: the latents are the pixels, 3 channels, in [-1, 1], so a token is 2 x 2 pixels. What FLUX's programs take for a picture of
256 x 256 pixels with latents of an eighth is here a picture of 32 x 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn as nn
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from flux.model import Flux
from flux.modules.conditioner import CLIP_LENGTH, HFEmbedder
from flux.sampler import image_ids
from flux.spec import FluxParams
from flux.weights import reader
from toca.loading.weights import load_into, load_state_dict
from toca.runs.files import atomic_path
from toca.training.world import CHANNELS, LETTERS, SIZE, T5_WIDTH, TEXT_TOKENS, padded, t5_encoder, t5_tokenizer, words

PATCH = 2  # pixels of a token's side
CLIP_WIDTH = 64
WEIGHTS, T5, CLIP = "flux-mini.safetensors", "t5", "clip"  # in a folder

PARAMS = FluxParams(
    in_channels=CHANNELS * PATCH**2,
    out_channels=CHANNELS * PATCH**2,
    vec_in_dim=CLIP_WIDTH,
    context_in_dim=T5_WIDTH,
    hidden_size=128,
    num_heads=2,
    depth=2,
    depth_single_blocks=4,
    axes_dim=(16, 24, 24),
    theta=100,
    guidance_embed=False,
)


def clip_tokenizer() -> CLIPTokenizer:
    """One token per word of a caption between `<|startoftext|>` and `<|endoftext|>`; other words are spelt."""
    merges: list[tuple[str, str]] = []
    for word in words():
        symbols = merged([*word[:-1], f"{word[-1]}</w>"], merges)
        for i in range(1, len(symbols)):
            merges.append(("".join(symbols[:i]), symbols[i]))
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges)


def merged(symbols: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    """What byte-pair encoding makes of a word's symbols: neighbours are joined in the order of `merges`."""
    for left, right in merges:
        out: list[str] = []
        for symbol in symbols:
            if out and (out[-1], symbol) == (left, right):
                out[-1] = left + right
            else:
                out.append(symbol)
        symbols = out
    return symbols


class Mini(nn.Module):
    """What is trained: the transformer and, along with it, its two text encoders."""

    def __init__(self, params: FluxParams = PARAMS) -> None:
        super().__init__()
        self.t5_tokenizer, self.clip_tokenizer = t5_tokenizer(), clip_tokenizer()
        self.flux = initialised(Flux(params))
        self.t5 = t5_encoder(self.t5_tokenizer)
        end = self.clip_tokenizer.eos_token_id
        ends = dict(bos_token_id=self.clip_tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end)
        sizes = dict(hidden_size=CLIP_WIDTH, intermediate_size=2 * CLIP_WIDTH, num_hidden_layers=2, num_attention_heads=4)
        self.clip = CLIPTextModel(CLIPTextConfig(vocab_size=len(self.clip_tokenizer), **sizes, **ends))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokens of T5 and of CLIP, (B, 2, TEXT_TOKENS). CLIP looks only backwards: what is beyond the end changes nothing."""
        return torch.stack([padded(tokenizer, captions) for tokenizer in (self.t5_tokenizer, self.clip_tokenizer)], dim=1)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights Muon is made for: attention and MLP linears of the transformer's blocks."""
        named = self.flux.named_parameters()
        return [p for name, p in named if "_blocks." in name and p.ndim == 2 and not name.endswith("lin.weight")]

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """txt (B, TEXT_TOKENS, T5_WIDTH) and y (B, CLIP_WIDTH)."""
        t5_ids, clip_ids = tokens.unbind(1)
        return self.t5(input_ids=t5_ids).last_hidden_state, self.clip(input_ids=clip_ids).pooler_output

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        tokens: Tensor,
        guidance: Tensor | None = None,
        *,
        patch: int = PATCH,
        keep: Tensor | None = None,
    ) -> Tensor:
        """The velocity of x (B, 3, H, W) at times t (B,) under captions (B, 2, TEXT_TOKENS), in patches (B, N, 3 patch^2).

        keep: indices (N',) of the patches that take part; the others are neither seen nor predicted.
        """
        txt, y = self.encode(tokens)
        rows = SIZE // patch
        ids = image_ids(len(x), rows, rows, x.device) * (patch / PATCH)  # a coarse token's position is that of its first fine one
        img = patches(x, patch)
        if keep is not None:
            img, ids = img[:, keep], ids[:, keep]
        return self.flux(img, ids, txt, txt.new_zeros(*txt.shape[:2], 3), t, y, guidance)


def patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to tokens (B, H W / patch^2, C patch^2), in the order of `flux.sampler.pack`."""
    return rearrange(x, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=patch, pw=patch)


def initialised(flux: Flux) -> Flux:
    """Weights to train from: every block begins as the identity, the output as zero (Peebles and Xie 2023)."""
    for name, module in flux.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(".lin") or name.startswith("final_layer"):
                nn.init.zeros_(module.weight)
            if name == "guidance_in.out_layer":
                nn.init.zeros_(module.weight)  # a model that learns guidance begins as the one without
    return flux


def save(model: Mini, folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """A folder as FLUX's programs read it: the transformer in the published layout, T5 and CLIP with their tokenizers."""
    with atomic_path(folder / WEIGHTS) as part:
        save_file({name: value.to(dtype).contiguous() for name, value in model.flux.state_dict().items()}, part)
    for name, encoder, tokenizer in ((T5, model.t5, model.t5_tokenizer), (CLIP, model.clip, model.clip_tokenizer)):
        tokenizer.save_pretrained(folder / name)
        encoder.to(dtype).save_pretrained(folder / name)
        encoder.float()
    return folder


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `Mini`, from a checkpoint of its training or from a folder that `save` wrote."""
    folder = Path(path)
    if not folder.is_dir():
        return load_state_dict(folder)
    files = {"flux": folder / WEIGHTS, "t5": folder / T5 / "model.safetensors", "clip": folder / CLIP / "model.safetensors"}
    state = {f"{part}.{name}": value for part, file in files.items() for name, value in load_state_dict(file).items()}
    return state | {"t5.encoder.embed_tokens.weight": state["t5.shared.weight"]}  # one tensor under two names


def load(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Flux, HFEmbedder, HFEmbedder]:
    """Transformer, T5 and CLIP of a folder, strictly. Raises ValueError or OSError if it lacks something."""
    state = reader(torch.device(device), dtype)(folder / WEIGHTS)
    guided = "guidance_in.in_layer.weight" in state
    with torch.device("meta"):
        flux = Flux(PARAMS.replace(guidance_embed=guided))
    load_into(flux, state, str(folder / WEIGHTS))
    t5, clip = HFEmbedder(folder / T5, TEXT_TOKENS, dtype), HFEmbedder(folder / CLIP, CLIP_LENGTH, dtype)
    return flux.requires_grad_(False).eval(), t5.to(device), clip.to(device)
