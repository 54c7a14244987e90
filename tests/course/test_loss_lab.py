"""The loss lab in the page: its language, its search against the Python search on a zoo of losses, and its use."""

from __future__ import annotations

import itertools
import math
import re
import shutil
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from loss_lab import risk, verdict
from web import barriers

from gence.course.small import FINE, as_floats, beliefs, lattice

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "book" / "course" / "loss_lab.md"
EXPLORERS = ROOT / "book" / "_static" / "explorers"


def log(x: float) -> float:
    """As in the page: no number instead of an error."""
    return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)


def brier(p: list[float], y: int) -> float:
    return sum((x - (k == y)) ** 2 for k, x in enumerate(p))


# Each loss in the language of the page and, written apart, in Python; the verdict for K = 2 and for K = 3.
STRICT, PROPER, LIES, NONE = "open", "tied", "refuted", "no number"
ZOO = [
    ("-log(p[y])", lambda p, y: -log(p[y]), STRICT, STRICT),
    ("sum((p[k] - (y == k))^2)", brier, STRICT, STRICT),
    ("-p[y] / sqrt(sum(p[k]^2))", lambda p, y: -p[y] / np.linalg.norm(p), STRICT, STRICT),
    ("-(p[y] / sum(p[k]^3)^(1/3))^2", lambda p, y: -((p[y] / np.linalg.norm(p, 3)) ** 2), STRICT, STRICT),
    ("-(p[y] / sqrt(sum(p[k]^2)))^2", lambda p, y: -(p[y] ** 2) / np.dot(p, p), LIES, LIES),
    ("(1 - p[y])^2", lambda p, y: (1 - p[y]) ** 2, STRICT, LIES),
    ("1 - p[y]", lambda p, y: 1 - p[y], LIES, LIES),
    ("sum(abs(p[k] - (y == k)))", lambda p, y: sum(abs(x - (k == y)) for k, x in enumerate(p)), LIES, LIES),
    ("-(1 - p[y])^2 * log(p[y])", lambda p, y: -((1 - p[y]) ** 2) * log(p[y]), LIES, LIES),
    ("(1 - p[y]^0.7) / 0.7", lambda p, y: (1 - p[y] ** 0.7) / 0.7, LIES, LIES),
    ("-p[y] + sum(p[k]^2) / 2", lambda p, y: brier(p, y) / 2 - 0.5, STRICT, STRICT),
    ("-p[y]^2 + 2/3 * sum(p[k]^3)", lambda p, y: -(p[y] ** 2) + 2 / 3 * sum(x**3 for x in p), STRICT, STRICT),
    (
        "-0.9 * log(p[y]) - 0.1 / K * sum(log(p[k]))",
        lambda p, y: -0.9 * log(p[y]) - 0.1 * np.mean(np.log(p)),
        LIES,
        LIES,
    ),
    (
        "-0.99 * log(p[y]) - 0.01 / K * sum(log(p[k]))",  # found close by, between the points of the grid
        lambda p, y: -0.99 * log(p[y]) - 0.01 * np.mean(np.log(p)),
        LIES,
        LIES,
    ),
    ("-log(max(p[y], 0.3))", lambda p, y: -log(max(p[y], 0.3)), LIES, LIES),
    ("-log(max(p[y], 0.01))", lambda p, y: -log(max(p[y], 0.01)), STRICT, STRICT),  # a lie that the search misses
    ("-(1 + 2 * (y == 0)) * log(p[y])", lambda p, y: -(3 if y == 0 else 1) * log(p[y]), LIES, LIES),
    (
        "log(sum(sqrt(p[k]))) - log(p[y]) / 2",  # temperature 2
        lambda p, y: -log(math.sqrt(p[y]) / sum(map(math.sqrt, p))),
        LIES,
        LIES,
    ),
    (
        "1 - (p[y] == max(p[k])) / sum(p[k] == max(p[k]))",
        lambda p, y: 1 - (p[y] == max(p)) / p.count(max(p)),
        PROPER,
        PROPER,
    ),
    ("p[y] < max(p[k])", lambda p, y: float(p[y] < max(p)), LIES, LIES),  # generous at ties
    (
        "(p[0] >= 0.5) * (y != 0) + (p[0] < 0.5) * (y == 0)",
        lambda p, y: float((p[0] >= 0.5) != (y == 0)),
        PROPER,
        PROPER,
    ),
    ("3", lambda p, y: 3.0, PROPER, PROPER),
    ("log(p[y])", lambda p, y: log(p[y]), LIES, LIES),
    ("-log(p[y]) + sum((p[k] - (y == k))^2)", lambda p, y: brier(p, y) - log(p[y]), STRICT, STRICT),
    ("-log(p[y]) - 0.02 * sum(p[k] * log(p[k]))", lambda p, y: -log(p[y]) - 0.02 * np.dot(p, np.log(p)), LIES, LIES),
    ("exp(-p[y])", lambda p, y: math.exp(-p[y]), LIES, LIES),
    ("-log(p[y]) + 5 * (y == 1)", lambda p, y: -log(p[y]) + 5 * (y == 1), STRICT, STRICT),
    ("-min(p[y], 0.5)", lambda p, y: -min(p[y], 0.5), LIES, LIES),
    ("log(p[y] - 1/10)", lambda p, y: log(p[y] - 1 / 10), NONE, NONE),
    ("1 / (p[0] - 1/2)", lambda p, y: 1 / (p[0] - 1 / 2) if p[0] != 0.5 else math.inf, NONE, NONE),
]
IDS = [text for text, *_ in ZOO]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page with nothing but the lab: what loss_lab.md gives to the browser, without a theme."""
    folder = tmp_path_factory.mktemp("loss_lab")
    (block,) = re.findall(r"```\{raw\} html\n(.*?)```", SOURCE.read_text("utf-8"), re.DOTALL)
    look = (
        "document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark':'light'"
    )
    (folder / "book" / "course").mkdir(parents=True)
    page = folder / "book" / "course" / "loss_lab.html"
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<style>html[data-theme=dark] body { background: #14181e; color: #ced6dd }</style>"
        f'<link rel="icon" href="data:,"><title>Loss lab</title><script>{look}</script><body><main><h1>Lab</h1>{block}'
        "</main></body></html>",
        encoding="utf-8",
    )
    shutil.copytree(EXPLORERS, folder / "_static" / "explorers")
    return page.as_uri()


@pytest.fixture(scope="module")
def js(browser, address):
    """Evaluate a function of the lab's scripts."""
    page = browser.new_page()
    page.goto(address)
    yield page.evaluate
    page.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    yield page
    assert page.errors == []
    context.close()


