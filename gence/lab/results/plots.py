"""Figures that the chapters share: colour-blind-safe, and readable without colour by marker and line style.

Captions and alternative texts stand in the metadata of the notebook cell that draws the figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from scipy import stats

from gence.lab.results.names import loss_name
from gence.lab.results.statistics import signed_rank_interval
from gence.losses import REGISTRY
from gence.metrics import ReliabilityCurve

__all__ = [
    "LOSS_STYLE",
    "Style",
    "learning_curves",
    "means",
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
    """Set the book's figure style for this process: seaborn's white grid, with our sizes.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> use_style()
        >>> bool(plt.rcParams["axes.grid"])
        True
    """
    sns.set_theme(
        style="whitegrid",
        palette="colorblind",
        rc={
            "figure.figsize": (7.0, 3.2),
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "grid.alpha": 0.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        },
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
        >>> import matplotlib.pyplot as plt
        >>> probability_table(plt.figure().add_subplot(), [[0.5, 0.5]], outline="rows", title="p(y|x)")
    """
    if outline not in ("rows", "columns"):
        raise ValueError(f"outline must be 'rows' or 'columns', but got {outline!r}")
    values = np.asarray(table)
    n, k = values.shape
    sns.heatmap(
        pd.DataFrame(values, [f"sample {i}" for i in range(n)], [f"class {j}" for j in range(k)]),
        ax=ax,
        annot=True,
        fmt=".2f",
        annot_kws={"color": "black"},
        cmap="Blues",
        vmin=0,
        vmax=1.4,
        cbar=False,
    )
    for i, j in enumerate([] if chosen is None else chosen):
        ax.texts[i * k + j].set_fontweight("bold")
        ax.plot([j + 0.28, j + 0.72], [i + 0.8, i + 0.8], color="black", linewidth=1.5)
    boxes = (
        [(0.03, i + 0.05, k - 0.06, 0.9) for i in range(n)]
        if outline == "rows"
        else [(j + 0.05, 0.03, 0.9, n - 0.06) for j in range(k)]
    )
    for x, y, width, height in boxes:
        ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=LOSS_STYLE["gence"].color, linewidth=2))
    ax.set_title(title)
    ax.tick_params(rotation=0)


def paired_differences(
    ax: Axes,
    differences: Mapping[Any, ArrayLike],
    *,
    unit: str,
    better: str = "lower",
    seeds: bool = True,
    margin: float | None = None,
    look: Style | None = None,
    numbers: bool = False,
) -> None:
    """Draw, for each setting, the paired differences of all seeds, the typical one and its 95 % interval.

    Args:
        ax: where to draw.
        differences: setting to (n,) differences, candidate minus baseline.
        unit: of the differences, for the axis; empty leaves the axis without a label.
        better: word for the side below zero; empty leaves it out.
        seeds: draw each seed as a grey point, too.
        margin: of equivalence, drawn as a band.
        look: of the interval; None is that of GenCE.
        numbers: the settings are numbers, and stand in proportion.

    Estimate and interval are those of :func:`gence.lab.results.statistics.signed_rank_interval`; fewer than 6 seeds
    have none.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> paired_differences(plt.figure().add_subplot(), {"batch 16": [-1.0, 0.5, -0.2]}, unit="points")
    """
    look = LOSS_STYLE["gence"] if look is None else look
    points = [(setting, value) for setting, values in differences.items() for value in np.asarray(values)]
    long = pd.DataFrame(points, columns=["setting", "difference"])
    where: dict[str, Any] = {"data": long, "x": "setting", "y": "difference", "ax": ax, "native_scale": numbers}
    if seeds:
        sns.stripplot(**where, color="0.55", size=3.5, jitter=0.16, label="one seed")
    sns.pointplot(
        **where,
        estimator=lambda values: signed_rank_interval(values)[0],
        errorbar=_interval_of(signed_rank_interval),
        color=look.color,
        marker=look.marker,
        linestyle="none",
        capsize=0.12 if not numbers else 0,
        err_kws={"linewidth": 1.5},
        label="typical, 95 % interval",
    )
    _one_entry_each(ax)
    ax.axhline(0, color="black", linewidth=1)
    if margin is not None:
        ax.axhspan(-margin, margin, color="0.9", zorder=0)
    ax.set(xlabel="", ylabel=f"difference ({unit})" if unit else "")
    if better:
        ax.annotate(f"↓ {better}", (0.02, 0.03), xycoords="axes fraction", fontsize=9)


