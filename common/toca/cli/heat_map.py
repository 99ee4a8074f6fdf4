"""A plan as a picture: steps x layers, one panel per branch. The one module that needs matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from toca.cli.report import branch_names, heading, plan_summary
from toca.planning.plan import Kind
from toca.planning.run import PlannedRun
from toca.runs.files import atomic_path

COLOURS = {Kind.FULL: "#22406b", Kind.REUSE: "#e6e8ec", Kind.FORECAST: "#a8d0b4", Kind.SKIP: "#ffffff"}  # all tokens alike
SHARES = LinearSegmentedColormap.from_list("partial", ["#fdeec4", "#f6a73c", "#c8374a"])
STYLE = {"font.size": 9, "axes.linewidth": 0.6, "hatch.linewidth": 0.5, "hatch.color": "#a4a8b0"}
HATCH = "/////"  # of skipped steps


@dataclass(frozen=True)
class Panel:
    """A branch: its kinds (layers, steps) and the shares of its tokens that are computed."""

    name: str
    kinds: NDArray[np.int64]
    shares: NDArray[np.float64]


def save_heat_map(run: PlannedRun, path: str) -> None:
    """Raises ValueError if the file's name ends in no format that matplotlib writes."""
    if Path(path).suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise ValueError(f"cannot draw {path}: name a .png, .svg or .pdf file")
    panels = [_panel(run, stack, branch, name) for (stack, branch), name in branch_names(run).items()]
    heights = [max(0.9, 0.055 * len(panel.kinds)) for panel in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(min(14.0, 6.0 + 0.08 * run.num_steps), sum(heights) + 0.35 * len(panels) + 1.6), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        partial = [panel.shares[panel.kinds == Kind.PARTIAL] for panel in panels]
        norm = Normalize(0, max((shares.max() for shares in partial if shares.size), default=1.0))
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, norm)
        axes[-1].set_xlabel("step, in sampling order")
        figure.suptitle(f"{heading(run)}\n{plan_summary(run)}", fontsize=10)
        present = set(np.unique(np.concatenate([panel.kinds.ravel() for panel in panels])).tolist())
        _legend(figure, axes, present, SHARES, norm)
        with atomic_path(path) as part:
            figure.savefig(part, dpi=150)


def _panel(run: PlannedRun, stack: str, branch: str, name: str) -> Panel:
    layers = range(run.spec.stack(stack).depth)
    actions = [[row[stack, layer, branch] for row in run.plan.steps] for layer in layers]
    tokens = np.array([[action.tokens for action in layer] for layer in actions])
    kinds = np.array([[int(action.kind) for action in layer] for layer in actions])
    return Panel(name, kinds, tokens / run.spec.stack(stack).branch(branch).tokens)


def _draw(axis: Axes, panel: Panel, norm: Normalize) -> None:
    depth, steps = panel.kinds.shape
    image = SHARES(norm(panel.shares))  # (L, S, 4)
    for kind, colour in COLOURS.items():
        image[panel.kinds == kind] = to_rgba(colour, 0.0 if kind is Kind.SKIP else 1.0)
    axis.patch.set_hatch(HATCH)  # seen through skipped steps
    axis.imshow(image, aspect="auto", interpolation="nearest", origin="lower", extent=(-0.5, steps - 0.5, -0.5, depth - 0.5))
    axis.set_title(panel.name, fontsize=9, loc="left", pad=3)
    axis.set_ylabel("layer")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _legend(figure: Figure, axes: NDArray[np.object_], present: set[int], shares: Colormap, norm: Normalize) -> None:
    """Patches for the kinds that occur, and a colour bar for the shares of partial ones."""
    handles = [
        Patch(facecolor=colour, edgecolor="#8a8f99", linewidth=0.5, label=kind.name.lower(), hatch=HATCH if kind is Kind.SKIP else None)
        for kind, colour in COLOURS.items()
        if kind in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    if Kind.PARTIAL in present:
        bar = figure.colorbar(ScalarMappable(norm, shares), ax=axes, pad=0.01, fraction=0.03, aspect=25)
        bar.set_label("partial: tokens computed")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        bar.outline.set_linewidth(0.6)
