"""What is handed out on paper: the slip for the bets follows its sources, and the prices by hand are right."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from by_hand import relations, value
from sklearn.metrics import log_loss
from web import FORMULAS, SLOW, served

from gence.metrics import brier_score

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import bets  # noqa: E402
import clock  # noqa: E402
import sessions  # noqa: E402

HTML = ROOT / "_build" / "committed" / "html"
BY_HAND = (ROOT / "book" / "course" / "by_hand.md").read_text(encoding="utf-8")


# --- the slip ----------------------------------------------------------------------------------------------------


def test_the_slip_is_what_its_sources_say():
    """`python workflow/course.py bets` writes it anew."""
    assert bets.PAGE.read_text(encoding="utf-8") == bets.page()


def test_the_slip_has_a_line_for_each_bet_and_does_not_say_how_it_is_settled():
    for plan in sessions.teaching().values():
        assert plan.bet.removesuffix(" Write a probability.").replace("|", r"\|") in bets.page()
        assert plan.settled.by not in bets.page()
    assert all(f"| {loss} | {bets.BLANK}" in bets.page() for loss in clock.times().losses)


def test_a_bet_costs_what_the_library_says():
    given, log, brier = (row[1:] for row in bets.costs())
    answers = [np.array([[float(p), 1 - float(p)]]) for p in given]
    assert log == [f"{log_loss([0], answer, labels=[0, 1]):.2f}" for answer in answers]
    assert brier == [f"{float(brier_score(answer, np.array([0]))):.2f}" for answer in answers]
    assert len(given) == 9


# --- the prices by hand ------------------------------------------------------------------------------------------

BELIEF = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
ANSWERS = {
    "honest": BELIEF,
    "timid": [Fraction(1, 3)] * 3,
    "bold": [Fraction(2, 3), Fraction(1, 4), Fraction(1, 12)],
    "the first class, for sure": [Fraction(1), Fraction(0), Fraction(0)],
}
# The heading of the table's column, and the loss.
LOSSES = {
    "Pays on average": lambda p, k: -np.log(float(p[k])),
    "Pays by the Brier score": lambda p, k: sum((p[j] - (j == k)) ** 2 for j in range(3)),
    "Pays by the linear loss": lambda p, k: 1 - p[k],
}


def column(heading: str) -> dict[str, str]:
    """A column of the table that has this heading, by the first cell of each row."""
    (table,) = (part for part in BY_HAND.split("\n\n") if f"| {heading} |" in part)
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return {row[0]: row[rows[0].index(heading)] for row in rows[2:]}


def test_each_equation_of_the_hand_out_holds():
    found = list(relations(BY_HAND))
    assert len(found) >= 20
    assert [said for said, holds in found if not holds] == []


@pytest.mark.parametrize("loss", LOSSES)
def test_the_last_number_of_a_cell_is_the_conditional_risk(loss):
    priced = {name: value(cell.strip("$").split("=")[-1]) for name, cell in column(loss).items()}
    assert len(priced) >= 3
    for name, price in priced.items():
        risk = sum(q * LOSSES[loss](ANSWERS[name], k) for k, q in enumerate(BELIEF))
        assert price == pytest.approx(float(risk)), name
    cheapest = min(priced, key=priced.get)
    assert (cheapest == "honest") == ("linear" not in loss)


def test_the_hand_out_gives_the_answers_that_are_computed_here_and_no_decimal():
    for answer in list(ANSWERS.values())[:3]:
        tex = ", ".join(
            rf"\frac{part.numerator}{part.denominator if part.denominator < 10 else f'{{{part.denominator}}}'}"
            for part in answer
        )
        assert f"({tex})" in BY_HAND
    assert re.findall(r"\d[.,]\d", BY_HAND) == []


# --- on paper ----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["bets", "by_hand"])
def test_a_hand_out_is_one_page(browser, name):
    with served(HTML) as site:
        page = browser.new_page()
        page.goto(f"{site}/book/course/{name}.html", wait_until="load")
        page.evaluate(FORMULAS, SLOW)
        paper = page.pdf(format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm"))
        page.close()
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 1
