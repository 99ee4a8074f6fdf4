"""What decides a training run beside its model and data: sizes, learning rate, where it ends."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Settings:
    """Each field is a flag. Raises ValueError that names the flag if a value makes no sense.

    steps, minutes: the run ends at whichever comes first; one of them must be given. `minutes` are those of this call, resumed or not.
    """

    batch: int = 32
    steps: int | None = None
    minutes: float | None = None
    lr: float = 1e-3
    warmup: int = 100
    cooldown: float = 0.0
    ema_decay: float = 0.998
    seed: int = 0
    bf16: bool = False
    log_every: int = 50
    save_minutes: float = 5.0
    keep: int = 2

    def __post_init__(self) -> None:
        for name, least in dict(batch=1, steps=1, log_every=1, keep=1, warmup=0, seed=0).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{flag(name)} must be at least {least}, got {value}")
        for name in ("minutes", "lr", "save_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{flag(name)} must be a number above 0, got {value}")
        for name in ("cooldown", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{flag(name)} must be in 0..1, got {getattr(self, name)}")
        if self.steps is None and self.minutes is None:
            raise ValueError("training has no end: give --steps, --minutes or both")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Settings:
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})

    def progress(self, step: int, minutes: float) -> float:
        """The share of the run that lies behind, 0..1: of `steps` where they are given, so that a resumed run goes on as it would
        have; else of `minutes`."""
        return min(1.0, step / self.steps if self.steps else minutes / self.minutes)

    def learning_rate(self, step: int, minutes: float) -> float:
        """Linear warm-up, then constant, then a linear fall to zero over the last `cooldown` share of the run."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        left = 1 - self.progress(step, minutes)
        return self.lr * min(warm, left / self.cooldown if left < self.cooldown else 1.0)

    def ended(self, step: int, minutes: float) -> bool:
        return (self.steps is not None and step >= self.steps) or (self.minutes is not None and minutes >= self.minutes)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


HELP = {
    "batch": "pictures per step, over all processes",
    "steps": "where the run ends; the learning rate's fall is fitted to it",
    "minutes": "when this call ends, with a whole checkpoint; without --steps the learning rate's fall is fitted to it",
    "lr": "learning rate of AdamW and Muon",
    "warmup": "steps over which the learning rate rises",
    "cooldown": "share of the run at its end over which the learning rate falls to zero",
    "ema_decay": "of the average of the weights, per step",
    "seed": "of data, noise and first weights",
    "log_every": "steps per line of log.jsonl",
    "save_minutes": "time between checkpoints",
    "keep": "checkpoints that stay",
}


def add_flags(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """A flag for every field of `Settings`. defaults: the program's own."""
    for field in fields(Settings):
        default = defaults.get(field.name, field.default)
        if field.name == "bf16":
            parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=default, help="matrix products in bfloat16")
            continue
        kind = int if "int" in str(field.type) else float
        parser.add_argument(flag(field.name), type=kind, default=default, help=f"{HELP[field.name]} (default {default})")
