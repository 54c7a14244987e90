"""The pictures of *How we compare*: made-up differences, judged by the functions that judge the runs.

    python book/comparing_pictures.py

writes them next to the page.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from gence.lab.results import statistics
from gence.lab.results.plots import LOSS_STYLE, use_style

FOLDER = Path(__file__).resolve().parent / "_static" / "comparing"
LOWER, HIGHER, GREY = "#0072B2", "#D55E00", "0.45"
# Ten seeds: how hard each seed is (error in points), and what the candidate changes.
HARD = np.array([11.0, 14.5, 9.5, 12.2, 15.8, 10.4, 13.1, 16.6, 12.0, 14.0])
CHANGE = np.array([-1.3, -0.7, 0.4, -1.0, -0.5, -1.6, 0.2, -0.9, -2.1, -0.3])
P_VALUES = np.array([0.004, 0.012, 0.03, 0.4])
MARGIN = 0.5
# Four rows of a table: the centre and the spread of their differences over twenty seeds.
ROWS = (("A", -1.4, 1.0), ("B", 0.05, 0.35), ("C", -0.5, 1.9), ("D", 0.28, 0.2))


def differences(centre: float, spread: float) -> np.ndarray:
    """Twenty differences without chance: evenly spaced."""
    return centre + spread * np.linspace(-1, 1, 20)


def judged() -> pd.DataFrame:
    """The four rows with intervals and verdicts, as one family."""
    rows = [
        statistics.compare(dict.fromkeys(range(20), 0.0), dict(enumerate(differences(*row[1:]))), margin=MARGIN)
        for row in ROWS
    ]
    return statistics.with_verdict(pd.DataFrame(rows))


def draw_pairs() -> plt.Figure:
    """Two losses, their differences, and the ranks of these."""
    figure, (pairs, gaps, ranks) = plt.subplots(1, 3, figsize=(8.6, 3.1), layout="constrained")
    for hard, change in zip(HARD, CHANGE, strict=True):
        color = LOWER if change < 0 else HIGHER
        pairs.plot([0, 1], [hard, hard + change], color=color, linewidth=1.2)
    for at, (name, values) in enumerate((("ce", HARD), ("gence", HARD + CHANGE))):
        style = LOSS_STYLE[name]
        pairs.plot(np.full(10, at), values, style.marker, color=style.color, markersize=5)
    pairs.set(title="1. pairs", ylabel="error (points)", xlim=(-0.4, 1.4))
    pairs.set_xticks([0, 1], ["baseline", "candidate"])
    gaps.axhline(0, color="0.3", linewidth=1)
    colors = [LOWER if change < 0 else HIGHER for change in CHANGE]
    gaps.bar(np.arange(1, 11), CHANGE, color=colors, width=0.65)
    gaps.set(title="2. one difference a seed", xlabel="seed", ylabel="candidate less baseline")
    gaps.set_xticks(range(1, 11))
    order = np.argsort(np.abs(CHANGE))
    signs = np.sign(CHANGE[order])
    rank = np.arange(1, 11)
    ranks.bar(rank, rank * signs, color=[LOWER if sign < 0 else HIGHER for sign in signs], width=0.65)
    ranks.axhline(0, color="0.3", linewidth=1)
    up, down = int(rank[signs > 0].sum()), int(rank[signs < 0].sum())
    p = float(statistics.signed_rank_p(CHANGE))
    ranks.set(title="3. ranks", xlabel="place by size", ylabel="rank with sign")
    ranks.annotate(f"above: {up}\nbelow: {down}\np = {p:.3f}", (1, -9.6), va="bottom")
    ranks.set_xticks(rank)
    return figure


def draw_verdicts() -> plt.Figure:
    """Holm's steps, and four rows with their margin."""
    figure, (steps, verdicts) = plt.subplots(1, 2, figsize=(8.6, 3.1), layout="constrained")
    corrected = statistics.holm(P_VALUES)
    for at, (plain, after) in enumerate(zip(P_VALUES, corrected, strict=True)):
        steps.annotate("", (after, at), (plain, at), arrowprops={"arrowstyle": "->", "color": GREY})
        steps.plot(plain, at, "o", color=GREY, markersize=6)
        steps.plot(after, at, "D", color=LOWER if after < 0.05 else HIGHER, markersize=6)
        steps.annotate(
            f"x {len(P_VALUES) - at}", (np.sqrt(plain * after), at), (0, 6), textcoords="offset points", ha="center"
        )
    steps.axvline(0.05, color="0.3", linestyle="--", linewidth=1)
    steps.set(xscale="log", xlim=(0.002, 1.6), ylim=(3.6, -0.7), xlabel="p: as tested (dot), after Holm (diamond)")
    steps.set_xticks([0.01, 0.05, 1], ["0.01", "0.05", "1"])
    steps.set_yticks(range(4), ["smallest", "second", "third", "largest"])
    steps.set_title("4. many rows")
    verdicts.axvspan(-MARGIN, MARGIN, color="0.88")
    verdicts.axvline(0, color="0.3", linewidth=1)
    table = judged()
    for at, row in table.iterrows():
        verdicts.plot([row["low"], row["high"]], [at, at], color=LOWER, linewidth=2)
        verdicts.plot(row["typical"], at, "o", color=LOWER, markersize=6)
        verdicts.annotate(row["verdict"], (1.0, at), va="center")
    verdicts.set(ylim=(3.6, -0.6), xlim=(-2.2, 1.9), xlabel="difference (points); grey: the margin")
    verdicts.set_yticks(range(4), [f"row {name}" for name, *_ in ROWS])
    verdicts.set_title("5. four rows")
    return figure


if __name__ == "__main__":
    use_style()
    plt.rcParams["svg.hashsalt"] = "gence"
    FOLDER.mkdir(exist_ok=True)
    for name, draw in (("pairs", draw_pairs), ("verdicts", draw_verdicts)):
        draw().savefig(FOLDER / f"{name}.svg", facecolor="white", metadata={"Date": None})
