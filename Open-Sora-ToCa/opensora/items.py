"""What a run is to make: its prompts with their given frames, and their files; all that can be wrong with them is found here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opensora.datasets.aspect import Size
from opensora.datasets.utils import count_reference, split_references
from opensora.utils.inference_utils import append_score, check_numbers, extract_json, get_save_path_name, prompt_of_loop, split_prompt
from opensora.utils.mask_strategy import Group, check_mask_strategy, check_positions
from toca.console import announce
from toca.loading.caption_cleaning import clean_caption, emptied
from toca.runs.prompts import read_prompts

ENDLESS = 1_000_000
MAX_CHARACTERS = 4000  # of a prompt; T5 reads about 1500, and cleaning takes the square of a word's length


@dataclass(frozen=True)
class Item:
    """One video.

    index: of its prompt.
    k: of the sample.
    texts, numbers: the prompt's parts, and the clips they begin with.
    """

    index: int
    k: int
    prompt: str
    texts: tuple[str, ...]
    numbers: tuple[int, ...] | None
    references: tuple[str, ...]
    groups: tuple[Group, ...]
    path: Path

    def text(self, loop: int) -> str:
        """What the clip `loop` shows."""
        return prompt_of_loop(self.texts, self.numbers, loop)

    @property
    def marked(self) -> Path:
        """The file of its copy with a watermark."""
        return self.path.with_stem(f"{self.path.stem}_watermark")


def prompts_of(args: argparse.Namespace) -> list[tuple[int, str]]:
    """(index, prompt) of the run: --prompt, else lines of --prompt-path, else --prompt-generator again and again.

    Named by prompts, a repeated one counts as its first occurrence: one file, whichever part of the list a run takes.
    """
    start, end = args.start_index, args.end_index
    if args.prompt:
        return _first_ones(args.prompt, start) if args.prompt_as_path else list(enumerate(args.prompt, start))
    if args.prompt_path:
        lines = read_prompts(args.prompt_path, "--prompt-path")
        if start >= len(lines):
            raise ValueError(f"{args.prompt_path} has {len(lines)} prompts, none from --start-index {start} on")
        return (_first_ones(lines) if args.prompt_as_path else list(enumerate(lines)))[start:end]
    if args.prompt_generator is not None:
        return [(index, args.prompt_generator) for index in range(start, end or ENDLESS)]
    raise ValueError("there is no prompt: give --prompt or --prompt-path")


def _first_ones(prompts: Sequence[str], start: int = 0) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    return [(first.setdefault(prompt, index), prompt) for index, prompt in enumerate(prompts, start)]


def items_of(args: argparse.Namespace, size: Size) -> list[Item]:
    """The videos of a run, by prompt and then sample. Raises ValueError or OSError if a prompt or what is given to it is malformed."""
    given = prompts_of(args)
    parsed = [(index, *extract_json(prompt)) for index, prompt in given]
    references = _per_prompt(args.reference_path, "reference-path", [reference for *_, reference, _ in parsed])
    strategies = _per_prompt(args.mask_strategy, "mask-strategy", [strategy for *_, strategy in parsed])
    ending, items = ".png" if size.num_frames * args.loop == 1 else ".mp4", {}
    cleaned: dict[str, tuple[str, ...]] = {}
    for (index, prompt, *_), reference, strategy in zip(parsed, references, strategies, strict=True):
        paths = tuple(split_references(reference))
        groups = check_mask_strategy(strategy, len(paths), size.latent[0], args.loop)
        if unused := [path for i, path in enumerate(paths) if all(group.reference != i for group in groups)]:
            raise ValueError(f"nothing of the reference {unused[0]} is used: say with --mask-strategy where it goes, '0' for first frame")
        texts, numbers = split_prompt(prompt)
        check_numbers(prompt, numbers, args.loop)
        if prompt not in cleaned:
            cleaned[prompt] = tuple(encoded_text(text, index, args) for text in texts)
        for k in range(args.num_sample):
            name = get_save_path_name(args.save_dir, args.sample_name, index, prompt, args.prompt_as_path, args.num_sample, k)
            path = name.with_name(name.name + ending)
            item = Item(index, k, prompt, cleaned[prompt], None if numbers is None else tuple(numbers), paths, tuple(groups), path)
            if items.setdefault(path, item) != item:
                raise ValueError(f"two prompts would become {path}: {items[path].prompt!r} and {prompt!r}")
    lengths = {path: count_reference(path) for path in dict.fromkeys(path for item in items.values() for path in item.references)}
    for item in items.values():
        check_positions(item.groups, [lengths[path] for path in item.references], args.align)
        if args.watermark and item.marked in items:
            raise ValueError(f"{item.marked} would be a video and the copy of another with a watermark")
    return list(items.values())


def encoded_text(text: str, index: int, args: argparse.Namespace) -> str:
    """What T5 is to read of a prompt's part. Raises ValueError on endless ones; says where cleaning leaves nothing."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"prompt {index} has {len(text)} characters, at most {MAX_CHARACTERS} are read: {text[:40]!r}...")
    if not args.clean_prompts:
        return append_score(text, args.aes, args.flow, args.camera_motion)
    if emptied([text]):
        announce(f"prompt {index} is empty once it is cleaned: {text[:80]!r}; --clean-prompts false has it read as it is")
    return clean_caption(append_score(text, args.aes, args.flow, args.camera_motion))


def _per_prompt(given: Sequence[str] | None, flag: str, own: list[str]) -> list[str]:
    """The values of a flag, one per prompt, else what the prompts say themselves. Raises ValueError if their numbers differ."""
    if given is None:
        return own
    if any(own):
        raise ValueError(f"--{flag} and a prompt that says its own: give one of both")
    if len(given) != len(own):
        raise ValueError(f"--{flag} has {len(given)} values for {len(own)} prompts: give one for each, '' where there is none")
    return list(given)
