"""The caching flags that every fork has, in its upstream's spelling, and the method they stand for. Free of torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from toca.methods import FORA, METHODS, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.methods.toca import FORCE_FRESH
from toca.planning.schedule import RATIO_SCHEDULES
from toca.planning.scores import SCORES
from toca.planning.spec import ModelSpec
from toca.presets import PRESETS

TRUTH = {"true": True, "yes": True, "t": True, "y": True, "1": True, "false": False, "no": False, "f": False, "n": False, "0": False}


def truth(text: str) -> bool:
    """The type of a flag that is followed by true or false."""
    if text.lower() not in TRUTH:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return TRUTH[text.lower()]


def add_method_flags(
    parser: argparse.ArgumentParser,
    model: str,
    spec: ModelSpec,
    joint: str,
    scores: Iterable[str] = SCORES,
    cache_type_help: str = "what rates a token",
    **defaults: Any,
) -> argparse._ArgumentGroup:
    """The caching method and its settings, for `method_from`. Returns their group, for what a fork has beside.

    model: of `PRESETS`. spec: any of the model, for its ratio schedules. joint: "-" or "_", between words. defaults: of fresh_threshold,
    fresh_ratio, and of others where a fork's differ.
    """
    group = parser.add_argument_group("caching")

    def add(name: str, default: Any = None, **options: Any) -> None:
        group.add_argument("--" + name.replace("_", joint), default=defaults.get(name, default), **options)

    add("preset", choices=PRESETS[model], help="a published setting; flags given beside it win")
    add("method", "toca", choices=METHODS)
    add("fresh_threshold", type=int, help="cycle length N; 1 caches nothing")
    add("fresh_ratio", type=float, help="base share of tokens refreshed at a cached step; 0 is FORA")
    add("ratio_scheduler", "ToCa", choices=tuple({**RATIO_SCHEDULES, **spec.ratio_schedules}), help="over steps, layers and branches")
    add("cache_type", "attention", choices=tuple(scores), help=cache_type_help)
    add("soft_fresh_weight", 0.25, type=float, help="weight of a token's staleness in its score")
    add("force_fresh", "global", choices=FORCE_FRESH)
    add("max_order", 1, type=int, help="order of taylorseer's differences")
    add("token_bucket", 1, type=int, help="round token counts up to a multiple: fewer shapes to compile")
    upstream = "reproduce the published code's steps, accidents included"
    add("upstream_exact", False, action="store_true", help=upstream)
    if any(branch.entropy_by for stack in spec.stacks for branch in stack.branches):
        add("frozen_scores", False, action="store_true", help="rate tokens at full steps alone, not whenever they are refreshed")
    return group


def method_from(args: argparse.Namespace) -> Method:
    """The caching method of the flags; TaylorSeer's cycle is `interval` where a fork has that flag, else `fresh_threshold`.

    Raises ValueError on settings that make no sense.
    """
    if args.method == "none":
        return NoCaching()
    if args.method == "fora":
        return FORA(interval=args.fresh_threshold)
    if args.method == "taylorseer":
        return TaylorSeer(interval=getattr(args, "interval", args.fresh_threshold), order=args.max_order)
    return {"toca": ToCa, "duca": DuCa}[args.method](
        interval=args.fresh_threshold,
        ratio=args.fresh_ratio,
        ratio_schedule=args.ratio_scheduler,
        score=args.cache_type,
        soft_fresh_weight=args.soft_fresh_weight,
        force_fresh=args.force_fresh,
        frozen=getattr(args, "frozen_scores", False),
        bucket=args.token_bucket,
        upstream_exact=args.upstream_exact,
    )
