"""What every caching method is: settings, a plan, a slot, and (if it refreshes single tokens) a way to rank them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from toca.planning.checks import MOST_STEPS, check_kind, check_whole
from toca.planning.checks import check_positive as check_positive  # what most methods check their settings with
from toca.planning.plan import Plan
from toca.planning.scores import ALL_SCORES, Score
from toca.planning.spec import ModelSpec

M = TypeVar("M", bound="Method")


@dataclass(frozen=True)
class Flag:
    """A command-line flag that sets a field of a method; every fork offers it, in its own spelling.

    name: words joined by underscores.
    field: of the method.
    help: one line.
    default: where a fork has no other.
    type: makes a value of a text; `bool` for a switch.
    least, most: of a number.
    choices: what it may be, given a spec of the model; None: anything.
    applies: whether a model, by its spec, has any use for it.
    idle: why it changes nothing beside the values of other flags, by their names; empty where it does.
    in_name: whether a folder's name tells runs apart by it.
    """

    name: str
    field: str
    help: str
    default: Any = None
    type: Callable[[str], Any] = str
    least: float = 1
    most: float = 1000
    choices: Callable[[ModelSpec], tuple[str, ...]] | None = None
    applies: Callable[[ModelSpec], bool] = lambda spec: True
    idle: Callable[[Mapping[str, Any]], str] = lambda given: ""
    in_name: bool = True


CYCLE_LENGTH = Flag("fresh_threshold", "interval", "cycle length N; 1 caches nothing", type=int)


@dataclass(frozen=True)
class Ranking:
    """How tokens are ranked.

    score: name of an entry of `planning.scores.ALL_SCORES`.
    age_weight: s3, what a cached step of staleness adds to a score.
    block, bonus, frames: s4, as in `planning.spec.Spatial`; none if block is 0.
    softmax: the bonus goes to shares of a frame, as published for video.
    overdue: tokens as stale as this go first, whatever their score; 0: never.
    upstream_exact: upstream's similarity (input against cached output) and its bonus on negative scores.
    """

    score: str
    age_weight: float = 0.0
    block: int = 0
    bonus: float = 0.0
    frames: int = 1
    softmax: bool = False
    overdue: int = 0
    upstream_exact: bool = False

    @property
    def rule(self) -> Score:
        return ALL_SCORES[self.score]

    @property
    def keeps_input(self) -> bool:
        """Whether inputs are kept beside outputs: those of tokens when a branch last computed them."""
        return self.rule.observes == "change" and not self.upstream_exact


@dataclass(frozen=True)
class Method:
    """Base of all methods.

    name: what `--method` calls it.
    label: what a folder's name calls it.
    flags: what sets its fields on a command line.
    forecasts: slots hold differences, not just the last value.
    """

    name: ClassVar[str]
    label: ClassVar[str] = ""
    flags: ClassVar[tuple[Flag, ...]] = ()
    forecasts: ClassVar[bool] = False

    @classmethod
    def from_flags(cls: type[M], given: Mapping[str, Any]) -> M:
        """The method that flags stand for, by their names; where one is lacking or None the field keeps its default. Raises ValueError."""
        return cls(**{flag.field: given[flag.name] for flag in cls.flags if given.get(flag.name) is not None})

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        """The plan of a run of `num_steps` model calls. Raises ValueError on settings that make no sense."""
        raise NotImplementedError

    def ranking(self, spec: ModelSpec) -> Ranking | None:
        return None


def check_run(spec: Any, num_steps: Any) -> None:
    """What every `plan` is given."""
    check_kind(ModelSpec, spec=spec)
    check_whole(1, MOST_STEPS, num_steps=num_steps)
