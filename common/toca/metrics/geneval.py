"""GenEval (Ghosh et al., arXiv 2310.11513): the summary of what its own evaluator wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class Task:
    """images: judged. correct: of them. prompts, solved: those, and those with at least one correct picture."""

    images: int
    correct: int
    prompts: int
    solved: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


@dataclass(frozen=True)
class Summary:
    """tasks: by name. overall: the mean of the tasks' accuracies, which tables print."""

    tasks: Mapping[str, Task]
    overall: float


def summary(results: Iterable[Mapping[str, Any]]) -> Summary:
    """results: the evaluator's lines, of which `tag`, `prompt` and `correct` are read.

    Raises ValueError if one lacks them, or there is none.
    """
    found: dict[str, dict[str, list[bool]]] = {}
    for number, line in enumerate(results, 1):
        if not isinstance(line, Mapping) or not isinstance(line.get("correct"), bool) or not {"tag", "prompt"} <= line.keys():
            raise ValueError(f"result {number} is none of GenEval's: it needs tag, prompt and correct")
        found.setdefault(str(line["tag"]), {}).setdefault(str(line["prompt"]), []).append(line["correct"])
    if not found:
        raise ValueError("there are no results of GenEval's evaluator")
    order = sorted(found, key=lambda tag: TASKS.index(tag) if tag in TASKS else len(TASKS))
    tasks = {}
    for tag in order:
        judged = list(found[tag].values())
        flat = [correct for some in judged for correct in some]
        tasks[tag] = Task(len(flat), sum(flat), len(judged), sum(map(any, judged)))
    return Summary(tasks, sum(task.accuracy for task in tasks.values()) / len(tasks))


def read_results(path: Path) -> list[dict[str, Any]]:
    """The evaluator's `results.jsonl`. Raises ValueError naming the line that is no JSON."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    results = []
    for number, line in enumerate(lines, 1):
        try:
            results.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
    return results


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, of 95% by default. Raises ValueError without trials."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"a share needs trials and no more successes than those, got {successes} of {trials}")
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - reach), min(1.0, middle + reach)
