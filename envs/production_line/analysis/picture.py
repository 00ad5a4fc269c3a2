"""The findings as one picture: the line with its arrows, what holds it back, what pays. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .diagnosis import LineFindings
from .foreseen import Foreseen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyBboxPatch

_PLAIN, _WORST, _ARROW = "#9db8c9", "#c8553d", "#44606f"
_MOST = 8


def draw(found: LineFindings, path: Path) -> None:
    """Write the picture; its format is that of the file's ending."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(8.0, 1.7 * len(found.plan.names)), 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    heights = (1.1, 1.0, 1.2) if found.foreseen is None else (1.1, 1.0, 1.2, 0.9)
    panels = figure.subplots(len(heights), 1, height_ratios=heights)
    _line(found, panels[0])
    _why(found, panels[1])
    _pays(found, panels[2])
    if found.foreseen is not None:
        _lasts(found.foreseen, panels[3])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _line(found: LineFindings, axes: Axes) -> None:
    names, n = found.plan.names, len(found.plan.names)
    efficiency = found.estimates.efficiency()[0]
    for i, name in enumerate(names):
        colour = _WORST if i == found.bottleneck else _PLAIN
        axes.add_patch(_box(i, colour))
        axes.text(i, 0.0, f"{name}\n{efficiency[i]:.3f}", ha="center", va="center", fontsize=10)
        said = f"BL {found.blocked[i]:.3f}\nST {found.starved[i]:.3f}"
        if i in found.arrows.bottlenecks:
            said += f"\nseverity {found.arrows.severity[i]:.3f}"
        axes.text(i, -0.45, said, ha="center", va="top", fontsize=8)
    ends = zip(found.plan.producer, found.plan.consumer, found.arrows.forward, found.plan.capacities, strict=True)
    for k, (of, to, forward, capacity) in enumerate(ends):
        tail, head = (of + 0.32, to - 0.32) if forward else (to - 0.32, of + 0.32)
        apart = to - of > 1  # around the machines in between
        bent = {"connectionstyle": "arc3,rad=-0.4"} if apart else {}
        style = {"arrowstyle": "-|>", "color": _ARROW, "lw": 2.0, **bent}
        axes.annotate("", xy=(head, 0.0), xytext=(tail, 0.0), arrowprops=style)
        axes.text((of + to) / 2, 0.75 if apart else 0.18, f"b{k + 1}: {capacity}", ha="center", fontsize=8)
    axes.set(xlim=(-0.6, n - 0.4), ylim=(-1.15, 1.0), title="Arrow rule: the machine that no arrow leaves")
    axes.axis("off")


def _box(i: int, colour: str) -> FancyBboxPatch:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((i - 0.26, -0.28), 0.52, 0.56, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="none")


def _why(found: LineFindings, axes: Axes) -> None:
    rate, at = found.gains.by_rate, np.arange(len(found.plan.names))
    colours = [_WORST if i == found.bottleneck else _PLAIN for i in at]
    axes.bar(at, rate.mean, yerr=rate.half_width, color=colours, capsize=4)
    for i in range(len(found.plan.names)):
        axes.text(i, 0.0, f"{found.chances[i]:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(at, list(found.plan.names))
    title = f"Sensitivity, 95 % ({found.gains.method}); below, the chance to be the bottleneck"
    axes.set(ylabel="d line / d machine", title=title)


def _lasts(foreseen: Foreseen, axes: Axes) -> None:
    """Intervals of remaining life; those without an end run out of the picture."""
    e, at = foreseen.estimate, np.arange(len(foreseen.estimate.names))
    finite = [v[np.isfinite(v)] for v in (e.low, e.median, e.high)]
    end = 1.1 * max((float(v.max()) for v in finite if len(v)), default=e.horizon)
    low, median, high = (np.minimum(v, end) for v in (e.low, e.median, e.high))
    colours = [_WORST if alarm else _PLAIN for alarm in foreseen.alarms]
    axes.barh(at, high - low, left=low, color=colours)
    axes.plot(median, at, "|", color=_ARROW, markersize=14)
    axes.axvline(e.horizon, color=_ARROW, linestyle=":")
    axes.set_yticks(at, [f"{name} ({chance:.0%})" for name, chance in zip(e.names, e.chance, strict=True)])
    title = f"Remaining life, {e.level:.0%}; in brackets, the chance to fail before the dotted line"
    axes.set(xlim=(0.0, end), xlabel=e.unit, title=title)


def _pays(found: LineFindings, axes: Axes) -> None:
    change = found.gains.by_change
    order = np.argsort(-change.mean)[:_MOST][::-1]
    hour = 3600.0 / found.config.slot_s
    axes.barh(np.arange(len(order)), change.mean[order] * hour, xerr=change.half_width[order] * hour,
              color=_PLAIN, capsize=3)  # fmt: skip
    axes.set_yticks(np.arange(len(order)), [found.gains.titles[k] for k in order])
    axes.set(xlabel="parts an hour", title="What a change brings, 95 %")
