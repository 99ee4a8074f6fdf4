from __future__ import annotations

import argparse

import pytest

from toca.training.settings import Settings, add_flags


def test_the_rate_rises_stays_and_falls():
    settings = Settings(steps=100, lr=1.0, warmup=10, cooldown=0.4)
    rates = [settings.learning_rate(step, 0.0) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:61] == [1.0] * 51
    assert rates[80] == pytest.approx(0.5) and rates[99] == pytest.approx(1 / 40)


def test_without_steps_the_fall_is_fitted_to_the_time():
    settings = Settings(minutes=10, lr=1.0, warmup=0, cooldown=0.5)
    assert [settings.learning_rate(7, minutes) for minutes in (0, 5, 7.5, 10, 12)] == [1, 1, 0.5, 0, 0]


def test_with_steps_the_time_decides_the_end_alone():
    settings = Settings(steps=100, minutes=10, lr=1.0, warmup=0, cooldown=0.5)
    assert settings.learning_rate(0, 9.9) == 1
    assert [settings.ended(99, 9.9), settings.ended(100, 0), settings.ended(0, 10)] == [False, True, True]


@pytest.mark.parametrize(
    "wrong, named",
    [
        (dict(batch=0), "--batch must be at least 1, got 0"),
        (dict(lr=float("nan")), "--lr must be a number above 0"),
        (dict(minutes=-1.0), "--minutes must be"),
        (dict(ema_decay=1.5), r"--ema-decay must be in 0..1"),
        (dict(save_minutes=0.0), "--save-minutes"),
        (dict(steps=None), "give --steps, --minutes or both"),
    ],
)
def test_wrong_values_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        Settings(**{"steps": 10, **wrong})


def test_every_field_is_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser, bf16=True, lr=0.5)
    args = parser.parse_args(["--batch", "7", "--minutes", "1.5", "--no-bf16", "--save-minutes", "2"])
    assert Settings.from_args(args) == Settings(batch=7, minutes=1.5, lr=0.5, save_minutes=2.0)