def point(found: dict) -> tuple[Fraction, ...]:
    return tuple(Fraction(n, found["of"]) for n in found["counts"])


# --- the search ---------------------------------------------------------------------------------------------------

SEARCH = "([text, K]) => GenceLossSearch.search(GenceLossLanguage.parse(text, K), K)"


def test_the_page_and_the_library_try_the_same_points_in_the_same_order(js):
    for n in (2, 3):
        tried = js("K => { const { asked, answers } = GenceLossSearch.grid(K); return { asked, answers }; }", n)
        assert [point(q) for q in tried["asked"]] == list(beliefs(n))
        assert [point(p) for p in tried["answers"]] == list(lattice(n, FINE))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("text", "loss", "two", "three"), ZOO, ids=IDS)
def test_the_page_and_python_agree_on_a_loss(js, text, loss, two, three, n_classes):
    found, wanted = js(SEARCH, [text, n_classes]), verdict(loss, n_classes)
    assert found["verdict"] == wanted["verdict"] == (two if n_classes == 2 else three)
    assert (found["beliefs"], found["answers"]) == (len(beliefs(n_classes)), len(lattice(n_classes, FINE)))
    for part in {"belief", "answer"} & set(wanted):
        assert point(found[part]) == wanted[part]
    for part in {"costs", "honest"} & set(wanted):
        assert found[part] == pytest.approx(wanted[part], abs=1e-12)
    if found["verdict"] == "refuted":  # the same price, if not the same of several answers
        assert risk(loss, point(found["cheapest"]), wanted["belief"]) == pytest.approx(wanted["lowest"], abs=1e-9)
        assert found["costs"] < found["honest"]
    if found["verdict"] == "no number":
        assert found["label"] == wanted["label"]


