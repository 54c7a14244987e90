"""The pictures and tables that stand in for the three explorers in print and without JavaScript.

    python book/explorers_static.py

writes them next to the explorers' scripts. It computes everything again in numpy, so the tests compare the scripts
with it.
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax

from gence.lab.results.plots import LOSS_STYLE, use_style

FOLDER = Path(__file__).resolve().parent / "_static" / "explorers"
SHOWN = {
    "CE": ("ce", 0.0),
    "Brier": ("brier", 0.0),
    "focal, γ = 2": ("focal", 2.0),
    "$L_q$, a = 0.5": ("lq", 0.5),
    "label smoothing, ε = 0.3": ("smooth", 0.3),
}
BELIEFS = (np.array([0.5, 0.35, 0.15]), np.array([0.8, 0.15, 0.05]))
MARGIN, SEED, STRENGTH = 4.0, 1, 0.5
BATCHES = ((10, 16), (10, 128), (100, 16), (100, 128), (200, 128), (200, 512))  # (K, B)
LEAKS = (0.1, 0.3, 0.5, 0.9)
TAILS = ((10, 50, 16), (100, 1, 64), (100, 100, 16), (100, 100, 64), (100, 100, 256), (1000, 200, 256))  # (K, rho, B)


def point_losses(name: str, t: float, p: np.ndarray) -> np.ndarray:
    """Return the loss of the prediction p (last axis) for each true class."""
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    if name == "ce" or (name == "smooth" and t == 0):
        return -log_p
    if name == "brier":
        return (p**2).sum(-1, keepdims=True) - 2 * p + 1
    if name == "focal":
        return -((1 - p) ** t) * log_p
    if name == "lq":
        return (1 - p**t) / t
    return -(1 - t) * log_p - t * log_p.mean(-1, keepdims=True)


def risk(name: str, t: float, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the expected loss of p when the classes come with probabilities q."""
    return np.where(q > 0, q * np.where(q > 0, point_losses(name, t, p), 0), 0).sum(-1)


def minimiser(name: str, t: float, q: np.ndarray) -> np.ndarray:
    """Return the prediction with the smallest risk."""
    if name in ("ce", "brier") or (t == 0 and name != "lq"):
        return q
    if name == "smooth":
        return (1 - t) * q + t / len(q)
    if name == "lq":
        scores = np.isclose(q, q.max(), rtol=0, atol=1e-12) if t == 1 else (q / q.max()) ** (1 / (1 - t))
        return scores / scores.sum()
    if (q > 0).sum() == 1:
        return q

    def log_slope(x: float) -> float:
        p, rest = expit(x), expit(-x)
        return np.log(t * rest ** (t - 1) * np.logaddexp(0, -x) + rest**t / p)

    def logit(target: float) -> float:
        return 40.0 if log_slope(40.0) > target else brentq(lambda x: log_slope(x) - target, -40, 40, xtol=1e-14)

    def answer(common: float) -> np.ndarray:
        return np.array([0 if k == 0 else expit(logit(common - np.log(k))) for k in q])

    # At one end every class gets almost 1, at the other almost 0.
    edge = [log_slope(x) + np.log(q[q > 0]) for x in (-8.0, 8.0)]
    return answer(brentq(lambda common: answer(common).sum() - 1, edge[1].min(), edge[0].max(), xtol=1e-14))


