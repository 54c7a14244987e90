"""Figures that the chapters share: colour-blind-safe, and readable without colour by marker and line style.

Captions and alternative texts stand in the metadata of the notebook cell that draws the figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from gence.lab.results.names import loss_name
from gence.lab.results.statistics import signed_rank_interval
from gence.losses import REGISTRY
from gence.metrics import ReliabilityCurve

__all__ = [
    "LOSS_STYLE",
    "Style",
    "learning_curves",
    "paired_differences",
    "probability_table",
    "reliability",
    "use_style",
]


@dataclass(frozen=True)
class Style:
    """How one loss looks in every figure.

    Example:
        >>> LOSS_STYLE["gence"].label
        'GenCE'
    """

    label: str
    color: str
    marker: str
    line: str


# Okabe and Ito's colours, which stay apart for the common kinds of colour blindness. Colours are fewer than losses:
# losses that meet in a figure differ in colour, and no two share marker and line, so that colour is never needed.
_LOOKS = {
    "ce": ("#0072B2", "o", "-"),
    "gence": ("#D55E00", "s", "--"),
    "brier": ("#009E73", "^", ":"),
    "focal": ("#CC79A7", "D", "-."),
    "logit_adjustment": ("#000000", "v", "-."),
    "present_class": ("#56B4E9", "P", "-."),
    "gence_tracked": ("#E69F00", "X", "-"),
    "gence:strength=0.5": ("#E69F00", "d", ":"),
    "gence:balanced": ("#CC79A7", "*", "-"),
    "gence_logit_adjustment": ("#009E73", "h", "--"),
    "class_balanced": ("#0072B2", "p", ":"),
    "ce:balanced": ("#0072B2", "*", "--"),
    "inverse_focal": ("#E69F00", "^", "--"),
    "flsc": ("#CC79A7", "<", "-"),
    "flsd_53": ("#000000", "D", ":"),
    "flsd_52": ("#000000", "d", "--"),
    "dual_focal": ("#CC79A7", "v", "--"),
    "adafocal": ("#E69F00", "8", "-"),
    "gence_focal": ("#CC79A7", "P", ":"),
    "gence_adafocal": ("#56B4E9", "X", "--"),
    "mmce": ("#56B4E9", "<", "--"),
    "mmce_w": ("#56B4E9", ">", "-."),
    "lq": ("#009E73", "<", "-."),
    "sce": ("#56B4E9", "p", "-"),
    "min_ent": ("#000000", "^", "-"),
    "mix_ent": ("#000000", "X", ":"),
}
_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#000000", "#D55E00")
_MARKERS, _LINES = "osD^vPX<>d*hp8", ("-", "--", "-.", ":")


def _free_look() -> tuple[str, str, str]:
    """The first look that can be told from all others with colour and without it."""
    with_color = {(color, marker) for color, marker, _ in _LOOKS.values()}
    without = {(marker, line) for _, marker, line in _LOOKS.values()}
    marker, line = next(cues for cues in itertools.product(_MARKERS, _LINES) if cues not in without)
    return next(color for color in _COLORS if (color, marker) not in with_color), marker, line


for _key in REGISTRY:  # a loss without a look of its own is given one, so that the others keep theirs
    if _key not in _LOOKS:
        _LOOKS[_key] = _free_look()
LOSS_STYLE = {key: Style(loss_name(key), *look) for key, look in _LOOKS.items()}


def use_style() -> None:
    """Set the book's figure style for this process.

    Example:
        >>> use_style()
        >>> bool(plt.rcParams["axes.grid"])
        True
    """
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.2),
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def probability_table(
    ax: Axes, table: ArrayLike, *, outline: str, title: str, chosen: Sequence[int] | None = None
) -> None:
    """Draw a samples x classes table of probabilities and outline its rows or its columns.

    Args:
        ax: where to draw.
        table: (N, K) numbers in [0, 1].
        outline: ``"rows"`` or ``"columns"``: the sets that sum to one.
        title: of the panel.
        chosen: (N,) labels; the cell of each sample's label is set in bold and underlined by a bar.

    Raises:
        ValueError: an unknown `outline`.

    Example:
        >>> probability_table(plt.figure().add_subplot(), [[0.5, 0.5]], outline="rows", title="p(y|x)")
    """
    if outline not in ("rows", "columns"):
        raise ValueError(f"outline must be 'rows' or 'columns', but got {outline!r}")
    values = np.asarray(table)
    n, k = values.shape
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for i, j in np.ndindex(n, k):
        mark = chosen is not None and chosen[i] == j
        ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontweight="bold" if mark else "normal")
        if mark:
            ax.plot([j - 0.22, j + 0.22], [i + 0.3, i + 0.3], color="black", linewidth=1.5)
    boxes = (
        [(-0.47, i - 0.45, k - 0.06, 0.9) for i in range(n)]
        if outline == "rows"
        else [(j - 0.45, -0.47, 0.9, n - 0.06) for j in range(k)]
    )
    for x, y, width, height in boxes:
        ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=LOSS_STYLE["gence"].color, linewidth=2))
    ax.set(title=title, xticks=range(k), yticks=range(n))
    ax.set_xticklabels([f"class {j}" for j in range(k)])
    ax.set_yticklabels([f"sample {i}" for i in range(n)])
    ax.grid(False)
    ax.tick_params(length=0)


def paired_differences(ax: Axes, differences: Mapping[str, ArrayLike], *, unit: str, better: str = "lower") -> None:
    """Draw, for each setting, the paired differences of all seeds, the typical one and its 95 % interval.

    Args:
        ax: where to draw.
        differences: setting to (n,) differences, candidate minus baseline.
        unit: of the differences, for the axis.
        better: word for the side below zero.

    Estimate and interval are those of :func:`gence.lab.results.statistics.signed_rank_interval`; fewer than 6 seeds
    have none.

    Example:
        >>> paired_differences(plt.figure().add_subplot(), {"batch 16": [-1.0, 0.5, -0.2]}, unit="points")
    """
    for x, values in enumerate(map(np.asarray, differences.values())):
        n = len(values)
        spread = np.linspace(-0.16, 0.16, n) if n > 1 else np.zeros(n)
        ax.plot(x + spread, values, "o", color="0.55", markersize=3.5, label="one seed" if x == 0 else None)
        typical, low, high = signed_rank_interval(values)
        ax.errorbar(
            x + 0.3,
            typical,
            [[typical - low], [high - typical]] if np.isfinite(low) else None,
            fmt=LOSS_STYLE["gence"].marker,
            color=LOSS_STYLE["gence"].color,
            capsize=4,
            label="typical, 95 % interval" if x == 0 else None,
        )
    ax.axhline(0, color="black", linewidth=1)
    ax.set_xticks(range(len(differences)), list(differences))
    ax.set_ylabel(f"difference ({unit})")
    ax.annotate(f"↓ {better}", (0.02, 0.03), xycoords="axes fraction", fontsize=9)


def reliability(ax: Axes, curves: Mapping[str, ReliabilityCurve]) -> None:
    """Draw reliability curves of several losses against the diagonal; small bins get small markers.

    Args:
        ax: where to draw.
        curves: loss name (a key of :data:`LOSS_STYLE`) to its curve.

    Example:
        >>> from gence.metrics import reliability_curve
        >>> reliability(plt.figure().add_subplot(), {"ce": reliability_curve([[0.9, 0.1], [0.4, 0.6]], [0, 1])})
    """
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (1, 2)))
    for name, curve in curves.items():
        style, filled = LOSS_STYLE[name], curve.count > 0
        x, y = curve.confidence[filled], curve.accuracy[filled]
        ax.plot(x, y, style.line, color=style.color, linewidth=1.5)
        sizes = 12 + 60 * np.sqrt(curve.count[filled] / curve.count.max())
        ax.scatter(x, y, s=sizes, marker=style.marker, color=style.color, label=style.label, zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
    ax.legend(loc="upper left")


def learning_curves(ax: Axes, epochs: ArrayLike, curves: ArrayLike, *, loss: str, label: str) -> None:
    """Draw one thin line for each seed and their median in the style of the loss.

    Args:
        ax: where to draw.
        epochs: (T,) epochs.
        curves: (S, T) values.
        loss: a key of :data:`LOSS_STYLE`.
        label: of the vertical axis.

    Example:
        >>> learning_curves(plt.figure().add_subplot(), [1, 2], [[1.0, 0.5]], loss="ce", label="nats")
    """
    style = LOSS_STYLE[loss]
    ax.plot(epochs, np.transpose(curves), color=style.color, alpha=0.25, linewidth=0.8)
    ax.plot(
        epochs, np.median(curves, axis=0), style.line, color=style.color, linewidth=2, label=f"{style.label}, median"
    )
    ax.set(xlabel="epoch", ylabel=label)
    ax.legend()
