"""One look for each loss in every figure of the book: colour, marker and line."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gence import losses
from gence.lab.results import names, plots

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
    figure, ax = plots.plt.subplots()
    style = plots.LOSS_STYLE[key]
    (drawn,) = ax.plot([0, 1], style.line, marker=style.marker, color=style.color, label=style.label)
    assert (drawn.get_marker(), drawn.get_linestyle(), drawn.get_color()) == (style.marker, style.line, style.color)
    assert drawn.get_label() == names.loss_name(key)
    plots.plt.close(figure)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_gives_a_loss_a_look_of_its_own(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert "plots.Style(" not in source, "take the style from plots.LOSS_STYLE"
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
    assert looks_by_hand('ax.plot(x, "s", color="#D55E00", label="GenCE")') == []
