"""One look for each loss in every figure of the book: colour, marker and line."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gence import losses
from gence.lab.results import names, plots, statistics

NOTEBOOKS = sorted((Path(__file__).resolve().parents[3] / "notebooks").rglob("*.ipynb"))
OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
NAMES = {word: style for key, style in plots.LOSS_STYLE.items() for word in (key, style.label)}
HEX = re.compile(r"#[0-9A-Fa-f]{6}")


def looks_by_hand(source: str) -> list[str]:
    """Losses that a dictionary, a tuple or a call gives another colour than their own."""
    wrong = []
    for node in ast.walk(ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))):
        if isinstance(node, ast.Dict):
            pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
        elif isinstance(node, ast.Tuple):
            pairs = [(part, node) for part in node.elts]
        elif isinstance(node, ast.Call):
            pairs = [(part.value, node) for part in node.keywords if part.arg == "label"]
            pairs += [(part, node) for part in node.args[:1]]
        else:
            continue
        for word, colored in pairs:
            if isinstance(word, ast.Constant) and word.value in NAMES:
                colors = {n.value for n in ast.walk(colored) if isinstance(n, ast.Constant) and HEX.match(str(n.value))}
                wrong += [word.value] if colors - {NAMES[word.value].color} else []
    return wrong


def test_every_loss_has_a_style_that_is_told_apart_with_and_without_colour():
    assert set(losses.REGISTRY) <= set(plots.LOSS_STYLE)
    assert {style.color for style in plots.LOSS_STYLE.values()} <= OKABE_ITO
    for cues in (("color", "marker"), ("marker", "line"), ("label",)):
        looks = [tuple(getattr(style, cue) for cue in cues) for style in plots.LOSS_STYLE.values()]
        assert len(set(looks)) == len(looks), f"two losses share {cues}"


@pytest.mark.parametrize("key", plots.LOSS_STYLE)
def test_a_style_draws_with_the_display_name(key):
    figure, ax = plt.subplots()
    style = plots.LOSS_STYLE[key]
    (drawn,) = ax.plot([0, 1], style.line, marker=style.marker, color=style.color, label=style.label)
    assert (drawn.get_marker(), drawn.get_linestyle(), drawn.get_color()) == (style.marker, style.line, style.color)
    assert drawn.get_label() == names.loss_name(key)
    plt.close(figure)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_gives_a_loss_a_look_of_its_own(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert looks_by_hand(source) == [], "take the style from plots.LOSS_STYLE"


def test_losses_that_nobody_named_or_painted_can_be_told_from_all_others():
    """Twenty more in the registry, in a fresh process: each has a name, and a look by colour and without it."""
    code = """
from gence.losses import REGISTRY
REGISTRY |= {f"toy_{i}": REGISTRY["ce"] for i in range(20)}
from gence.lab.results import names, plots
assert names.loss_name("toy_3") == plots.LOSS_STYLE["toy_3"].label == "toy 3"
assert plots.LOSS_STYLE["gence"] == plots.Style("GenCE", "#D55E00", "s", "--")
styles = plots.LOSS_STYLE.values()
for cues in (("color", "marker"), ("marker", "line"), ("label",)):
    assert len({tuple(getattr(style, cue) for cue in cues) for style in styles}) == len(styles) > 40
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_look_of_its_own_is_seen():
    own = 'LOOK = {"gence": ("#009E73", "^")}\nax.plot(x, "^", color="#009E73", label="GenCE")'
    assert looks_by_hand(own) == ["gence", "GenCE"]
    assert looks_by_hand('plots.Style("GenCE", "#009E73", "^", "-")') == ["GenCE"]
    assert looks_by_hand('ax.plot(x, "s", color="#D55E00", label="GenCE")') == []


def points(ax: plt.Axes) -> list[tuple[float, float]]:
    """Where the markers of the estimates stand, from left to right."""
    drawn = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    return sorted((x, y) for line in drawn for x, y in zip(*line.get_data(), strict=True))


def ends(ax: plt.Axes) -> list[tuple[float, float]]:
    """The vertical ends of the intervals, from left to right."""
    bars = [line.get_ydata() for line in ax.lines if line.get_marker() in ("", "None", None) and len(line.get_ydata())]
    return [(min(y), max(y)) for y in bars if max(y) > min(y)]


def test_paired_differences_show_the_estimate_and_the_interval_of_the_test():
    rng = np.random.default_rng(0)
    given = {"batch 8": rng.normal(1, 1, 20), "batch 16": rng.normal(-1, 1, 20)}
    ax = plt.figure().add_subplot()
    plots.paired_differences(ax, given, unit="points", margin=0.5)
    expected = [statistics.signed_rank_interval(values) for values in given.values()]
    assert np.allclose([y for _, y in points(ax)], [typical for typical, *_ in expected])
    assert np.allclose(ends(ax), [(low, high) for _, low, high in expected])
    assert sum(len(collection.get_offsets()) for collection in ax.collections) == 40  # every seed
    assert ax.get_legend_handles_labels()[1] == ["one seed", "typical, 95 % interval"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(given)
    plt.close()


def test_few_seeds_have_no_interval():
    ax = plt.figure().add_subplot()
    plots.paired_differences(ax, {"a": [1.0, 2.0]}, unit="points")
    assert ends(ax) == [] and points(ax)[0][1] == 1.5
    plt.close()


@pytest.mark.parametrize("paired", [False, True])
def test_means_show_mean_or_typical_value_with_its_interval(paired):
    rng = np.random.default_rng(1)
    rows = [(loss, b, v) for loss in ("gence", "ce") for b in (8, 16) for v in rng.normal(b, 1, 10)]
    table = pd.DataFrame(rows, columns=["loss", "batch", "error"])
    ax = plt.figure().add_subplot()
    plots.means(ax, table, x="batch", y="error", paired=paired)
    values = [part.error.to_numpy() for _, part in table.groupby(["batch", "loss"], sort=False)]
    if paired:
        expected = [statistics.signed_rank_interval(v) for v in values]
    else:
        expected = [(v.mean(), *stats.t.interval(0.95, len(v) - 1, v.mean(), stats.sem(v))) for v in values]
    assert np.allclose(sorted(y for _, y in points(ax)), sorted(middle for middle, *_ in expected))
    assert np.allclose(sorted(ends(ax)), sorted((low, high) for _, low, high in expected))
    handles, labels = ax.get_legend_handles_labels()
    assert labels == ["GenCE", "CE"]
    assert [handle.get_color() for handle in handles] == [plots.LOSS_STYLE[k].color for k in ("gence", "ce")]
    plt.close()
