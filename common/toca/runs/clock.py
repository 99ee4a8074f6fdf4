"""Seconds, as the device sees them."""

from __future__ import annotations

import time
from typing import Any

import torch


class Clock:
    """Marks in time: CUDA events, which do not stall the device, or the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds between neighbouring marks."""
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]


class Stopwatch:
    """The seconds of all its `with` blocks together, in which `items` of a kind were made.

    unit: what one of them is called.
    """

    def __init__(self, device: torch.device, unit: str = "image") -> None:
        self.device, self.unit, self.seconds, self.items = device, unit, 0.0, 0

    def __enter__(self) -> Stopwatch:
        self._started = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds += self._now() - self._started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def report(self) -> str:
        """How many in what time, and the peak memory of a GPU."""
        each = f", {self.seconds / self.items:.2f} s each" if self.items > 1 else ""
        text = f"{self.items} {self.unit}{'s' * (self.items != 1)} in {self.seconds:.2f} s{each}"
        if self.device.type == "cuda":
            text += f"; peak {torch.cuda.max_memory_allocated(self.device) / 1e9:.2f} GB on {torch.cuda.get_device_name(self.device)}"
        return text