def test_the_zoo_holds_all_kinds_and_every_example_of_the_page(js):
    assert len(ZOO) >= 15
    assert {kind for *_, two, three in ZOO for kind in (two, three)} == {STRICT, PROPER, LIES, NONE}
    assert {text for _, text, _ in js("GenceLossLab.EXAMPLES")} <= set(IDS)


def test_a_search_is_felt_as_at_once(js):
    slowest = js(
        """texts => Math.max(...texts.map(text => Math.min(...[1, 2, 3].map(() => {
            const before = performance.now();
            GenceLossSearch.search(GenceLossLanguage.parse(text, 3), 3);
            return performance.now() - before; }))))""",
        IDS,
    )
    assert slowest <= 200  # milliseconds


# --- the language -------------------------------------------------------------------------------------------------

VALUE = "([text, K, p, y]) => GenceLossLanguage.parse(text, K)(p, y)"
P = [0.2, 0.3, 0.5]
VALUES = [
    ("-p[y]^2", 2, -0.25),
    ("2^3^2", 0, 512),
    ("2^-1", 0, 0.5),
    ("8 / 4 / 2 - 1 - 1", 0, -1),
    ("1 + 2 * 3 ^ 2", 0, 19),
    ("--1 + +2", 0, 3),
    ("1e-3 + .5 + 2.", 0, 2.501),
    ("K * y", 1, 3),
    ("p[0] + 10 * p[2]", 0, 5.2),
    ("sum(k * p[k])", 0, 1.3),
    ("sum(1)", 0, 3),
    ("sum((p[k] - sum(p[k]^2))^2)", 0, sum((x - 0.38) ** 2 for x in P)),
    ("max(p[k]) - min(p[k])", 0, 0.3),
    ("max(p[y], 0.4, y)", 1, 1),
    ("max(min(p[0], p[1]), 0)", 1, 0.2),
    ("sum(max(p[k], 0.4))", 1, 1.3),
    ("sum(k == y) + (y != 1) + (1 < 2) + (2 <= 2) + (1 > 2) + (1 >= 2)", 1, 3),
    ("abs(-2) + sqrt(4) + log(exp(1))", 0, 5),
]


@pytest.mark.parametrize(("text", "y", "wanted"), VALUES, ids=[text for text, *_ in VALUES])
def test_a_formula_means_what_it_says(js, text, y, wanted):
    assert js(VALUE, [text, 3, P, y]) == pytest.approx(wanted, abs=1e-12)


def test_the_losses_of_the_zoo_cost_what_they_cost_in_python(js):
    for (text, loss, *_), n in itertools.product(ZOO, (2, 3)):
        points = [as_floats(p) for p in lattice(n, 7)]
        got = js(
            "([t, K, points]) => points.map(p => p.map((_, y) => String(GenceLossLanguage.parse(t, K)(p, y))))",
            [text, n, points],
        )
        wanted = [[loss(p, y) for y in range(n)] for p in points]
        numbers = np.array([[float(x.replace("Infinity", "inf")) for x in row] for row in got])
        np.testing.assert_allclose(numbers, wanted, rtol=1e-12, atol=1e-12, err_msg=text)


