"""When a step is full, and how many tokens the others refresh. Plain Python; float32 rounding where upstream rounds."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


def f32(x: float) -> float:
    """x rounded to the nearest float32."""
    return struct.unpack("f", struct.pack("f", x))[0]


class Phase(NamedTuple):
    """Where a step is in its cycle: 0 is full, p > 0 is the p-th place after it. The two differ at "mixed steps" of published code alone.

    first: of layer 0 of the first stack.
    rest: of all other layers.
    """

    first: int
    rest: int

    def of(self, stack: int, layer: int) -> int:
        return self.first if stack == layer == 0 else self.rest


@dataclass(frozen=True)
class Cycle:
    """A rule for full steps, by phases.

    lead: number of first steps that are full.
    stretch: (a, b). The length after a full step at progress p = index / num_steps is round(N / (a + b p)), in float32, half to even.
    window: (from, to, length): between two shares of the run the length is fixed.
    anchor: what a phase counts. index: index mod length. last_full: steps since the last full step.
    """

    lead: int = 1
    stretch: tuple[float, float] = (1.0, 0.0)
    window: tuple[float, float, int] | None = None
    anchor: Literal["index", "last_full"] = "index"

    def length(self, interval: int, index: int, num_steps: int) -> int:
        if self.window and int(self.window[0] * num_steps) <= index < int(self.window[1] * num_steps):
            return self.window[2]
        a, b = self.stretch
        return max(1, round(f32(f32(interval) / f32(a + b * index / num_steps))))

    def phases(self, interval: int, num_steps: int, counts_down: bool, per_layer: bool = False) -> list[Phase]:
        """The phase of every step, in execution order.

        per_layer: decide again in every layer although layer 0 of a full step has already changed the length, as upstream does
        ("mixed steps"). Otherwise both phases are equal, and interval 1 makes every step full.
        """
        if interval == 1 and not per_layer:
            return [Phase(0, 0)] * num_steps
        phases: list[Phase] = []
        length, last_full = interval, 0
        for step in range(num_steps):
            index = num_steps - 1 - step if counts_down else step
            place = index if self.anchor == "index" else step - last_full
            first = rest = 0 if step < self.lead else place % length
            if first == 0:
                length, last_full = self.length(interval, index, num_steps), step
                if per_layer and self.anchor == "index" and step >= self.lead:
                    rest = index % length
            phases.append(Phase(first, rest))
        return phases


@dataclass(frozen=True)
class At:
    """Where a ratio is asked for.

    progress: index / num_steps.
    depth: layer / (layers - 1).
    mode: place in the base cycle, 0 to 1.
    branch, layer: name and index.
    """

    progress: float
    depth: float
    mode: float
    branch: str
    layer: int = 0


RatioSchedule = Callable[[At], float]  # factor on the base ratio


@dataclass(frozen=True)
class Bilinear:
    """factor = (a + b progress) (c + d depth) m[branch]: the family of all published ratio schedules but two."""

    progress: tuple[float, float] = (1.0, 0.0)
    depth: tuple[float, float] = (1.0, 0.0)
    branch: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, at: At) -> float:
        (a, b), (c, d) = self.progress, self.depth
        return (a + b * at.progress) * (c + d * at.depth) * self.branch.get(at.branch, 1.0)


RATIO_SCHEDULES: Mapping[str, RatioSchedule] = {
    "constant": Bilinear(),
    "linear": Bilinear(progress=(1.9, -1.8)),
    "layerwise": Bilinear(depth=(1.9, -1.8)),
    "exp": lambda at: 0.9**at.progress,
    "cosine": lambda at: 1 + 0.9 * math.cos(math.pi * at.progress),
    "linear-mode": lambda at: 1.9 - 1.8 * at.progress + 0.1 * (at.mode - 0.5),
}


def refreshed_tokens(ratio: float, tokens: int, bucket: int = 1) -> int:
    """Tokens refreshed at a clamped `ratio` of `tokens`: the float32 product truncated, then rounded up to a multiple of `bucket`."""
    count = int(f32(f32(min(max(ratio, 0.0), 1.0)) * tokens))
    return min(tokens, math.ceil(count / bucket) * bucket)
