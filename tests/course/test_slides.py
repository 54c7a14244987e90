"""The decks: they name what exists, keep their time, fit their slides, and ask no other host."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from drawing import drawn, others_thorough
from web import FORMULAS, SLOW, barriers, served

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import sessions  # noqa: E402
import slides  # noqa: E402

DECKS = slides.names()
MOST_WORDS = 40
every_deck = pytest.mark.parametrize("deck", DECKS)
in_a_browser = pytest.mark.parametrize("deck", others_thorough(DECKS, drawn(DECKS, 1)), scope="module")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return slides.build(tmp_path_factory.mktemp("course") / "slides")


def parts_of(deck: str) -> list[str]:
    """The slides as the file has them, each with its heading."""
    return re.split(r"^(?=##? )", slides.written(deck), flags=re.MULTILINE)[1:]


def minutes_of(deck: str) -> Counter:
    """How many minutes the notes give to each part, in the order of the slides."""
    times: Counter = Counter()
    for length, part in slides.NOTES.findall(slides.written(deck)):
        times[part] += int(length)
    return times


def test_there_is_a_deck_for_each_session_and_one_for_the_class():
    assert ["class90", *(f"s{number}" for number in sessions.teaching())] == DECKS


@every_deck
def test_every_slide_has_notes_with_its_minutes_and_they_sum_to_ninety(deck):
    assert all(len(slides.NOTES.findall(part)) == 1 for part in parts_of(deck))
    assert sum(minutes_of(deck).values()) == 90


@pytest.mark.parametrize("number", sorted(sessions.teaching()))
def test_a_deck_of_a_session_keeps_its_clock_and_asks_its_questions(number):
    assert list(minutes_of(f"s{number}").items()) == list(sessions.written()["parts"].items())
    asked = [name for kind, name in slides.NAMED.findall(slides.written(f"s{number}")) if kind == "question"]
    assert asked == sessions.teaching()[number].exit


@pytest.mark.parametrize("number", sorted(sessions.teaching()))
def test_a_deck_says_the_bet_and_the_claim_that_settles_it(number):
    named, plan = slides.NAMED.findall(slides.written(f"s{number}")), sessions.teaching()[number]
    assert {("says", "bet"), ("says", "settled")} <= set(named)
    assert plan.settled.claim is None or ("claim", plan.settled.claim) in named


def test_the_deck_of_the_class_keeps_the_clock_of_its_page():
    page = (ROOT / "book" / "course" / "class.md").read_text(encoding="utf-8")
    planned = [int(end) - int(start) for start, end in re.findall(r"^\| (\d+)–(\d+) \|", page, re.MULTILINE)]
    assert list(minutes_of("class90").values()) == planned
    asked = [name for kind, name in slides.NAMED.findall(slides.written("class90")) if kind == "question"]
    assert asked == re.findall(r"Q\d\d", page)


@every_deck
def test_no_result_is_typed(deck):
    assert re.findall(r"\d[.,]\d|\d ?%", slides.written(deck)) == []


def words_of(slide) -> int:
    """How many words a slide shows, a formula counting as one; what it quotes by name is not its own."""
    for element in slide.select("aside, .quoted"):
        element.decompose()
    for formula in slide.select(".math"):
        formula.replace_with(" x ")
    return len(re.findall(r"\w+", slide.get_text()))


def slides_of(built: Path, deck: str) -> list:
    page = BeautifulSoup((built / f"{deck}.html").read_text(encoding="utf-8"), "html.parser")
    return [one for one in page.select(".slides section") if not one.find("section")]


@every_deck
def test_a_slide_has_few_words(built, deck):
    found = slides_of(built, deck)
    assert len(found) == len(parts_of(deck))
    for slide in found:
        heading = slide.find(["h1", "h2"]).get_text()
        assert words_of(slide) <= MOST_WORDS, heading


@every_deck
def test_a_figure_has_words_for_those_who_do_not_see_it(built, deck):
    for slide in slides_of(built, deck):
        for image in slide.find_all("img"):
            assert len(image["alt"]) > 20 and (built / image["src"]).is_file()


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("{claim}`ce-is-entropy-and-kl`", "ce-is-entropy-plus-kl"),
        ("{figure}`fig-honest`", "fig-honesty"),
        ("{question}`Q001`", "Q01"),
        ("{says}`boards`", "board"),
    ],
)
def test_a_wrong_name_is_refused_and_the_nearest_is_said(monkeypatch, line, nearest):
    monkeypatch.setattr(slides, "written", lambda _: f"# A deck\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"slides/s1\.md: .*did you mean '{nearest}'"):
        slides.expanded("s1")


# What lies outside the window, or lower than the number of the slide.
CUT_OFF = """place => {
    const slide = Reveal.getSlides()[place], {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v, 99);
    return [...slide.querySelectorAll('*')].filter(one => !one.closest('aside, mjx-assistive-mml')).map(one => {
        const box = one.getBoundingClientRect();
        const out = box.right > innerWidth || box.bottom > innerHeight || box.left < 0 || box.top < 0;
        return out ? `${slide.textContent.trim().slice(0, 30)}: ${one.outerHTML.slice(0, 80)}` : null;
    }).filter(Boolean);
}"""


@in_a_browser
def test_a_deck_works_offline_is_not_cut_off_and_is_open_to_everybody(built, browser, deck):
    asked, errors = [], []
    with served(built) as site:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{site}/{deck}.html", wait_until="load")
        page.evaluate(FORMULAS, SLOW)
        page.wait_for_function("() => Reveal.isReady()")
        assert page.locator("mjx-merror").count() == 0
        assert page.locator("mjx-container").count() == page.locator(".math").count()
        for place in range(page.evaluate("Reveal.getSlides().length")):
            assert page.evaluate(CUT_OFF, place) == []
            assert barriers(page) == []
        page.close()
    assert [address for address in asked if not address.startswith((site, "data:", "blob:"))] == []
    assert errors == []
