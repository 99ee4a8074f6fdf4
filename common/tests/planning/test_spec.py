import pytest
from toy import attn, mlp, spec, stack

from toca.planning.schedule import Bilinear
from toca.planning.spec import Branch, Cost


def test_a_cost_is_fixed_plus_per_token():
    assert Cost(fixed=7, per_token=3)(5) == 22 and Cost()(100) == 0


def test_sites_follow_the_order_of_computation():
    model = spec(stack("double", 2), stack("single", 1, [attn()]))
    assert list(model.sites()) == [(s, layer, b) for s, layer, b in [
        ("double", 0, "attn"), ("double", 0, "mlp"), ("double", 1, "attn"), ("double", 1, "mlp"), ("single", 0, "attn"),
    ]]  # fmt: skip
    assert model.stack("single").depth == 1 and model.branch(("double", 1, "mlp")).tokenwise


def test_a_models_own_ratio_schedules_stand_beside_the_common_ones():
    own = Bilinear(progress=(2.0, 0.0))
    model = spec(ratio_schedules={"ToCa": own})
    assert model.ratio_schedule("ToCa") is own and model.ratio_schedule("constant") is not own
    with pytest.raises(ValueError, match=r"unknown ratio schedule 'sine' for toy: choose from constant, .*ToCa"):
        model.ratio_schedule("sine")


def test_specs_are_plain_data():
    assert spec(stack(branches=[attn(9), mlp(9, (3, 3))])) == spec(stack(branches=[attn(9), mlp(9, (3, 3))]))
    with pytest.raises(AttributeError):
        spec().name = "other"


@pytest.mark.parametrize("name", ["stack", "once", "_attn", "cross-attn", "2nd", ""])
def test_a_branch_has_a_name_that_a_block_can_call(name):
    with pytest.raises(ValueError, match=f"no branch can be called {name!r}"):
        Branch(name, 4, 8, {})