# What is wrong, the part that is shown as wrong, and a word of the advice.
SLIPS = [
    ("", "", "Type one, for example -log(p[y])"),
    ("ln(p[y])", "ln", "natural logarithm is log"),
    ("lgo(p[y])", "lgo", "Perhaps log?"),
    ("foo(p[y])", "foo", "Allowed are p[y]"),
    ("constructor", "constructor", "Allowed are p[y]"),
    ("-log(q[y])", "q", "belief q is what the lab looks for"),
    ("-log(p[y]", "(", "add )"),
    ("-log(p[y]))", ")", "never opened"),
    ("log p[y]", "p", "round brackets"),
    ("log()", ")", "needs an argument"),
    ("log(p[y], 2)", "log", "one argument, not 2"),
    ("p", "p", "p[y] for the label"),
    ("p(y)", "p", "p[y] for the label"),
    ("p[y", "", "add ]"),
    ("p[z]", "z", "y, k or one of 0, 1"),
    ("p[2]", "2", "classes are 0, 1"),
    ("p[0.5]", "0.5", "classes are 0, 1"),
    ("p[k]", "k", "Outside, write p[y]"),
    ("1 - k", "k", "Perhaps y?"),
    ("max(p[k], 1)", "k", "Outside, write p[y]"),
    ("2p[y]", "p", "Times is written *"),
    ("2 (p[y])", "(", "Times is written *"),
    ("1 +", "", "missing after “+”"),
    ("1 + * 2", "*", "number, p[y] or a bracket"),
    ("p[y]**2", "**", "written ^"),
    ("y = 1", "=", "y == k"),
    ("1 \u2212 p[y]", "\u2212", "type - instead"),
    ("0,5 * p[y]", ",", "written with a point"),
    ("0 < p[y] < 1", "<", "two things at a time"),
    ("y[0]", "[", "only follow p"),
    ("sum(sum(sum(1)))", "sum", "2 deep"),
    ("\U0001f600", "\U0001f600", "Allowed are p[y]"),
    ("1 + " * 200 + "1", "1 + ", "at most 400 characters"),
    ("(" * 399, "", "missing after"),
]
PARSE = """([text, K]) => { try { GenceLossLanguage.parse(text, K); return null; } catch (e) {
    const known = e instanceof GenceLossLanguage.LossError;
    return known ? [e.message, text.slice(e.from, e.to)] : String(e.stack); } }"""


@pytest.mark.parametrize(("text", "part", "advice"), SLIPS, ids=[text[:20] or "nothing" for text, *_ in SLIPS])
def test_a_slip_is_told_with_its_place_and_its_mending(js, text, part, advice):
    message, shown = js(PARSE, [text, 2])
    assert advice in message
    assert shown.startswith(part) if part else shown == ""


def test_whatever_is_typed_gives_a_loss_or_an_error_of_the_language(js):
    rng = np.random.default_rng(0)
    parts = [*"pykK()[]+-*/^,.=<>! 12", "sum(", "max(", "log(", "p[y]", "p[k]", "==", "1e", "__proto__", "e", "'", "\\"]
    texts = ["".join(rng.choice(parts, rng.integers(1, 25))) for _ in range(3000)]
    answers = js(f"texts => texts.map(text => ({PARSE})([text, 3]))", texts)
    assert [a for a in answers if isinstance(a, str)] == []
    assert None in answers, "some of it is a loss"


def test_no_script_hands_text_to_the_engine():
    for name in ("loss_language", "loss_search", "loss_lab"):
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", (EXPLORERS / f"{name}.js").read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(
            r"\beval\b|\bFunction\b|innerHTML|insertAdjacent|document\.write|fetch|import\b|http",
            code.replace("http://www.w3.org/2000/svg", ""),
        )


# --- the page -----------------------------------------------------------------------------------------------------


def ask(page, text: str, n_classes: int = 3) -> None:
    page.select_option("#ll-classes", str(n_classes))
    page.fill("#ll-loss", text)
    page.press("#ll-loss", "Enter")


def said(page) -> str:
    return page.locator(".gx-verdict").inner_text()


