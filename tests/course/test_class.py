"""The class of ninety minutes, gone through in a browser without a network: each step shows what its page promises.

The walk is one of `make test-thorough`. `pytest tests/course/test_class.py -s` prints the seconds of the machine, which
class.yml holds.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from by_hand import relations
from web import FORMULAS, SLOW, served

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import bets  # noqa: E402
import clock  # noqa: E402
import slides  # noqa: E402

HTML = ROOT / "_build" / "committed" / "html"
PAGE = clock.PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+)–(\d+) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
COUNTED = {"first": 0, "second": 1, "last but one": -2}
SECONDS: defaultdict[str, float] = defaultdict(float)


def screen_of(part: str) -> str:
    """What the page of the class puts on the screen in a part."""
    return dict(zip(clock.times().parts, ROWS, strict=True))[part][3]


def pages_of(part: str) -> list[str]:
    """The pages that a part opens, by their addresses in the book."""
    named = re.findall(r"\{doc\}`([\w./]+)`", screen_of(part))
    return [(clock.COURSE / name).resolve().relative_to(ROOT).as_posix() for name in named]


def figures_of(part: str) -> dict[str, str]:
    """The figures that a part opens, and how it counts them."""
    return {name: words for words, name in re.findall(r"\{ref\}`its ([\w ]+?) figure <([\w-]+)>`", screen_of(part))}


# --- the plan ----------------------------------------------------------------------------------------------------


def test_board_and_clock_of_the_page_are_what_their_sources_say():
    """`python workflow/course.py class` writes them anew."""
    assert clock.page() == PAGE


def test_every_part_fits_its_minutes():
    planned, taken = clock.planned(), clock.minutes()
    assert list(planned) == list(taken)
    assert {part: taken[part] for part in planned if taken[part] > planned[part]} == {}


def test_the_board_has_as_many_lines_as_a_class_can_copy_and_they_are_right():
    lines = [line for part in clock.times().parts.values() for line in part.board]
    assert 5 <= len(lines) <= 9
    found = list(relations("\n".join(lines)))
    assert len(found) >= 5
    assert [said for said, holds in found if not holds] == []


def test_words_are_counted_as_a_speaker_says_them():
    assert clock.count("It's $p_y$, and $$a\n= b$$ {claim}") == 4
    assert clock.count("**Proper**: for all") == 3


# --- the way through it ------------------------------------------------------------------------------------------


class Walk:
    """A browser that reaches the book and the slides, and no other host."""

    def __init__(self, browser, book: str, decks: str) -> None:
        self.book, self.decks, self.elsewhere, self.errors = book, decks, [], []
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.context.set_default_timeout(SLOW)
        self.context.route(lambda url: not url.startswith((book, decks, "data:", "blob:")), self.refuse)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def refuse(self, route) -> None:
        self.elsewhere.append(route.request.url)
        route.abort("internetdisconnected")

    def open(self, address: str, place: str = "") -> None:
        self.page.goto(f"{self.book}/{address}.html{place}", wait_until="load")
        self.page.evaluate(FORMULAS, SLOW)


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Add the seconds of the block to those of the part."""
    start = time.monotonic()
    yield
    SECONDS[part] += time.monotonic() - start


@pytest.fixture(scope="module")
def walk(browser, tmp_path_factory):
    if not HTML.exists():
        pytest.fail("the book is not built: run `make html` (or `make test`, which does) first")
    built = slides.build(tmp_path_factory.mktemp("course") / "slides")
    with served(HTML) as book, served(built) as decks:
        found = Walk(browser, book, decks)
        yield found
        found.context.close()
    print("\nseconds: " + ", ".join(f"{part} {SECONDS[part]:.0f}" for part in clock.times().parts))
    assert found.elsewhere == [], "nothing is asked of another host"
    assert found.errors == []


def hold_the_belief(page) -> None:
    """A half, a quarter, a quarter, as the page says it is set: class A to one, then back to a half."""
    for share in (1, 0.5):
        page.locator("#lx-q-A").evaluate(
            "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input', {bubbles: true})); }", share
        )


def answers(page) -> tuple[list[float], list[float]]:
    """Belief and best answer, as the explorer's table has them."""
    rows = page.locator("#loss-explorer table tr").all()
    cells = [row.locator("td").all_inner_texts() for row in rows]
    numbers = [list(map(float, row[-4:-1])) for row in cells if len(row) >= 4]
    return [row[0] for row in numbers], [row[2] for row in numbers]