def means(
    ax: Axes,
    records: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str = "loss",
    looks: Mapping[Any, Style] | None = None,
    lines: bool = True,
    paired: bool = False,
    **options: Any,
) -> None:
    """Draw the mean over the seeds with its 95 % t interval, for each value of `x` and each loss.

    Args:
        ax: where to draw.
        records: one row for each seed.
        x: column of the horizontal axis.
        y: column that is averaged.
        hue: column of the losses, or of what else has a look.
        looks: how the values of `hue` look, in their order; None takes :data:`LOSS_STYLE` for those that occur.
        lines: join the means of one loss.
        paired: `y` holds paired differences: draw the typical one and its interval (:func:`paired_differences`).
        **options: of :func:`seaborn.pointplot`: ``order``, ``native_scale``, ``log_scale``.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> table = pd.DataFrame({"loss": ["ce", "ce", "gence", "gence"], "batch": 8, "error": [0.1, 0.2, 0.2, 0.3]})
        >>> means(plt.figure().add_subplot(), table, x="batch", y="error")
    """
    if looks is None:
        looks = {name: LOSS_STYLE[name] for name in records[hue].unique()}
    estimate = signed_rank_interval if paired else _t_interval
    sns.pointplot(
        records.assign(**{hue: records[hue].map({name: look.label for name, look in looks.items()})}),
        x=x,
        y=y,
        hue=hue,
        hue_order=[look.label for look in looks.values()],
        palette=[look.color for look in looks.values()],
        markers=[look.marker for look in looks.values()],
        linestyles=[look.line for look in looks.values()] if lines else "none",
        estimator=lambda values: estimate(np.asarray(values))[0],
        errorbar=_interval_of(estimate),
        dodge=0.1 * (len(looks) - 1),
        err_kws={"linewidth": 1.5},
        linewidth=1.5,
        ax=ax,
        **({"capsize": 0.08} if not options.get("native_scale") else {}),
        **options,
    )
    ax.legend(title=None)


def _interval_of(estimate: Callable[[Any], tuple[float, float, float]]) -> Callable[[Any], tuple[float, float]]:
    """The interval of an estimate as seaborn asks for it; of no length where there is none."""

    def interval(values: Any) -> tuple[float, float]:
        typical, low, high = estimate(np.asarray(values))
        return (low, high) if np.isfinite(low) else (typical, typical)

    return interval


def _t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t interval."""
    mean, n = values.mean(), len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return mean, mean - half, mean + half


def _one_entry_each(ax: Axes) -> None:
    """Keep the first legend entry of each label: seaborn makes one for each setting."""
    handles, labels = ax.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    for handle, label in zip(handles, labels, strict=True):
        if first[label] is not handle:
            handle.set_label("_nolegend_")
    if (legend := ax.get_legend()) is not None:
        legend.remove()


def reliability(ax: Axes, curves: Mapping[str, ReliabilityCurve]) -> None:
    """Draw reliability curves of several losses against the diagonal; small bins get small markers.

    Args:
        ax: where to draw.
        curves: loss name (a key of :data:`LOSS_STYLE`) to its curve.

    Example:
        >>> import matplotlib.pyplot as plt
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
        >>> import matplotlib.pyplot as plt
        >>> learning_curves(plt.figure().add_subplot(), [1, 2], [[1.0, 0.5]], loss="ce", label="nats")
    """
    style = LOSS_STYLE[loss]
    ax.plot(epochs, np.transpose(curves), color=style.color, alpha=0.25, linewidth=0.8)
    ax.plot(
        epochs, np.median(curves, axis=0), style.line, color=style.color, linewidth=2, label=f"{style.label}, median"
    )
    ax.set(xlabel="epoch", ylabel=label)
    ax.legend()
