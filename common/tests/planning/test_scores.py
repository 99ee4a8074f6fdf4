import pytest
import torch

from toca.planning.scores import ALL_SCORES, SCORES, change, input_norm, normalised, received_share, small_values, undecided


def test_the_published_scores_are_there_and_say_what_they_look_at():
    observed = {name: score.observes for name, score in SCORES.items()}
    published = dict(attention="mass", similarity="change", norm="input", random="nothing", compress="mass", age="nothing")
    assert observed == published | {"kv-norm": "values", "k-norm": "keys", "v-norm": "values"}
    assert [name for name, score in SCORES.items() if score.from_attention] == ["attention", "kv-norm", "k-norm", "v-norm", "compress"]
    assert [name for name, score in SCORES.items() if score.from_input] == ["similarity", "norm"]
    assert {name: score.random for name, score in SCORES.items() if score.random} == dict(random=1.0, compress=0.5)


def test_normalised_has_length_one_and_survives_zeros():
    score = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(normalised(score), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_received_share_is_half_at_the_token_that_receives_most():
    torch.testing.assert_close(received_share(torch.tensor([[1.0, 4.0, 2.0]])), torch.tensor([[0.125, 0.5, 0.25]]))


def test_small_values_sum_over_heads_and_may_be_negative():
    v = torch.tensor([[[[3.0, 4.0], [0.0, 0.5]], [[0.0, 1.0], [0.0, 0.0]]]])  # (1, 2 heads, 2 tokens, 2)
    torch.testing.assert_close(small_values(v), torch.tensor([[-4.0 + 0.0, 0.5 + 1.0]]))


def test_input_norm_and_change_of_tokens():
    x = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    torch.testing.assert_close(input_norm(x), normalised(torch.tensor([[5.0, 1.0]])))
    reference = torch.tensor([[[6.0, 8.0], [1.0, 0.0]]])  # same direction; a right angle
    torch.testing.assert_close(change(x, reference), torch.tensor([[0.0, 1.0]]), atol=1e-6, rtol=0)


def test_change_survives_zero_tokens():
    assert change(torch.zeros(1, 3, 4), torch.randn(1, 3, 4)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_float32_whatever_the_model(dtype):
    x = torch.randn(2, 5, 8).to(dtype)
    assert {f.dtype for f in (input_norm(x), change(x, x), small_values(x[:, None]))} == {torch.float32}


def test_lengths_of_heads_are_averaged():
    keys = torch.tensor([[[[3.0, 4.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]])  # (1, 2 heads, 2 tokens, 2)
    torch.testing.assert_close(SCORES["k-norm"].base(keys), torch.tensor([[3.0, 1.0]]))


def test_norms_and_entropies_are_normalised_when_tokens_are_ranked():
    base = torch.tensor([[2.0, 3.0]])
    assert {name for name, score in ALL_SCORES.items() if score.scale} == {"kv-norm", "k-norm", "v-norm", "entropy"}
    torch.testing.assert_close(SCORES["v-norm"].scale(base), normalised(base))
    torch.testing.assert_close(ALL_SCORES["entropy"].scale(base), torch.tensor([[0.6, 0.8]]))
    assert undecided(torch.tensor([0.0, 2.0])).diff() > 0
