from __future__ import annotations

import numpy as np
import torch

from toca import shapeworld
from toca.runs.pictures import to_uint8
from toca.training.world import TEXT_TOKENS, Pool, padded, t5_encoder, t5_tokenizer, words


def test_every_caption_is_made_of_the_words_and_fits() -> None:
    _, captions = shapeworld.captioned(0, np.arange(300), kinds=tuple(shapeworld.KINDS))
    assert {word for caption in captions for word in caption.split()} <= set(words())
    assert max(len(caption.split()) for caption in captions) + 2 <= TEXT_TOKENS  # CLIP has a start and an end


def test_a_word_is_one_token_and_no_two_share_it() -> None:
    tokenizer = t5_tokenizer()
    ids = [tokenizer(word)["input_ids"] for word in words()]
    assert {len(some) for some in ids} == {2}  # with the end
    assert len({tuple(some) for some in ids}) == len(ids)
    assert tokenizer.unk_token_id not in tokenizer("purple")["input_ids"]  # another word is spelt


def test_t5_reads_in_order() -> None:
    tokenizer = t5_tokenizer()
    encoder = t5_encoder(tokenizer).eval()
    with torch.no_grad():
        one, other = encoder(padded(tokenizer, ["a red circle above a blue square", "a blue circle above a red square"])).last_hidden_state
    assert (one[2] - other[2]).abs().max() > 1e-3  # "circle", after another colour


def test_a_pool_draws_each_picture_by_its_number() -> None:
    tokenizer = t5_tokenizer()

    def pool() -> Pool:
        return Pool(lambda captions: padded(tokenizer, captions), 8, ("single", "counted"), seed=3)

    one, other = pool(), pool()
    one.batch(np.arange(5))
    other.fill(workers=1)
    for a, b in zip(one.batch(np.array([9, 2, 7])), other.batch(np.array([1, 10, 15])), strict=True):  # modulo its size
        assert torch.equal(a, b)
    pictures, captions = shapeworld.captioned(3, [4], kinds=("single", "counted"))
    x, tokens = one.batch(np.array([4]))
    assert (to_uint8(x) == pictures).all() and torch.equal(tokens, padded(tokenizer, captions))