def excess(name: str, t: float, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return how much more than the smallest risk p pays."""
    return risk(name, t, p, q) - risk(name, t, minimiser(name, t, q), q)


def absent_distribution(n_classes: int, batch: int) -> np.ndarray:
    """Return the probabilities that 0..K equally likely classes are absent from a batch."""
    absent = np.arange(n_classes + 1)
    chance = np.zeros(n_classes + 1)
    chance[-1] = 1.0
    for _ in range(batch):
        chance = chance * (n_classes - absent) / n_classes + np.append((chance * absent)[1:] / n_classes, 0)
    return chance


def draw_batch(n_classes: int, batch: int, margin: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (B,) and logits (B, K), the same as the page draws (mulberry32, Box-Muller)."""
    low = np.uint64(0xFFFFFFFF)
    a = (np.uint64(seed) + np.uint64(0x6D2B79F5) * np.arange(1, batch * (1 + 2 * n_classes) + 1, dtype=np.uint64)) & low
    t = ((a ^ (a >> np.uint64(15))) * (a | np.uint64(1))) & low
    t ^= (t + (((t ^ (t >> np.uint64(7))) * (t | np.uint64(61))) & low)) & low
    u = (t ^ (t >> np.uint64(14))) / 2**32
    labels = np.floor(u[:batch] * n_classes).astype(int)
    u1, u2 = u[batch:].reshape(batch, n_classes, 2).transpose(2, 0, 1)
    logits = np.sqrt(-2 * np.log(1 - u1)) * np.cos(2 * np.pi * u2)
    return labels, logits + margin * np.eye(n_classes)[labels]


def absent_push(p: np.ndarray, labels: np.ndarray, strength: float) -> float:
    """Return the gradient on the output bias of an absent class, averaged over them (nan if there is none)."""
    n = np.bincount(labels, minlength=p.shape[1])
    if (n > 0).all():
        return float("nan")
    w = (n * p / p.sum(0)).sum(1)
    return float((p[:, n == 0] * (1 - strength * w)[:, None]).mean(0).mean())


def class_shares(n_classes: int, rho: float) -> np.ndarray:
    """Return frequencies (K,) that fall exponentially; the first is rho times as large as the last."""
    return softmax(-np.log(rho) * np.linspace(0, 1, n_classes))


def share_left_out(pi: np.ndarray, batch: np.ndarray | float) -> np.ndarray:
    """Return the share of pairs of a sample and a wrong class whose class is not in the batch."""
    return (np.exp(np.multiply.outer(batch, np.log1p(-pi)))).sum(-1) / (len(pi) - 1)


def implicit_adjustment(pi: np.ndarray, batch: int) -> np.ndarray:
    """Return -log s (K,) less that of the first class, where s is the chance to be among the other samples."""
    with_it = -np.expm1((batch - 1) * np.log1p(-pi))
    return np.log(with_it[0] / with_it)


# --- tables ----------------------------------------------------------------------------------------------------


def write_tables() -> None:
    """Write the four tables of the page."""

    def triple(p: np.ndarray, digits: int = 3) -> str:
        return ",\u00a0".join(f"{x:.{digits}f}" for x in p)

    def percent(x: float) -> str:
        return "under 0.01 %" if x < 1e-4 else "over 99.99 %" if x > 1 - 1e-4 else f"{100 * x:.2f} %"

    rows = [["belief $q$", "loss", "best answer $p^*$", "smallest risk", "excess of uniform $p$", "excess of $p=q$"]]
    for q in BELIEFS:
        for label, (name, t) in SHOWN.items():
            best = minimiser(name, t, q)
            numbers = risk(name, t, best, q), excess(name, t, np.full(3, 1 / 3), q), excess(name, t, q, q)
            rows.append(
                [triple(q, 2), label, triple(best), *(f"{abs(x) if abs(x) < 1e-9 else x:.3f}" for x in numbers)]
            )
    _write("losses.csv", rows)

    heads = "expected absent", "lacks at least one", "push, CE", "push, $s=0.5$", "push, GenCE"
    rows = [["classes $K$", "batch $B$", *heads]]
    for k, b in BATCHES:
        labels, logits = draw_batch(k, b, MARGIN, SEED)
        p = softmax(logits, axis=1)
        pushes = [absent_push(p, labels, s) for s in (0, STRENGTH, 1)]
        rows.append(
            [
                str(k),
                str(b),
                f"{k * (1 - 1 / k) ** b:.3f}",
                "always" if b < k else percent(1 - absent_distribution(k, b)[0]),
                *("no absent class" if np.isnan(x) else f"{1000 * x:.2f}" for x in pushes),
            ]
        )
    _write("batches.csv", rows)

    rows = [["leak ε", "CE", "strength $s=0.5$", "GenCE"]]
    rows += [[f"{e}", *(f"{-(1 - s) * np.log1p(-e) + 0.0:.3f}" for s in (0, STRENGTH, 1))] for e in LEAKS]
    _write("leaks.csv", rows)

    heads = "absent on average", "pushes left out", "rarest, in a batch", "its shift", "full"
    rows = [["classes $K$", "ratio $\\rho$", "batch $B$", *heads]]
    for k, rho, b in TAILS:
        pi = class_shares(k, rho)
        left_out = float(share_left_out(pi, b))
        shift, full = implicit_adjustment(pi, b)[-1], np.log(pi[0] / pi[-1])
        numbers = f"{(k - 1) * left_out:.2f}", percent(left_out), f"{b * pi[-1]:.2f}", f"{shift:.2f}", f"{full:.2f}"
        rows.append([str(k), str(rho), str(b), *numbers])
    _write("tails.csv", rows)


def _write(name: str, rows: list[list[str]]) -> None:
    with (FOLDER / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


# --- pictures --------------------------------------------------------------------------------------------------

CORNERS = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
LEVELS = [0.01, 0.03, 0.1, 0.3, 1]


def draw_losses() -> None:
    """Draw, for each loss, the lines of equal excess risk around its best answer to one belief."""
    grid = np.array([(i, j, 60 - i - j) for i in range(61) for j in range(61 - i)]) / 60
    inner = (grid + 1e-4) / (1 + 3e-4)
    q = BELIEFS[0]
    figure, axes = plt.subplots(3, 2, figsize=(4.8, 6.6))
    for ax, (label, (name, t)) in zip(axes.flat, SHOWN.items(), strict=False):
        ax.tricontour(*(grid @ CORNERS).T, excess(name, t, inner, q), LEVELS, colors="0.45", linewidths=0.9)
        ax.plot(*CORNERS[[0, 1, 2, 0]].T, color="black", linewidth=1.2)
        _name_levels(ax, name, t, q)
        best = minimiser(name, t, q) @ CORNERS
        ax.plot(*np.stack([q @ CORNERS, best]).T, "--", color=LOSS_STYLE["brier"].color)
        ax.plot(*(q @ CORNERS), "D", color=LOSS_STYLE["ce"].color, markersize=7, markeredgecolor="white")
        ax.plot(*best, "x", color="#00795a", markersize=9, markeredgewidth=2.5)
        for corner, c, dy in zip(CORNERS, "ABC", (-0.1, -0.1, 0.03), strict=True):
            ax.text(corner[0], corner[1] + dy, c, ha="center", fontweight="bold")
        ax.set(title=label, aspect="equal", xlim=(-0.08, 1.08), ylim=(-0.12, 0.98))
        ax.axis("off")
    legend = axes.flat[-1]
    legend.axis("off")
    legend.plot([], [], "D", color=LOSS_STYLE["ce"].color, label="belief q")
    legend.plot([], [], "x", color="#00795a", markersize=9, markeredgewidth=2.5, label="best answer p*")
    legend.plot([], [], color="0.45", label="equal excess risk")
    legend.legend(loc="center")
    _save(figure, "losses.svg")


def _name_levels(ax: plt.Axes, name: str, t: float, q: np.ndarray) -> None:
    """Write each level where the way from the best answer to the least likely corner crosses its line."""
    best, corner = minimiser(name, t, q), np.array([0.01, 0.01, 0.98])
    on_the_way = best + np.linspace(0, 1, 1001)[:, None] * (corner - best)
    price = excess(name, t, on_the_way, q)
    for level in LEVELS[2:]:
        if price[-1] > level:
            x, y = on_the_way[np.argmax(price > level)] @ CORNERS
            ax.text(x, y, f"{level:g}", fontsize=8, ha="center", va="center").set_bbox(
                {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            )


def draw_batches() -> None:
    """Draw the absent classes, the price of a leak, and the push on an absent class."""
    figure, (absent, leak, push) = plt.subplots(3, 1, figsize=(4.8, 7.8))
    sizes = 2 ** np.linspace(0, 9, 91)
    for k, line in zip((10, 100, 200), ("-", "--", ":"), strict=True):
        absent.plot(sizes, 100 * (1 - 1 / k) ** sizes, line, color="black", label=f"K = {k}")
    absent.set_xscale("log", base=2)
    absent.set(title="absent classes", xlabel="batch size B", ylabel="expected share (%)")
    absent.legend()
    colors = (LOSS_STYLE["ce"].color, "#00795a", LOSS_STYLE["gence"].color)
    names, marks, lines = ("CE", f"s = {STRENGTH}", "GenCE"), ("o", "^", "s"), ("-", "-.", "--")
    e = np.linspace(0, 0.95, 96)
    k, b = 100, 128
    labels, logits = draw_batch(k, b, MARGIN, SEED)
    p = softmax(logits, axis=1)
    for i, s in enumerate((0, STRENGTH, 1)):
        change = -(1 - s) * np.log1p(-e)
        leak.plot(e, change, lines[i], marker=marks[i], markevery=19, color=colors[i], label=names[i])
        value = 1000 * absent_push(p, labels, s)
        push.barh(i, value, color=colors[i], height=0.55)
        push.annotate(f"{value:.2f}", (max(value, 0), i), (4, 0), textcoords="offset points", va="center")
    leak.set(title="price of a leak", xlabel="leak ε", ylabel="change of the loss (nats)")
    leak.legend()
    push.set(title=f"push, K = {k}, B = {b}", xlabel="bias gradient (thousandths)", yticks=range(3), yticklabels=names)
    push.set_xlim(right=push.get_xlim()[1] * 1.2)
    push.invert_yaxis()
    push.grid(axis="y", visible=False)
    _save(figure, "batches.svg")


def draw_tails() -> None:
    """Draw the share of pushes left out, and the implicit adjustment of each class next to the full one."""
    figure, (left_out, shift) = plt.subplots(2, 1, figsize=(4.8, 5.6))
    k, ratio = 100, 100
    sizes = 2 ** np.linspace(0, 12, 121)
    for rho, line in zip((1, 10, 100), ("-", "--", ":"), strict=True):
        left_out.plot(sizes, 100 * share_left_out(class_shares(k, rho), sizes), line, color="black", label=f"ρ = {rho}")
    left_out.set_xscale("log", base=2)
    left_out.set(title=f"pushes left out, K = {k}", xlabel="batch size B", ylabel="share late in training (%)")
    left_out.legend()
    pi = class_shares(k, ratio)
    rank = np.linspace(0, 1, k)
    shift.plot(rank, np.log(pi[0] / pi), "--", color="black", marker="^", markevery=(12, 25), label="full")
    colors = (LOSS_STYLE["gence"].color, LOSS_STYLE["ce"].color, "#00795a")
    for b, mark, color in zip((16, 64, 256), "sox", colors, strict=True):
        shift.plot(rank, implicit_adjustment(pi, b), color=color, marker=mark, markevery=25, label=f"B = {b}")
    shift.set(title=f"adjustment, K = {k}, ρ = {ratio}", xlabel="classes, most frequent (0) to rarest (1)")
    shift.set(ylabel="shift of the logits (nats)")
    shift.legend()
    _save(figure, "tails.svg")


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / name, facecolor="white", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    use_style()
    plt.rcParams["svg.hashsalt"] = "gence"
    write_tables()
    draw_losses()
    draw_batches()
    draw_tails()