def test_the_lab_opens_with_a_loss_that_lies_and_tells_both_risks(page):
    assert page.input_value("#ll-loss") == "(1 - p[y])^2"
    assert "Not proper." in said(page)
    assert "belief q = (1/4, 1/4, 1/2) the honest answer costs 0.4063" in said(page)
    assert "the answer p = (1/5, 1/5, 3/5) costs 0.4000" in said(page)
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#loss-lab tbody tr").all()]
    q, honest, other = (np.array([float(x) for x in row if x]) for row in rows)
    assert q @ honest[:3] == pytest.approx(honest[3], abs=1e-4)
    assert q @ other[:3] == pytest.approx(other[3], abs=1e-4)
    wide = [float(bar.get_attribute("width")) for bar in page.locator(".gx-bar").all()]
    assert wide[1] / wide[0] == pytest.approx(other[3] / honest[3], rel=1e-3)


def test_marks_stand_where_belief_and_answer_are(page):
    def place(selector: str) -> list[float]:
        return [
            float(x) for x in re.findall(r"[\d.]+", page.locator(f".ll-picture {selector}").get_attribute("transform"))
        ]

    corners = np.array([[30, 318], [370, 318], [200, 318 - 340 * math.sqrt(0.75)]])
    np.testing.assert_allclose(place(".ll-belief"), np.array([0.25, 0.25, 0.5]) @ corners, atol=0.06)
    np.testing.assert_allclose(place(".ll-answer"), np.array([0.2, 0.2, 0.6]) @ corners, atol=0.06)
    drawn = page.locator(".ll-picture .ll-answers").get_attribute("d").count("M")
    q = (Fraction(1, 4), Fraction(1, 4), Fraction(1, 2))
    loss = dict((text, loss) for text, loss, *_ in ZOO)["(1 - p[y])^2"]
    assert drawn == sum(risk(loss, p, q) < risk(loss, q, q) - 1e-9 for p in lattice(3, FINE))
    assert f"all {drawn} that are cheaper" in page.locator("#loss-lab").inner_text()
    assert "answer (1/5, 1/5, 3/5)" in page.locator(".ll-picture").get_attribute("aria-label")


def test_every_verdict_is_drawn_and_worded_without_a_hole(page):
    heads = {STRICT: "No counterexample: now prove it.", PROPER: "Not strictly proper; perhaps proper."}
    heads |= {LIES: "Not proper.", NONE: "Not a number."}
    for (text, _, *kinds), (n, i) in itertools.product(ZOO, ((2, 0), (3, 1))):
        ask(page, text, n)
        assert said(page).startswith(heads[kinds[i]]), text
        assert not re.search(r"NaN|undefined|null|Infinity|\[object", page.locator("#loss-lab").inner_text()), text
        paths = page.evaluate("[...document.querySelectorAll('#loss-lab path')].map(e => e.getAttribute('d') || '')")
        assert not re.search("NaN|Infinity|undefined", " ".join(paths)), text
        if kinds[i] in (STRICT, PROPER):
            assert f"among {len(beliefs(n))} beliefs and {len(lattice(n, FINE))} answers" in said(page), text


def test_a_slip_is_shown_read_out_selected_and_gone_when_mended(page):
    ask(page, "-ln(p[y])")
    error = page.locator("#ll-error")
    assert error.inner_text().startswith("At character 2: “ln” is not known here. The natural logarithm is log.")
    assert error.locator("mark").inner_text() == "ln"
    assert page.get_attribute("#ll-loss", "aria-invalid") == "true"
    assert not page.locator(".gx-verdict").is_visible()
    selected = "() => { const e = document.activeElement; return e.value.slice(e.selectionStart, e.selectionEnd); }"
    assert page.evaluate(selected) == "ln"
    page.wait_for_function("document.querySelector('#loss-lab [aria-live=polite]').textContent.includes('is log')")
    ask(page, "-log(p[y])")
    assert not error.is_visible()
    assert page.get_attribute("#ll-loss", "aria-invalid") == "false"
    page.wait_for_function(
        "document.querySelector('#loss-lab [aria-live=polite]').textContent.startsWith('No counterexample')"
    )
    ask(page, "<img src=x onerror=alert(1)>")
    assert page.locator("#loss-lab img").count() == 0


