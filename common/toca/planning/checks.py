"""What the arguments of the library may be. One family: each takes arguments by name, and its error names the argument and what is allowed.

TypeError for a value of another kind, ValueError for one that is not allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

MOST = 2**63 - 1  # of whole numbers that have no limit of their own
MOST_STEPS = 100_000  # of a run; no model was trained for more than some thousands


def check_whole(least: int = 0, most: int = MOST, **values: Any) -> None:
    """Whole numbers, no floats and no bools, of `least` to `most`."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number of at least {least}, got {_short(value)}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {_short(value)}")
        if value > most:
            raise ValueError(f"{name} must be at most {most}, got {_short(value)}")


def check_positive(**values: Any) -> None:
    """Whole numbers of at least 1."""
    check_whole(1, **values)


def check_number(least: float = -math.inf, most: float = math.inf, **values: Any) -> None:
    """Finite numbers, no bools, of `least` to `most`."""
    for name, value in values.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, got {_short(value)}")
        if not (math.isfinite(value) and least <= value <= most):
            limits = (
                f" between {least:g} and {most:g}" if math.isfinite(most) else f" of at least {least:g}" if math.isfinite(least) else ""
            )
            raise ValueError(f"{name} must be a finite number{limits}, got {_short(value)}")


def check_truth(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {_short(value)}")


def check_choice(choices: Collection[str], **values: Any) -> None:
    """One of some names."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a name, got {_short(value)}: choose from {', '.join(choices)}")
        if value not in choices:
            raise ValueError(f"unknown {name} {_short(value)}: choose from {', '.join(choices)}")


def check_kind(kind: type | tuple[type, ...], what: str | None = None, **values: Any) -> None:
    """Instances of a class. what: its name in the error."""
    for name, value in values.items():
        if not isinstance(value, kind):
            wanted = what or _article(kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind))
            hint = f"the class {value.__name__}: call it" if isinstance(value, type) and issubclass(value, kind) else _short(value)
            raise TypeError(f"{name} must be {wanted}, got {hint}")


def check_wholes(least: int = 0, length: int | None = None, **values: Any) -> None:
    """Tuples, lists or ranges of whole numbers."""
    for name, value in values.items():
        if not isinstance(value, (tuple, list, range)) or (length is not None and len(value) != length):
            count = "" if length is None else f"{length} "
            raise TypeError(f"{name} must be a tuple of {count}whole numbers, got {_short(value)}")
        check_whole(least, **{f"{name}[{place}]": number for place, number in enumerate(value)})


def check_all(kind: type, **values: Any) -> None:
    """Tuples, or lists, of instances of a class, with at least one."""
    for name, value in values.items():
        if not isinstance(value, (tuple, list)):
            raise TypeError(f"{name} must be a tuple of {kind.__name__}, got {_short(value)}")
        if not value:
            raise ValueError(f"{name} must hold at least one {kind.__name__}")
        check_kind(kind, **{f"{name}[{place}]": item for place, item in enumerate(value)})


def check_mapping(check: Callable[..., None], **values: Any) -> None:
    """Mappings of names to what `check(key=value)` lets pass."""
    for name, value in values.items():
        check_kind(Mapping, "a mapping of names", **{name: value})
        for key, item in value.items():
            check_kind(str, f"a mapping of names, and {_short(key)} is none", **{name: key})
            check(**{f"{name}[{key!r}]": item})


def check_distinct(kind: str, names: Collection[str]) -> None:
    """Names of one kind that differ."""
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ValueError(f"two {kind} are called {twice!r}: names must differ")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # also of whole numbers with thousands of digits
        return f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 60 else text[:56] + "..."