@pytest.mark.thorough
def test_bet_the_explorer_holds_the_belief_and_gives_nothing_away(walk):
    with timed("bet"):
        walk.open(*pages_of("bet"))
        assert walk.page.input_value("#lx-loss") == "ce"
        hold_the_belief(walk.page)
        belief, best = answers(walk.page)
    assert belief == [0.5, 0.25, 0.25] == best


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["curve", "calibration", "batch"])
def test_a_part_shows_the_figures_that_it_names_where_it_says(walk, part):
    named = figures_of(part)
    assert named
    for address in pages_of(part):
        ids = re.findall(r'\bid="(fig-[\w-]+)"', (HTML / f"{address}.html").read_text(encoding="utf-8"))
        for name in [one for one in named if one in ids]:
            with timed(part):
                walk.open(address, f"#{name}")
                image = walk.page.locator(f"#{name} img, figure:has(#{name}) img").first
                image.scroll_into_view_if_needed()
                image.evaluate("image => image.decode()")
                box = image.bounding_box()
            assert box["width"] > 300 and 0 <= box["y"] < 800
            figures = [one for one in dict.fromkeys(ids) if slides.figures().get(one)]
            assert figures[COUNTED[named.pop(name)]] == name
        if not any(one in ids for one in figures_of(part)):
            with timed(part):
                walk.open(address)
            assert walk.page.locator("article h1").count() == 1
    assert named == {}


@pytest.mark.thorough
def test_pairs_the_lab_breaks_a_loss_takes_a_mended_one_and_one_without_a_name(walk):
    def ask(loss: str) -> str:
        walk.page.fill("#ll-loss", loss)
        walk.page.press("#ll-loss", "Enter")
        return walk.page.locator(".gx-verdict").inner_text()

    with timed("pairs"):
        walk.open(*pages_of("pairs"))
        assert walk.page.input_value("#ll-loss") == "(1 - p[y])^2"
        first = walk.page.locator(".gx-verdict").inner_text()
        assert first.startswith("Not proper.") and "(1/4, 1/4, 1/2)" in first
        assert ask("1 - p[y]").startswith("Not proper.")
        assert ask("sum((p[k] - (y == k))^2)").startswith("No counterexample: now prove it.")
        assert ask("sum((p[k] - (y == k))^2) - log(p[y])").startswith("No counterexample: now prove it.")


# Where the page of the class says that the best answers lie, in the order of its losses.
PLACES = dict(zip(("ce", "focal", "lq", "smooth"), ("belief", "middle", "corner", "middle"), strict=True))


@pytest.mark.thorough
def test_exit_the_bets_are_settled_where_the_page_says(walk):
    said = re.search(r"as soon as a loss is chosen: (.+?)\.", PAGE)[1]
    assert [words.split()[-1] for words in said.split(", ")] == list(PLACES.values())
    assert len(clock.times().losses) == len(PLACES)
    with timed("exit"):
        walk.open(pages_of("exit")[0])
        hold_the_belief(walk.page)
        for loss, place in PLACES.items():
            walk.page.select_option("#lx-loss", loss)
            belief, best = answers(walk.page)
            assert belief == [0.5, 0.25, 0.25]
            moved = best[0] - belief[0]
            assert place == ("corner" if moved > 0.001 else "middle" if moved < -0.001 else "belief"), loss


@pytest.mark.thorough
def test_exit_the_three_questions_take_probabilities_and_answer(walk):
    asked = re.findall(r"Q\d\d", screen_of("exit"))
    assert len(asked) == 3
    with timed("exit"):
        walk.open(pages_of("exit")[1])
        for name in asked:
            block = walk.page.locator(f"#quiz-{name}")
            right = slides.questions()[name].right
            block.locator("input").nth(right).evaluate(
                "slider => { slider.value = 90; slider.dispatchEvent(new Event('input', {bubbles: true})); }"
            )
            block.get_by_role("button", name="This is what I believe").click()
            assert block.locator("details").is_visible()
            assert f"{bets.log(0.9):.2f}" in block.inner_text(), "what nine tenths on the right option cost"
        assert "17 to go" in walk.page.locator(".quiz-results").inner_text(), "three of the twenty are counted"


@pytest.mark.thorough
def test_each_slide_comes_in_turn(walk):
    page, parts = walk.page, [part for _, part in slides.NOTES.findall(slides.written(clock.DECK))]
    headings = re.findall(r"^##? (.+)$", slides.written(clock.DECK), re.MULTILINE)
    with timed(parts[0]):
        page.goto(f"{walk.decks}/{clock.DECK}.html", wait_until="load")
        page.wait_for_function("() => Reveal.isReady()")
        page.evaluate(FORMULAS, SLOW)
    for place, (heading, part) in enumerate(zip(headings, parts, strict=True)):
        with timed(part):
            while page.evaluate("Reveal.getSlidePastCount()") < place:
                page.keyboard.press("ArrowRight")
            shown = page.evaluate("Reveal.getCurrentSlide().querySelector('h1, h2').innerText")
        assert shown == heading
    while not page.evaluate("Reveal.isLastSlide() && !Reveal.availableFragments().next"):
        page.keyboard.press("ArrowRight")