def test_a_link_holds_the_loss(browser, address, page):
    assert "#" not in page.url, "what the page opens with does not change its address"
    text = "-(1 + 2 * (y == 0)) * log(p[y]) + 0 * 50^(1 - p[1])"
    ask(page, text, 2)
    link = page.evaluate("document.querySelector('[data-part=link] a').href")
    assert page.url == link
    assert re.fullmatch(r"[\w%.\-]+&K=2", link.split("#loss=")[1])
    other = browser.new_page()
    other.goto(link)
    assert (other.input_value("#ll-loss"), other.input_value("#ll-classes")) == (text, "2")
    assert said(other) == said(page)
    other.evaluate("hash => { location.hash = hash; }", "#loss=" + quote("1 - p[y]"))
    other.wait_for_function("document.querySelector('#ll-loss').value === '1 - p[y]'")
    assert other.input_value("#ll-classes") == "3"
    for broken in ("#loss=%E0%A4%A", "#loss=1&K=7"):
        other.goto("about:blank")
        other.goto(address + broken)
        assert "This link holds no loss that can be read" in other.locator("#ll-error").inner_text()
    other.goto("about:blank")
    other.goto(address + "#the-lab")
    assert "Not proper." in said(other)
    other.close()


def test_the_lab_works_from_the_keyboard_and_each_control_shows_its_focus(page):
    order = []
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]; })()"
        )
        assert style[0] != "none", order[-1]
    assert order == ["ll-loss", "ll-classes", "ll-example", "Search", "Link to this loss"]
    page.focus("#ll-example")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#ll-loss") == "-log(p[y])"
    assert "now prove it" in said(page)
    page.focus("#ll-classes")
    page.keyboard.press("ArrowUp")
    assert "try K = 3" in said(page)
    for control in page.locator("#loss-lab input, #loss-lab select, #loss-lab button").all():
        assert min(control.bounding_box()[side] for side in ("width", "height")) >= 24


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_the_lab_is_open_to_everybody_and_fits(browser, address, look, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=look)
    page = context.new_page()
    page.goto(address)
    for text, n in (("(1 - p[y])^2", 3), ("-log(p[y])", 2), ("ln(", 2)):
        ask(page, text, n)
        assert barriers(page) == [], text
        assert page.evaluate("document.documentElement.scrollWidth") <= width, text
    context.close()


def test_without_scripts_the_page_points_to_the_worked_examples(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.get_by_text("The three worked examples below").count() == 1
    context.close()


def test_on_paper_the_verdict_stays_and_the_controls_go(page):
    page.emulate_media(media="print")
    assert page.locator(".gx-verdict").is_visible()
    assert page.locator(".ll-picture").is_visible()
    assert not page.locator("button").is_visible()
    assert page.input_value("#ll-loss")


def test_the_examples_by_hand_are_what_the_search_finds():
    part = r"(?:\{(\d+)\}|(\d))"
    text = re.sub(rf"\\frac{part}{part}", r"\1\2/\3\4", SOURCE.read_text("utf-8"))
    losses = {text: loss for text, loss, *_ in ZOO}
    for formula, n, sentences in (
        ("1 - p[y]", 2, ("q = ({})", "p = ({})")),
        ("(1 - p[y])^2", 3, ("q = ({})", "p = ({})")),
    ):
        (example,) = re.findall(rf"^\*\*[^\n]*`{re.escape(formula)}`[^\n]*$", text, re.MULTILINE)
        found = verdict(losses[formula], n)
        for words, part in zip(sentences, ("belief", "answer"), strict=True):
            assert words.format(", ".join(map(str, found[part]))) in example
        for part in ("honest", "costs"):
            assert f"= {Fraction(found[part]).limit_denominator(100)}$" in example
    assert verdict(losses["-log(p[y])"], 3) == {"verdict": "open"}


def test_the_truncated_log_lies_where_the_search_does_not_look():
    loss = {text: loss for text, loss, *_ in ZOO}["-log(max(p[y], 0.01))"]
    q = (Fraction(1, 200), Fraction(199, 200))
    assert risk(loss, (Fraction(1, 1000), Fraction(999, 1000)), q) < risk(loss, q, q)
