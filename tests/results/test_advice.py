"""The advice of the last chapter holds what the ledger holds: a change of a claim's status has to change the page."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import notebook_tools as nb  # noqa: E402

PAGE = nb.NOTEBOOKS / "batch" / "when_to_use.ipynb"
LEDGER = {claim["id"]: claim for claim in nb.claims()}

FULL, ALIKE = "full batch, any data", "balanced, all or most classes in every batch"
MANY_SHORT, MANY_LONG = "balanced, many classes, short training", "balanced, many classes, large batches, long training"
SMALL, LARGE = "long tail, small batches, trained to a fit", "long tail, large batches, trained to a fit"
FAR, EARLY = "long tail, far from a fit", "long tail, stopped early on validation NLL"

# What each claim, with the status it had when the advice was written, says of the errors of GenCE against those of
# cross-entropy, and in which settings: "fewer", "more", "none" (no difference), or "" (something else).
SAYS: dict[str, tuple[str, dict[str, str]]] = {
    "full-batch-is-ce": ("holds", {FULL: "none"}),
    "full-batch-mlp": ("holds", {FULL: "none"}),
    "prediction-1": ("holds", {FULL: "none", LARGE: "none"}),
    "prediction-14": ("holds", {FULL: "none"}),
    "prediction-10": ("open", {ALIKE: "none"}),
    "prediction-19": ("holds", {MANY_SHORT: "more"}),
    "prediction-20": ("fails", {MANY_SHORT: "more"}),  # "no difference at 512" was refuted by more errors
    "lost-classes": ("holds", {MANY_SHORT: "", MANY_LONG: ""}),
    "prediction-22": ("holds", {MANY_LONG: "none"}),
    "prediction-2": ("open", {SMALL: "fewer"}),
    "prediction-3": ("open", {SMALL: "fewer", LARGE: "none"}),
    "prediction-4": ("holds", {SMALL: "fewer"}),
    "prediction-11": ("holds", {SMALL: "fewer"}),
    "prediction-15": ("holds", {SMALL: "fewer"}),
    "tuned-rates": ("holds", {SMALL: "fewer"}),
    "prediction-7": ("holds", {SMALL: "", LARGE: ""}),
    "prediction-8": ("open", {SMALL: ""}),
    "prediction-18": ("holds", {SMALL: "", FAR: ""}),
    "prediction-21": ("holds", {LARGE: "none"}),
    "prediction-16": ("fails", {FAR: "fewer"}),  # "no difference at 512" was refuted by fewer errors
    "prediction-17": ("fails", {FAR: ""}),
    "tails-slow": ("fails", {FAR: "more"}),
    "batch-size-effect": ("holds", {FAR: "more"}),
    "prediction-13": ("open", {EARLY: "fewer"}),
}
# Claims on the same pages that compare no errors of GenCE and cross-entropy in one of these settings.
ELSEWHERE = {
    *("full-batch-which-biases", "full-batch-no-traps", "full-batch-soft-targets", "half-a-step", "full-batch-linear"),
    *("full-batch-needs-a-bias", "full-batch-stationary", "full-batch-mlp-tail", "full-batch-paths-differ"),
    *("full-batch-not-mini", "full-batch-bias", "batch-sandwich", "linear-tax", "late-limit", "share-left-out"),
    *("implicit-adjustment", "shift-in-networks", "tracked-is-gence", "lost-class-price"),
    *("batch-bias-loss", "batch-proper", "leak", "batch-unique", "accumulation-chain-rule", "accumulation-two-pass"),
    "ragged-batch",  # a last batch of two, which no setting of the advice has
    *("prediction-5", "prediction-6", "prediction-9", "prediction-12"),
    # The tail of the same runs, said by the predictions in more settings; other quantities, strengths and losses.
    *("tails-batch", "tails-rival", "strength-force", "strength-dose", "strength-images"),
}
PAGES = ("full_batch", "mini_batches", "predictions", "long_tails", "batch_size", "strength")


def advice() -> list[dict[str, str]]:
    """The rows of the page's table, read from its cells without running them."""
    rows: list[dict[str, str]] = []
    for cell in nb.code_cells(nb.read(PAGE)):
        for node in ast.parse(nb.without_magics(cell.source)).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == "ADVICE":
                rows += ast.literal_eval(node.value)
    return rows


ROWS = advice()


def errors_of(row: dict[str, str]) -> str:
    """What the claims of a row say together; open claims say nothing."""
    signs = {SAYS[claim][1][row["setting"]] for claim in row["claims"].split() if SAYS[claim][0] != "open"} - {""}
    return signs.pop() if len(signs) == 1 else "differ" if signs else "open"


def test_the_page_has_a_row_for_each_setting():
    assert [row["setting"] for row in ROWS] == [FULL, ALIKE, MANY_SHORT, MANY_LONG, SMALL, LARGE, FAR, EARLY]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["setting"])
def test_a_row_rests_on_claims_of_its_setting_with_the_status_they_had_when_it_was_written(row):
    claims = row["claims"].split()
    assert claims
    for claim in claims:
        assert row["setting"] in SAYS[claim][1], f"{claim} says nothing about: {row['setting']}"
        assert LEDGER[claim]["status"] == SAYS[claim][0], f"{claim} changed: read this row of the advice again"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["setting"])
def test_no_claim_about_the_setting_of_a_row_is_left_out_or_contradicts_it(row):
    assert {claim for claim, (_, settings) in SAYS.items() if row["setting"] in settings} == set(row["claims"].split())
    said = errors_of(row)
    if said == "open":  # a row may repeat an open expectation, and then says what is not shown
        assert "open" in row["does"] or "leaned" in row["does"]
    else:
        assert row["errors"] == said
    words = {"fewer": r"\bfewer\b", "more": r"\bmore\b", "differ": r"fewer.*more|more.*fewer", "none": "equal|fades|no"}
    assert re.search(words[row["errors"]], row["does"]) or said == "open"


def test_every_claim_of_these_pages_was_considered():
    """A new claim has to be put into the advice, or among those that do not concern it."""
    mine = {
        name
        for name, claim in LEDGER.items()
        if claim["source"].startswith("ours") and any(f"{page}.ipynb" in claim.get("check", "") for page in PAGES)
    }
    assert mine - set(SAYS) - ELSEWHERE == set()
    assert not set(SAYS) & ELSEWHERE
    assert set(SAYS) | ELSEWHERE <= set(LEDGER)


def test_the_answer_stands_before_any_code_and_says_on_what_it_rests():
    first = nb.read(PAGE).cells[0]
    assert first.cell_type == "markdown"
    answer = [line for line in first.source.splitlines() if re.match(r"> \d\. ", line)]
    assert len(answer) == 3 and first.source.index(answer[0]) < first.source.index("**You will be able to**")
    for word in ("perceptron", "8x8 digits", "small CNN", "cut-down", "logit adjustment", "cross-entropy"):
        assert word in first.source
    text = "\n".join(cell.source for cell in nb.read(PAGE).cells)
    assert "can only do what cross-entropy does" not in text
