"""The questions of the course: well formed, true where a number can tell, and scored in the page as in Python."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from scipy.optimize import minimize_scalar
from scipy.stats import binom
from sklearn.metrics import log_loss
from web import SLOW, barriers

from gence.losses import generative_cross_entropy
from gence.metrics import brier_score

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "book" / "_ext")]
import course  # noqa: E402
import quiz  # noqa: E402

QUESTIONS = quiz.questions(ROOT)
BY_ID = {question.id: question for question in QUESTIONS}
STATIC = ROOT / "book" / "_static"
BUILT = ROOT / "_build" / "committed" / "html" / "book" / "course" / "quiz.html"


# --- the questions ---------------------------------------------------------------------------------------------


def test_there_are_enough_questions_in_the_order_of_the_sessions_and_no_id_or_stem_comes_twice():
    assert len(QUESTIONS) >= 50
    assert (
        len({question.id for question in QUESTIONS}) == len({question.stem for question in QUESTIONS}) == len(QUESTIONS)
    )
    assert [question.session for question in QUESTIONS] == sorted(question.session for question in QUESTIONS)


def test_every_objective_has_a_question_and_every_question_an_objective():
    known = {one.id for one in course.objectives()}
    assert {name for question in QUESTIONS for name in question.objectives} == known


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_a_question_rests_on_claims_that_hold_and_each_wrong_option_names_a_misconception(question):
    ledger = {one["id"]: one["status"] for one in yaml.safe_load((ROOT / "book" / "claims.yml").read_text("utf-8"))}
    assert [ledger.get(claim) for claim in question.claims] == ["holds"] * len(question.claims)
    wrong = [option for option in question.options if option.misconception is not None]
    assert len(wrong) == len(question.options) - 1
    assert len({option.misconception for option in wrong}) == len(wrong), "one misconception for two options"
    assert len({option.text for option in question.options}) == len(question.options)
    for text in (question.stem, *(part for option in question.options for part in (option.text, option.why))):
        assert text.count("$") % 2 == 0, text
        assert "\n" not in text, "one paragraph"


def test_neither_the_place_nor_the_length_gives_the_right_option_away():
    places = Counter(question.right for question in QUESTIONS)
    assert min(places[place] for place in range(4)) >= len(QUESTIONS) / 6
    longest = [len(q.options[q.right].text) == max(len(option.text) for option in q.options) for q in QUESTIONS]
    assert 0.1 <= np.mean(longest) <= 0.4


def written(**change) -> dict:
    options = [
        {"text": "yes", "why": "because it is so"},
        *({"text": t, "why": "it is not so", "misconception": t * 3} for t in "ab"),
    ]
    return {
        "id": "Q99",
        "objectives": ["O1.1"],
        "claims": [],
        "stem": "Is this a question?",
        "options": options,
    } | change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options": written()["options"][1:] * 2}, "Q99 has 0 options without a misconception"),
        ({"options": [written()["options"][0]] * 3}, "Q99 has 3 options without a misconception"),
        ({"options": written()["options"][:2]}, "at least 3 items"),
        ({"id": "Q1"}, "should match pattern"),
        ({"hint": "x"}, "Extra inputs"),
    ],
)
def test_a_question_that_is_not_well_formed_is_refused(change, says):
    quiz.Question(**written())
    with pytest.raises(ValidationError, match=says):
        quiz.Question(**written(**change))


def test_an_unknown_question_is_refused_with_the_nearest_ids():
    assert [question.id for question in quiz.asked(["Q02", "Q01"], None, QUESTIONS)] == ["Q02", "Q01"]
    assert {question.session for question in quiz.asked([], 3, QUESTIONS)} == {3}
    with pytest.raises(ValueError, match="no question 'Q011': try Q"):
        quiz.asked(["Q011"], None, QUESTIONS)
    for session in (None, 7):
        with pytest.raises(ValueError, match="name questions by their ids, or the session"):
            quiz.asked([], session, QUESTIONS)


# --- answers that are numbers, computed anew -------------------------------------------------------------------


def focal_answer(belief: float) -> float:
    def risk(p: float) -> float:
        return -belief * (1 - p) ** 2 * math.log(p) - (1 - belief) * p**2 * math.log(1 - p)

    return minimize_scalar(risk, bounds=(1e-6, 1 - 1e-6), method="bounded").x


def gence_of(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(generative_cross_entropy(torch.tensor(logits), torch.tensor(labels)))


def test_numbers_of_right_options_are_true():
    def right(fragment: str) -> str:
        (found,) = [question for question in QUESTIONS if fragment in question.stem]
        return found.options[found.right].text

    q, p = np.array([1 / 2, 1 / 2]), np.array([1 / 4, 3 / 4])
    assert right("the forecast $(\\frac14, \\frac34)$") == f"{(q * np.log(q / p)).sum():.3f}"
    smooth = 0.7 * np.array([0.5, 0.3, 0.2]) + 0.1
    assert right("label smoothing $\\varepsilon = 0.3$") == "$({:.2f}, {:.2f}, {:.2f})$".format(*smooth)
    with np.errstate(all="ignore"):
        naive = np.exp([1000.0, 0.0]) / np.exp([1000.0, 0.0]).sum()
    assert np.isnan(naive[0]) == (right("logits $(1000, 0)$") == "not a number")
    assert right("focal loss with $\\gamma = 2$").startswith("nearer to the centre") and 0.5 < focal_answer(0.9) < 0.85
    assert right("0.02 nats") == f"by at most {math.sqrt(2 * 0.02):.1f}"
    assert right("the label the second class") == "$(0.7, -0.8, 0.1)$"
    assert right("mix the forecasts of 16") == f"$\\log 16$ nats, about {math.log(16):.1f}"
    odds = 0.8 / 0.2 * (0.1 / 0.9)
    assert right("in half of its training cases") == f"{odds / (1 + odds):.2f}"
    assert right("19 times as much") == f"at {1 / 20:.2f}"
    assert right("$n = 19$ calibration scores") == f"the {math.ceil(20 * 0.9 - 1e-9)}th"
    assert right("100 equally frequent classes") == f"{100 * 0.99**128:.1f}"

    labels = np.arange(32) % 4
    constant = gence_of(np.tile(np.random.default_rng(0).normal(size=4), (32, 1)), labels)
    assert right("All 32 samples") == "$\\log 32$" and constant == pytest.approx(math.log(32), abs=1e-12)
    best = gence_of(200 * np.eye(4)[labels], labels)
    assert right("8 of each of 4 classes") == "$\\log 8$" and best == pytest.approx(math.log(8), abs=1e-12)


# --- the page without JavaScript -------------------------------------------------------------------------------


def test_the_built_page_has_every_question_with_its_answer_in_a_fold():
    from bs4 import BeautifulSoup

    page = BeautifulSoup(BUILT.read_text(encoding="utf-8"), "html.parser")
    blocks = {block["data-question"]: block for block in page.select("div.quiz")}
    assert list(blocks) == list(BY_ID)
    assert len(page.select('script[src*="quiz.js"]')) == 1
    for name, block in blocks.items():
        question = BY_ID[name]
        assert len(block.select("fieldset > legend")) == 1
        assert len(block.select("fieldset > ol > li > label")) == len(question.options)
        (answer,) = block.select("details:not([open]):not([hidden])")
        reasons = answer.select("ul > li")
        assert [("quiz-right" in reason["class"]) for reason in reasons].index(True) == int(block["data-right"])
        for option, reason in zip(question.options, reasons, strict=True):
            assert option.misconception is None or option.misconception in reason.text.replace("’", "'")
        assert answer.select_one("p.quiz-again a[href]") is not None
        assert set(question.claims) <= {code.text for code in answer.select("p.quiz-again code")}


def test_pages_with_a_question_load_its_script_and_others_do_not():
    for page in (ROOT / "book").glob("*.md"):
        asks = "```{quiz}" in page.read_text(encoding="utf-8")
        built = (BUILT.parents[1] / f"{page.stem}.html").read_text(encoding="utf-8")
        assert (built.count('class="quiz"') > 0) == ("quiz.js" in built) == asks, page


# --- the script ------------------------------------------------------------------------------------------------


def harness() -> str:
    """A dozen questions as the extension writes them, without a theme and without the reasons."""
    blocks = []
    for question in QUESTIONS[:12]:
        options = "".join(f"<li><label>{escape(option.text)}</label></li>" for option in question.options)
        blocks.append(
            f'<div class="quiz" id="quiz-{question.id}" data-question="{question.id}" data-right="{question.right}">'
            f"<fieldset><legend>{escape(question.stem)}</legend><ol>{options}</ol></fieldset>"
            "<details><summary>Answer</summary><p>Because.</p></details></div>"
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Quiz</title><link rel="icon" href="data:,">'
        f"<style>{(STATIC / 'book.css').read_text(encoding='utf-8')}</style><main><h1>Quiz</h1><h2>Your scores</h2>"
        f'<div class="quiz-results"></div>{"".join(blocks)}</main>'
        f"<script>{(STATIC / 'quiz.js').read_text(encoding='utf-8')}</script></html>"
    )


def opened(browser):
    context = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True)
    # An address of its own, so that the browser keeps things; nothing is asked of the network.
    context.route("**/*", lambda route: route.fulfill(body=harness(), content_type="text/html"))
    context.set_default_timeout(SLOW)
    page = context.new_page()
    page.goto("http://quiz.test/")
    return page


@pytest.fixture
def page(browser):
    page = opened(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def script(browser):
    """A page for those who only call functions."""
    page = opened(browser)
    yield page
    page.context.close()


def js(page, function: str, *arguments):
    return page.evaluate(f"arguments => GenceQuiz.{function}(...arguments)", list(arguments))


FORECASTS = [[100, 0, 0, 0], [0, 100, 0], [25, 25, 25, 25], [34, 33, 33], [70, 20, 10, 0], [1, 99, 0], [5, 5, 5, 85]]


@pytest.mark.parametrize("percents", FORECASTS)
def test_scores_are_those_of_python(script, percents):
    probs = np.array([percents]) / 100
    for right in range(len(percents)):
        found = js(script, "scores", percents, right)
        assert found["brier"] == pytest.approx(brier_score(probs, [right]), abs=1e-12)
        assert found["linear"] == pytest.approx(np.abs(probs[0] - np.eye(len(percents))[right]).sum() / 2, abs=1e-12)
        if percents[right] == 0:
            assert found["log"] == math.inf
        else:
            assert found["log"] == pytest.approx(log_loss([right], probs, labels=range(len(percents))), abs=1e-12)
            assert math.copysign(1, found["log"]) == 1, "no minus zero"


def test_only_the_linear_score_pays_for_putting_all_on_the_favourite(script):
    belief = [70, 20, 10]

    def expected(percents: list[int], score: str) -> float:
        return sum(b / 100 * js(script, "scores", percents, k)[score] for k, b in enumerate(belief))

    boast = js(script, "favourite", belief)
    assert boast == [100, 0, 0]
    assert expected(boast, "linear") < expected(belief, "linear")
    assert expected(boast, "brier") > expected(belief, "brier")
    assert expected(boast, "log") == math.inf


def test_sliders_sum_to_one_whatever_is_moved(script):
    rng = np.random.default_rng(0)
    for k in (3, 4):
        percents, touched = js(script, "share", 100, [1] * k), [False] * k
        assert max(percents) - min(percents) <= 1
        for _ in range(60):
            place, value = int(rng.integers(k)), int(rng.choice([0, 100, *rng.integers(0, 101, 4)]))
            before = percents
            percents = js(script, "rebalance", before, touched, place, value)
            assert sum(percents) == 100 and min(percents) >= 0 and percents[place] == value
            assert all(float(percent).is_integer() for percent in percents)
            kept = sum(before[j] for j in range(k) if touched[j] and j != place)
            if kept + value <= 100 and any(not touched[j] for j in range(k) if j != place):
                assert [percents[j] for j in range(k) if touched[j] and j != place] == [
                    before[j] for j in range(k) if touched[j] and j != place
                ]
            touched[place] = True
            if all(touched):
                touched = [False] * k


def some_answers(n: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(n):
        k = int(rng.integers(3, 5))
        percents = rng.multinomial(100, rng.dirichlet(np.full(k, 0.6))).tolist()
        answers.append({"percents": percents, "right": int(rng.integers(k)), "when": "2026-01-01T00:00:00.000Z"})
    return [
        *answers,
        {"percents": [100, 0, 0], "right": 0, "when": ""},
        {"percents": [20, 40, 40], "right": 1, "when": ""},
    ]


def own_reliability(answers: list[dict]) -> list[dict]:
    """The diagram by loops over events, and its band by adding up all outcomes of the questions."""
    bins = []
    for at in range(5):
        inside = [[p for p in a["percents"] if min(p // 20, 4) == at] for a in answers]
        stated = [p / 100 for percents in inside for p in percents]
        if not stated:
            continue
        came = sum(min(a["percents"][a["right"]] // 20, 4) == at for a in answers)
        law = np.array([1.0])
        for percents in inside:
            law = np.convolve(law, [1 - sum(percents) / 100, sum(percents) / 100])
        below = np.cumsum(law)
        low, high = (int(np.searchsorted(below, level - 1e-12)) for level in (0.025, 0.975))
        n = len(stated)
        bins.append({"n": n, "stated": np.mean(stated), "came": came / n, "low": low / n, "high": high / n})
    return bins


@pytest.mark.parametrize("seed", range(4))
def test_the_reliability_diagram_and_the_parts_of_the_score_are_those_of_a_loop(script, seed):
    answers = some_answers(30, seed)
    found, expected = js(script, "reliability", answers), own_reliability(answers)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-9)

    parts = js(script, "parts", answers)
    events = [(p / 100, float(k == a["right"])) for a in answers for k, p in enumerate(a["percents"])]
    base = np.mean([y for _, y in events])
    scale = 1 / len(answers)
    groups = [[(p, y) for p, y in events if min(round(100 * p) // 20, 4) == at] for at in range(5)]
    means = [(len(g), np.mean([p for p, _ in g]), np.mean([y for _, y in g])) for g in groups if g]
    assert parts["reliability"] == pytest.approx(scale * sum(n * (p - y) ** 2 for n, p, y in means), abs=1e-9)
    assert parts["resolution"] == pytest.approx(scale * sum(n * (y - base) ** 2 for n, _, y in means), abs=1e-9)
    assert parts["uncertainty"] == pytest.approx(scale * len(events) * base * (1 - base), abs=1e-9)
    assert parts["brier"] == pytest.approx(scale * sum((p - y) ** 2 for p, y in events), abs=1e-9)
    assert parts["brier"] == pytest.approx(
        parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"], abs=1e-9
    )


def test_without_spread_in_a_bin_the_three_parts_are_the_whole_score(script):
    answers = [{"percents": [70, 10, 10, 10], "right": k % 4 and 0 if k % 3 else k % 4} for k in range(24)]
    parts = js(script, "parts", answers)
    assert parts["within"] == pytest.approx(0, abs=1e-12)
    assert parts["resolution"] > 0


def test_the_band_of_equal_chances_is_binomial(script):
    for n, p in [(20, 0.3), (7, 0.5), (1, 0.02), (30, 0.9)]:
        assert js(script, "band", [p] * n) == list(binom.ppf([0.025, 0.975], n, p))
    assert js(script, "band", [1.0] * 5) == [5, 5]
    assert js(script, "band", [0.0]) == [0, 0]


def test_the_band_holds_the_dots_of_readers_whose_beliefs_are_right(script):
    rng = np.random.default_rng(5)
    outside = bins = 0
    for _ in range(60):
        answers = some_answers(30, int(rng.integers(10**6)))[:30]
        for answer in answers:
            answer["right"] = int(rng.choice(len(answer["percents"]), p=np.array(answer["percents"]) / 100))
        found = js(script, "reliability", answers)
        outside += sum(not one["low"] <= one["came"] <= one["high"] for one in found)
        bins += len(found)
    assert bins >= 250
    assert binom.sf(outside - 1, bins, 0.05) > 0.001, f"{outside} of {bins}"


# --- the page in a reader's hands ------------------------------------------------------------------------------


def answer(page, name: str, percents: list[int]) -> None:
    block = page.locator(f"#quiz-{name}")
    for place, percent in enumerate(percents[:-1]):
        block.locator("input").nth(place).fill(str(percent))
    assert [int(text[:-2]) for text in block.locator("output").all_inner_texts()] == percents
    block.get_by_role("button", name="This is what I believe").click()


def test_an_answer_is_scored_kept_exported_and_erased(page):
    question = BY_ID["Q01"]
    k = len(question.options)
    percents = [40, 30, 20, 10][:k]
    block = page.locator("#quiz-Q01")
    assert block.locator("details").is_hidden(), "the answer waits for the reader"
    answer(page, "Q01", percents)
    assert block.locator("details[open]").is_visible()
    shown = block.locator("tbody tr").first.locator("td").all_inner_texts()
    p = percents[question.right] / 100
    brier = brier_score(np.array([percents]) / 100, [question.right])
    assert shown == [f"{-math.log(p):.2f}", f"{brier:.2f}", f"{1 - p:.2f}"]

    page.reload()
    assert page.locator("#quiz-Q01 input:disabled").count() == k, "the first answer counts"
    assert page.locator("#quiz-Q01 output").all_inner_texts() == [f"{percent} %" for percent in percents]
    answer(page, "Q02", [0, 0, 0, 100] if BY_ID["Q02"].right != 3 else [100, 0, 0, 0])

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    first, second = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["answers"]
    assert (first["question"], first["percents"], first["right"]) == ("Q01", percents, question.right)
    assert first["log"] == pytest.approx(-math.log(p)) and second["log"] == "inf"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [row["question"] for row in rows] == ["Q01", "Q02"]
    assert [int(rows[0][letter]) for letter in "ABCD"[:k]] == percents
    assert rows[0]["right"] == "ABCD"[question.right] and float(rows[1]["log"]) == math.inf
    assert float(rows[0]["brier"]) == pytest.approx(brier)

    assert page.evaluate("Object.keys(localStorage)") == ["gence-quiz"]
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Erase my answers").click()
    page.wait_for_function("localStorage.length === 0")
    assert page.get_by_text("No answers yet.").is_visible()


def test_an_answer_that_is_only_looked_up_does_not_count(page):
    block = page.locator("#quiz-Q03")
    block.get_by_role("button", name="Show the answer").click()
    assert block.locator("details[open]").is_visible()
    assert block.locator("button").count() == 0
    assert page.evaluate("localStorage.length") == 0


def test_a_question_can_be_answered_by_keyboard_alone(page):
    block = page.locator("#quiz-Q01")
    block.locator("input").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert block.locator("output").first.inner_text() == "30 %"
    for _ in BY_ID["Q01"].options:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert block.locator("details[open]").is_visible()


@pytest.mark.parametrize("kept", ["nonsense", "[]", '{"answers": {"Q01": {"percents": [70, 20], "right": 0}}}', "null"])
def test_what_somebody_else_has_left_in_the_storage_does_no_harm(page, kept):
    page.evaluate("kept => localStorage.setItem('gence-quiz', kept)", kept)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.reload()
    answer(page, "Q01", [40, 30, 20, 10])
    assert page.get_by_text("1 answer in this browser.").is_visible()
    assert errors == []


def keep(page, n: int) -> None:
    answers = dict(zip(BY_ID, some_answers(n), strict=False))
    page.evaluate("kept => localStorage.setItem('gence-quiz', JSON.stringify({version: 1, answers: kept}))", answers)
    page.reload()


def test_the_diagram_comes_with_enough_answers(page):
    keep(page, 17)  # and two more
    assert page.get_by_text("comes after 20 answers: 1 to go").is_visible()
    assert page.locator(".quiz-results svg").count() == 0
    keep(page, 18)
    bins = js(page, "reliability", some_answers(18))
    assert page.locator(".quiz-results svg circle").count() == len(bins)
    assert page.locator(".quiz-results table").nth(1).locator("tbody tr").count() == len(bins)


@pytest.mark.parametrize("look", ["light", "dark"])
def test_nothing_keeps_anybody_out_before_and_after_answers(page, look):
    page.emulate_media(color_scheme=look)
    colours = {
        "light": "#fff #222832 #f3f4f5 #48566b #d1d5da #0a7d91",
        "dark": "#14181e #ced6dd #29313d #9ca4af #48566b #3fb1c5",
    }
    names = ["background", "text-base", "surface", "text-muted", "border", "primary"]
    rules = ";".join(f"--pst-color-{name}:{value}" for name, value in zip(names, colours[look].split(), strict=True))
    style = f":root {{{rules}}} body {{background:var(--pst-color-background);color:var(--pst-color-text-base)}}"
    page.add_style_tag(content=style)
    assert barriers(page) == []
    keep(page, 30)
    page.add_style_tag(content=style)
    assert barriers(page) == []


def test_answers_are_open_on_paper_and_sliders_are_not_there(page):
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".quiz details[open]:visible").count() == 12
    assert page.locator(".quiz-slider:visible, .quiz-button:visible").count() == 0
