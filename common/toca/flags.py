"""The caching flags that every fork has, as a method; forks define them themselves, in upstream's spelling. Free of torch."""

from __future__ import annotations

import argparse

from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa

TRUTH = {"true": True, "yes": True, "t": True, "y": True, "1": True, "false": False, "no": False, "f": False, "n": False, "0": False}


def truth(text: str) -> bool:
    """The type of a flag that is followed by true or false."""
    if text.lower() not in TRUTH:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return TRUTH[text.lower()]


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
