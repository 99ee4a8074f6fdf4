"""`toca eval`: what sample sets are worth, by the metrics that tables print."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toca.cli.flags import Parser, whole

Answer = tuple[dict[str, Any], str]  # machine-readable data, and the text that says the same


@dataclass(frozen=True)
class Metric:
    """run: of its parsed flags. places, options: what `add_argument` is told of files and of flags."""

    run: Callable[[argparse.Namespace], Answer]
    help: str
    places: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]


SAMPLES = "an .npz with arr_0, uint8 (N, H, W, 3), or a folder of pictures"
PROMPTS = "a file with a prompt a line, in the order of the pictures' names"
WITH_PROMPTS = {"samples": "a folder of pictures", "prompts": PROMPTS}
DEVICE = {"--device": dict(help="default: cuda where there is one, else cpu")}


def fid(args: argparse.Namespace) -> Answer:
    from toca.metrics.adm import evaluate
    from toca.metrics.inception import Inception
    from toca.runs.programs import device_from

    samples, reference = _there(args.samples), _there(args.reference)
    network = Inception(Path(args.inception), device_from(args.device))
    data = asdict(evaluate(samples, reference, network, Path(args.features) if args.features else None, args.batch))
    names = dict(fid="FID", sfid="sFID", inception_score="Inception Score", precision="precision", recall="recall")
    found = [f"{name} {data[key]:.4f}" for key, name in names.items() if data[key] is not None]
    lacking = [name for key, name in names.items() if data[key] is None]
    return data, ", ".join(found) + (f" ({', '.join(lacking)}: the reference brings no more)" if lacking else "")


def clip(args: argparse.Namespace) -> Answer:
    import torch

    from toca.metrics.clip import ClipScorer
    from toca.metrics.sources import pictures
    from toca.runs.programs import device_from
    from toca.runs.prompts import read_prompts

    prompts = read_prompts(args.prompts, "PROMPTS")
    count, chunks = pictures(_there(args.samples), args.batch)
    _as_many(count, prompts, args)
    scorer, done, scores = ClipScorer(args.clip, device_from(args.device), args.rescaled_twice), 0, []
    for some in chunks:
        scores.append(scorer(some, prompts[done : done + len(some)]).cpu())
        done += len(some)
    return _mean("CLIP score" + (", pictures rescaled twice" if args.rescaled_twice else ""), torch.cat(scores).tolist())


def reward(kind: str) -> Callable[[argparse.Namespace], Answer]:
    def run(args: argparse.Namespace) -> Answer:
        from toca.metrics.rewards import rate
        from toca.metrics.rewards import reward as load
        from toca.metrics.sources import files
        from toca.runs.programs import device_from
        from toca.runs.prompts import read_prompts

        prompts, paths = read_prompts(args.prompts, "PROMPTS"), files(_there(args.samples))
        _as_many(len(paths), prompts, args)
        return _mean(kind, rate(load(kind, device_from(args.device)), paths, prompts))

    return run


def perceptual(kind: str) -> Callable[[argparse.Namespace], Answer]:
    def run(args: argparse.Namespace) -> Answer:
        from toca.metrics.compare import pairs
        from toca.metrics.perceptual import perceptual as load
        from toca.runs.programs import device_from

        metric, values = load(kind, device_from(args.device)), []
        for some, others in pairs(_there(args.samples), _there(args.reference)):
            values += metric(some, others).tolist()
        return _mean(kind.upper(), values)

    return run


def geneval(args: argparse.Namespace) -> Answer:
    from toca.cli.report import columns
    from toca.metrics.geneval import read_results, summary, wilson

    found = summary(read_results(_there(args.results)))
    data = dict(overall=found.overall, tasks={name: asdict(task) | dict(accuracy=task.accuracy) for name, task in found.tasks.items()})
    rows = []
    for name, task in found.tasks.items():
        low, high = wilson(task.correct, task.images)
        rows.append([name, str(task.images), f"{task.accuracy:.2%}", f"{low:.1%} to {high:.1%}", f"{task.solved} of {task.prompts}"])
    table = columns(["task", "pictures", "correct", "95% interval", "prompts solved"], rows)
    return data, f"{table}\n\noverall, the mean of the tasks: {found.overall:.4f}"


def vbench(args: argparse.Namespace) -> Answer:
    from toca.cli.report import columns
    from toca.metrics.vbench import DIMENSIONS, collect, summary

    raw = collect(_there(args.results))
    scores = summary(raw)
    groups = {name: "quality" if at.quality else "semantic" for name, at in DIMENSIONS.items()}
    rows = [[name, f"{raw[name]:.4f}", f"{scores.scaled[name]:.2%}", group] for name, group in groups.items()]
    totals = f"quality {scores.quality:.2%}, semantic {scores.semantic:.2%}, total {scores.total:.2%}"
    return asdict(scores) | dict(raw=raw), f"{columns(['dimension', 'raw', 'scaled', 'group'], rows)}\n\n{totals}"


METRICS: Mapping[str, Metric] = {
    "fid": Metric(
        fid,
        "FID, sFID, Inception Score, precision and recall, by the conventions of ADM's evaluator",
        {"samples": SAMPLES, "reference": f"{SAMPLES}; its mu, sigma, mu_s, sigma_s count where it brings them, pictures or not"},
        {
            "--inception": dict(required=True, metavar="FILE", help="torch-fidelity's weights-inception-2015-12-05-6726825d.pth"),
            "--features": dict(metavar="FOLDER", help="keep features here: the next run, and one that was killed, goes on with them"),
            "--batch": dict(type=whole(1, 4096), default=64, help="pictures at a time (default 64)"),
            **DEVICE,
        },
    ),
    "clip": Metric(
        clip,
        "CLIP score: 100 times the cosine of a picture and its prompt",
        {"samples": SAMPLES, "prompts": PROMPTS},
        {
            "--clip": dict(required=True, metavar="FOLDER", help="folder or hub name of a CLIP, ViT-L/14 by convention"),
            "--rescaled-twice": dict(action="store_true", help="pictures as several tables had them: almost black, scores near 16"),
            "--batch": dict(type=whole(1, 4096), default=64, help="pictures at a time (default 64)"),
            **DEVICE,
        },
    ),
    "image-reward": Metric(reward("image-reward"), "ImageReward-v1.0, through its package", WITH_PROMPTS, DEVICE),
    "hpsv2": Metric(reward("hpsv2"), "HPS v2.1, through its package", WITH_PROMPTS, DEVICE),
    "lpips": Metric(perceptual("lpips"), "LPIPS to the uncached pictures", {"samples": SAMPLES, "reference": SAMPLES}, DEVICE),
    "dists": Metric(perceptual("dists"), "DISTS to the uncached pictures", {"samples": SAMPLES, "reference": SAMPLES}, DEVICE),
    "geneval": Metric(geneval, "the summary of GenEval's own evaluator", {"results": "its results.jsonl"}, {}),
    "vbench": Metric(vbench, "VBench's table from its own scorer", {"results": "its folder of DIMENSION_eval_results.json"}, {}),
}  # fmt: skip


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """A sub-command per metric."""
    metrics = parser.add_subparsers(dest="metric", metavar="METRIC", required=True, parser_class=Parser)
    for name, metric in METRICS.items():
        sub = metrics.add_parser(name, help=metric.help, description=f"{metric.help[0].upper()}{metric.help[1:]}.")
        for place, help in metric.places.items():
            sub.add_argument(place, metavar=place.upper(), help=help)
        for flag, settings in metric.options.items():
            sub.add_argument(flag, **settings)
        sub.add_argument("--json", action="store_true", help="print machine-readable data")


def evaluate(args: argparse.Namespace) -> Answer:
    """Raises ValueError or OSError if a file or a package is missing, or does not fit."""
    return METRICS[args.metric].run(args)


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(2, "No such file or directory", path)
    return Path(path)


def _as_many(count: int, prompts: Sequence[str], args: argparse.Namespace) -> None:
    if count != len(prompts):
        raise ValueError(f"{args.samples} holds {count} pictures, {args.prompts} {len(prompts)} prompts")


def _mean(name: str, values: Sequence[float]) -> Answer:
    """With its standard error over pictures."""
    mean = sum(values) / len(values)
    error = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1) / len(values)) ** 0.5
    data = dict(metric=name, mean=mean, standard_error=error, values=list(values))
    return data, f"{name}: {mean:.4f} +- {error:.4f} ({len(values)} pictures)"
