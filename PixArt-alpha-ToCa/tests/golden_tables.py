"""The reference tables: schedules, cleaned prompts, aspect ratios."""

from __future__ import annotations

import numpy as np
import pytest
from golden_data import read_json

from pixart.aspect_ratios import MARKERS, parse_prompt
from pixart.solvers import IDDPM
from pixart.solvers.schedule import uniform_times
from toca.loading.caption_cleaning import clean_caption


def check_dpm_schedule(file: str) -> None:
    """The times of DPM-Solver++ and of SA-Solver."""
    for steps, published in read_json(file)["steps"].items():
        times = uniform_times(int(steps))
        np.testing.assert_allclose(times.timesteps, published["model_timestep"], atol=1e-4, err_msg=steps)  # float32 of up to 999
        for name in ("t", "alpha", "sigma"):
            np.testing.assert_allclose(getattr(times, name), published[name], rtol=1e-4, err_msg=f"{name} of {steps} steps")
        np.testing.assert_allclose(times.lam, published["lambda"], atol=1e-4, err_msg=f"lambda of {steps} steps")


def check_iddpm_schedule(file: str) -> None:
    for steps, tables in read_json(file).items():
        diffusion = IDDPM(steps)
        for table, published in tables.items():
            np.testing.assert_allclose(getattr(diffusion, table), published, rtol=1e-12, atol=1e-15, err_msg=f"{table} of {steps} steps")


def check_prompts(file: str) -> None:
    """Cleaned captions, and aspect ratios but for flags that say nothing, which are errors here."""
    cases = read_json(file)
    assert cases.keys() == {"cleaning", "aspect"} and all(cases.values())
    for case in cases["cleaning"]:
        assert clean_caption(case["prompt"]) == case["cleaned"], case["prompt"]
    for case in cases["aspect"]:
        prompt = case["prompt"]
        if MARKERS.search(prompt) and "--ar " not in prompt.replace("--ar 1.5", "") and "--aspect_ratio" not in prompt:
            with pytest.raises(ValueError, match="no aspect ratio"):
                parse_prompt(prompt, case["image_size"])
            continue
        request = parse_prompt(prompt, case["image_size"])
        assert request.text == case["clean_stripped"], prompt
        assert [request.height, request.width] == case["bin_hw"], prompt
        assert request.ratio == pytest.approx(case["ratio"], abs=1e-6), prompt


CHECKS = {
    "dpm_schedule.json": check_dpm_schedule,
    "iddpm_schedule.json": check_iddpm_schedule,
    "prompt_handling.json": check_prompts,
}
