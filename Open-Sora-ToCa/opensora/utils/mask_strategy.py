"""Frames that are given: which frames of which reference go where in which clip, and how much of them may change.

A strategy is a string of groups `loop,reference,reference_start,target_start,length,edit_ratio` separated by ";", each of which may
end early; positions count latent frames, negative ones from the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opensora.datasets.aspect import CHUNK, LATENT_CHUNK, latent_frames

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Frames of a reference for one clip. edit_ratio: 0 keeps them, 1 replaces them, between edits them from that noise level on."""

    loop: int = 0
    reference: int = 0
    reference_start: int = 0
    target_start: int = 0
    length: int = 1
    edit_ratio: float = 0.0


def parse_mask_strategy(strategy: str) -> list[Group]:
    """Raises ValueError that says which group is malformed, and what one looks like."""
    return [_parse(group) for group in strategy.split(";")] if strategy else []


def _parse(group: str) -> Group:
    fields = group.split(",")
    try:
        if len(fields) > 6:
            raise ValueError("more than six numbers")
        values = [float(field) if i == 5 else int(field) for i, field in enumerate(fields)]
    except ValueError as error:
        form = "loop,reference,reference_start,target_start,length,edit_ratio"
        raise ValueError(f"mask strategy {group!r} is malformed ({error}): expected up to six numbers {form}, groups apart by ;") from error
    parsed = Group(*values)
    if parsed.loop < 0 or parsed.reference < 0 or parsed.length < 1 or not 0 <= parsed.edit_ratio <= 1:
        raise ValueError(f"mask strategy {group!r}: loop and reference start from 0, length from 1, and edit_ratio is in 0..1")
    return parsed


def check_mask_strategy(strategy: str, references: int, frames: int, loops: int = 1) -> list[Group]:
    """The groups of a strategy for clips of `frames` latent frames. Raises ValueError if it names what there is not."""
    groups = parse_mask_strategy(strategy)
    for group in groups:
        if group.reference >= references:
            raise ValueError(f"mask strategy {strategy!r} names reference {group.reference}, there are {references} (counted from 0)")
        if group.loop >= loops:
            raise ValueError(f"mask strategy {strategy!r} names clip {group.loop}, there are {loops} (counted from 0): see --loop")
        if not -frames <= group.target_start < frames:
            raise ValueError(f"mask strategy {strategy!r} names frame {group.target_start}, there are {frames} latent frames")
    return groups


def check_positions(groups: Sequence[Group], lengths: Sequence[int], align: int | None) -> None:
    """Make sure that references of so many frames have all that is taken of them. Raises ValueError if not."""
    for group in groups:
        first_position(group, latent_frames(lengths[group.reference]), align)


def first_position(group: Group, frames: int, align: int | None) -> int:
    """Where a group begins in a reference of so many latent frames. Raises ValueError if that is not in it."""
    start = position(group.reference_start, frames, align)
    if not 0 <= start < frames:
        raise ValueError(f"reference {group.reference} of a mask strategy has {frames} latent frames, none at {group.reference_start}")
    return start


def find_nearest_point(value: int, point: int, most: int) -> int:
    """The multiple of `point` that a position is moved to: the nearest, but none of the last one's start."""
    whole, rest = divmod(value, point)
    if rest > point / 2 and whole < most // point - 1:
        whole += 1
    return whole * point


def position(value: int, frames: int, align: int | None) -> int:
    """A position among `frames` latent frames: counted from the end if negative, and moved to a multiple of `align`."""
    value = value + frames if value < 0 else value
    return find_nearest_point(value, align, frames) if align else value


def apply_mask_strategy(
    z: Tensor, references: Sequence[Sequence[Tensor]], strategies: Sequence[Sequence[Group]], loop: int, align: int | None = None
) -> Tensor | None:
    """Write reference frames into noise z (n, C, T, H, W), in place, for the clip `loop`.

    references: of every prompt, latents (C, T', H, W). Returns the mask (n, T): edit_ratio where there are frames of a reference, 1
    elsewhere; None if there are none anywhere. Raises ValueError if a reference has no frame at a position.
    """
    mask, found = z.new_ones(len(z), z.shape[2]), False
    for item, groups in enumerate(strategies):
        for group in groups:
            if group.loop != loop:
                continue
            reference = references[item][group.reference]
            start = first_position(group, reference.shape[1], align)
            target = position(group.target_start, z.shape[2], align)
            length = min(group.length, z.shape[2] - target, reference.shape[1] - start)
            z[item, :, target : target + length] = reference[:, start : start + length].to(z)
            mask[item, target : target + length] = group.edit_ratio
            found = True
    return mask if found else None


def frames_to_read(groups: Sequence[Group], reference: int, align: int | None) -> int | None:
    """Frames of a reference that the groups may use; None for all of them, which positions from the end need.

    As many as leave the alignment of positions as it is with the whole reference.
    """
    used = [group for group in groups if group.reference == reference]
    if not used:
        return 1
    if any(group.reference_start < 0 for group in used):
        return None
    latents = max(group.reference_start + group.length for group in used) + 3 * (align or 0)
    return math.ceil(latents / LATENT_CHUNK) * CHUNK


def dframe_to_frame(latents: int) -> int:
    """Frames of a number of latent frames, a multiple of 5. Raises ValueError on others."""
    if latents % LATENT_CHUNK:
        raise ValueError(f"condition_frame_length must be a multiple of {LATENT_CHUNK} latent frames, got {latents}")
    return latents // LATENT_CHUNK * CHUNK


def continued(strategy: Sequence[Group], loop: int, reference: int, length: int, edit_ratio: float) -> list[Group]:
    """The groups with one more: the clip `loop` begins with the last `length` latent frames of a reference, the clip before."""
    return [*strategy, Group(loop, reference, -length, 0, length, edit_ratio)]


def check_loops(loops: int, num_frames: int, condition_frame_length: int) -> None:
    """Raises ValueError if clips of a long video cannot be joined."""
    frames, c = latent_frames(num_frames), condition_frame_length
    if loops > 1 and not 0 < c < frames:
        raise ValueError(f"condition_frame_length must be in 1..{frames - 1} for clips of {frames} latent frames, got {c}")
    if loops > 1:
        dframe_to_frame(c)
