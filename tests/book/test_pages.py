"""The built pages, opened in a browser without a network, as a reader sees them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup, SoupStrainer
from drawing import changed_or_drawn, drawn, others_thorough
from web import PHONE, WIDE, Opened, barriers, served

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "committed" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


@pytest.fixture(scope="module")
def site():
    if not (HTML / "index.html").exists():
        pytest.fail("the book is not built: run `make html` (or `make test`, which does) first")
    with served(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def opened(site, browser, request):
    """A page, loaded once for all that is looked at on it: wide, then as on a phone, then in the dark."""
    found = Opened(browser, site, request.param)
    yield found
    found.context.close()


# What takes seconds a page: all pages in `make test-thorough`.
FILES = {name: next(f"{name}{end}" for end in (".md", ".ipynb") if (ROOT / f"{name}{end}").exists()) for name in PAGES}
CHOSEN = changed_or_drawn(FILES.values())
LOOKED_AT = [name for name in PAGES if FILES[name] in CHOSEN]
NOTEBOOKS = [name for name in PAGES if name.startswith("notebooks/")]
on_some_pages = pytest.mark.parametrize("opened", others_thorough(PAGES, LOOKED_AT), indirect=True, scope="module")
on_some_notebooks = pytest.mark.parametrize(
    "opened", others_thorough(NOTEBOOKS, LOOKED_AT), indirect=True, scope="module"
)


# Every image of a page, once it is in view and decoded.
IMAGES = """async () => {
    const found = [];
    for (const image of document.querySelectorAll('article img')) {
        image.scrollIntoView();
        await image.decode().catch(() => null);  // what cannot be decoded has no width
        const drawn = image.complete && image.naturalWidth > 0 && image.getBoundingClientRect().width > 50;
        found.push({source: image.src, drawn, alt: image.alt});
    }
    return found;
}"""


def looks_right(opened: Opened, look: str, width: int) -> None:
    page = opened.page
    assert page.evaluate("document.documentElement.dataset.theme") == look
    assert page.title()

    formulas = page.locator(".math").count()
    assert page.locator(".math mjx-container").count() >= formulas
    assert page.locator("mjx-merror").count() == 0
    assert "$$" not in page.locator("article").inner_text()

    for image in page.evaluate(IMAGES):
        assert image["drawn"], image
        assert len(image["alt"]) > 20, image
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.locator("mjx-container[tabindex]:not([role=group])").count() == 0, "a formula is no tab stop"
    # Last, so that what a script asks for after the page has loaded is seen, too.
    assert opened.elsewhere == [], "a page must not ask another host for anything"
    assert opened.errors == []


# What a browser fetches when it opens a page; links are not fetched.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|embed)\b[^>]*?\ssrc=["']([^"']+)|<link\b[^>]*?\shref=["']([^"']+)"""
)
NOT_FETCHED = re.compile(
    r"""<link\b[^>]*?\srel=["'](?:canonical|search|next|prev|index|author|license|copyright)["'][^>]*>"""
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_files_of_the_book_and_no_other_host(name):
    """All pages, without a browser; those of the change, and some others, are opened below."""
    path = HTML / f"{name}.html"
    text = NOT_FETCHED.sub("", path.read_text(encoding="utf-8"))
    fetched = [src or href for src, href in FETCHED.findall(text)]
    assert fetched
    for address in fetched:
        if not address.startswith("data:"):
            assert (path.parent / address.partition("?")[0].partition("#")[0]).is_file(), address


MOST_BYTES = 1_000_000


@on_some_pages
def test_a_page_works_offline_shows_everything_and_is_light(opened):
    opened.resize(WIDE)
    looks_right(opened, "light", WIDE)
    heaviest = sorted(opened.came.items(), key=lambda item: -item[1])[:5]
    assert sum(opened.came.values()) <= MOST_BYTES, f"compressed, with all its images; the heaviest: {heaviest}"
    assert any(name.endswith("startup.js") for name in opened.came) == (opened.page.locator(".math").count() > 0)
    assert not any("searchindex" in name for name in opened.came), "the index is for the search page"


@on_some_pages
def test_a_page_is_open_to_everybody(opened):
    opened.resize(WIDE)
    assert barriers(opened.page) == []


# Inline formulas that a keyboard stops at although they fit.
STOPS = """() => [...document.querySelectorAll('article span.math[tabindex="0"]')]
    .filter(box => box.querySelector('mjx-math')?.getBoundingClientRect().width <= box.clientWidth + 1)
    .map(box => box.textContent.trim())"""


@on_some_pages
def test_a_formula_that_fits_is_no_stop_on_the_way_of_a_keyboard(opened):
    opened.resize(WIDE)
    assert opened.page.evaluate(STOPS) == []


OTHER_LOOKS = [("light", PHONE), ("dark", WIDE), ("dark", PHONE)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("look", "width"), OTHER_LOOKS)
def test_a_page_loads_and_is_open_to_everybody_in_every_look_and_width(site, browser, name, look, width):
    page = Opened(browser, site, name, look, width)
    looks_right(page, look, width)
    assert barriers(page.page, formulas=True) == []
    page.context.close()


@pytest.mark.parametrize("name", drawn(PAGES, 2))
def test_a_drawn_page_is_open_to_everybody_on_a_phone_and_in_the_dark(site, browser, name):
    page = Opened(browser, site, name, "dark", PHONE)
    assert barriers(page.page) == []
    page.context.close()


# Every table of a page: where it and its box lie, which heads end inside the box, and the size of its smallest text.
TABLES = """() => [...document.querySelectorAll('article table')].filter(t => t.offsetWidth > 0).map(table => {
    const box = table.closest('.pst-scrollable-table-container') || table.closest('.gx') || table;
    const edge = box.getBoundingClientRect().right;
    const text = [...table.querySelectorAll('th, td, td *, th *')].filter(e => !e.closest('mjx-container')
        && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
    return {
        boxed: box !== table, right: edge, scrolls: box.scrollWidth > box.clientWidth + 1,
        tabindex: box.getAttribute('tabindex'), role: box.getAttribute('role'), label: box.getAttribute('aria-label'),
        hint: box.previousElementSibling?.matches('p.scroll-hint') ?? false,
        display: getComputedStyle(table).display,
        heads: [...table.querySelectorAll('thead th')].map(th =>
            ({text: th.textContent.trim(), seen: th.getBoundingClientRect().right <= edge + 1})),
        smallest: Math.min(...text.map(e => parseFloat(getComputedStyle(e).fontSize))),
    };
})"""


def must_be_seen(heads: list[dict]) -> list[dict]:
    """The heads of GenCE's own columns, and the verdict: the last column of a comparison."""
    found = [head for head in heads if re.match(r"GenCE\b", head["text"])]
    return found + (heads[-1:] if re.search(r"\bis$|verdict", heads[-1]["text"] if heads else "") else [])


@on_some_pages
def test_tables_scroll_in_their_own_box_and_show_what_they_are_for(opened):
    page = opened.page
    page.evaluate("() => document.querySelectorAll('article details').forEach(d => { d.open = true; })")
    for width in (WIDE, PHONE):
        opened.resize(width)
        for table in page.evaluate(TABLES):
            heads = [head["text"] for head in table["heads"]]
            assert table["boxed"], f"no box around the table {heads}"
            assert table["right"] <= width, heads
            assert table["display"] == "table", "a table that is no table any more is lost to a screen reader"
            assert table["smallest"] >= 13, heads
            if table["scrolls"]:
                assert (table["tabindex"], table["role"], table["hint"]) == ("0", "region", True), heads
                assert table["label"].startswith("Table, scrolls sideways"), heads
            hidden = [head["text"] for head in must_be_seen(table["heads"]) if not head["seen"]]
            assert width < WIDE or hidden == [], f"cut off in {heads}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


@on_some_pages
def test_a_page_fits_a_phone_and_the_dark(opened):
    opened.resize(PHONE)
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    try:
        looks_right(opened, "dark", PHONE)
    finally:
        opened.page.emulate_media(color_scheme="light")


def test_a_table_that_is_cut_off_is_seen(browser):
    page = browser.new_page(viewport={"width": 800, "height": 600})
    cell = "style='min-width: 500px; font-size: 11px'"
    page.set_content(
        f"<article><div class='pst-scrollable-table-container' style='overflow: auto; width: 700px'><table><thead><tr>"
        f"<th {cell}>batch</th><th {cell}>GenCE (sd)</th><th>GenCE is</th></tr></thead></table></div></article>"
    )
    (table,) = page.evaluate(TABLES)
    assert table["scrolls"]
    assert table["smallest"] == 11
    assert [h["seen"] for h in must_be_seen(table["heads"])] == [False, False, False]
    page.close()


def test_tables_with_the_same_heads_have_names_of_their_own(browser):
    page = browser.new_page(viewport={"width": 390, "height": 600})
    table = "<table><thead><tr><th style='min-width: 900px'>loss</th></tr></thead></table>"
    page.set_content(f"<div class='bd-content'><article>{3 * table}</article></div>")
    page.add_style_tag(content=".pst-scrollable-table-container { overflow: auto; width: 300px }")
    page.add_script_tag(path=ROOT / "book" / "_static" / "frames.js")
    page.wait_for_function("document.querySelectorAll('[role=region][tabindex]').length === 3")
    names = page.evaluate("[...document.querySelectorAll('[role=region]')].map(box => box.getAttribute('aria-label'))")
    assert len(set(names)) == 3, names
    page.close()


@pytest.mark.parametrize(
    "opened",
    ["book/index", "book/loss", "book/training_code", "book/reexecute", "book/running"],
    indirect=True,
    scope="module",
)
def test_command_lines_fit_their_box(opened):
    opened.resize(WIDE)
    cut = "() => [...document.querySelectorAll('article pre')].filter(p => p.scrollWidth > p.clientWidth + 1)"
    assert opened.page.evaluate(cut + ".map(p => p.textContent)") == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_solutions_are_folded_with_their_outputs(site, name):
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser", parse_only=SoupStrainer("article"))
    folds = page.select("details.solution")
    assert not page.select("details.solution[open]")
    assert len(page.select("div.tag_solution")) == len(page.select("details.solution div.tag_solution"))
    assert len(folds) >= 1
    for fold in folds:
        assert fold.summary.text.startswith("Solution to exercise ")
        assert fold.select("p, pre")
        assert not fold.select("h1, h2, h3, details.solution")
    assert not [em for em in page.select("article em") if em.text == "Solution."]


def test_a_solution_opens_on_a_click(site, browser):
    page = browser.new_page()
    page.goto(f"{site}/notebooks/idea/why_another_loss.html", wait_until="load")
    fold = page.locator("details.solution").first
    output = fold.locator("div.cell_output").first
    assert not output.is_visible()
    fold.locator("summary").first.click()
    assert output.is_visible()
    page.close()


def test_nothing_is_cut_on_paper(site, browser):
    page = browser.new_page(viewport={"width": 700, "height": 900})  # the text width of A4, in CSS pixels
    page.goto(f"{site}/notebooks/idea/why_another_loss.html", wait_until="load")
    page.emulate_media(media="print")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    cut = """() => [...document.querySelectorAll('article pre, article table, .pst-scrollable-table-container')]
        .filter(e => e.offsetWidth > 0 && (e.getBoundingClientRect().right > 701 || e.scrollWidth > e.clientWidth + 1))
        .map(e => e.textContent.slice(0, 60))"""
    assert page.evaluate(cut) == []
    assert page.locator("details.solution:not([open])").count() == 0, "a solution that is folded is lost on paper"
    page.close()


@on_some_notebooks
def test_a_notebook_page_says_where_its_numbers_come_from_and_shows_all_figures(opened):
    notebook, page = nbformat.read(ROOT / f"{opened.name}.ipynb", as_version=4), opened.page
    described = [m for cell in notebook.cells if "image" in (m := cell.metadata.get("mystnb", {}))]
    line = page.locator("p.freshness").inner_text()
    (chosen,) = (c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    first, last = re.search(r'^seeds = (?:"(\d+)-)?(\d+)', chosen, re.MULTILINE).groups()
    seeds = int(last) if first is None else int(last) - int(first) + 1
    for part in ("laptop tier", f"{seeds} seeds", "cpu", "commit", "fresh"):
        assert part in line
    assert [i.get_attribute("alt") for i in page.locator("article figure img").all()] == [
        d["image"]["alt"] for d in described
    ]
    captions = page.locator("article figure figcaption").all_inner_texts()
    assert len(captions) == len(described)
    assert all(caption.startswith("Fig. ") for caption in captions)
    launch = page.locator("a[href*='mybinder.org'], a[href*='colab.research']")
    assert launch.count() >= 2
    assert page.locator("article table").count() >= 1, "tables in outputs are rendered as tables"


def test_the_landing_page_leads_on_and_theorems_proofs_and_exercises_are_rendered(site, browser):
    page = browser.new_page()
    page.goto(f"{site}/index.html", wait_until="networkidle")
    assert page.url.endswith("/book/index.html")
    page.get_by_role("link", name="Why another loss?").first.click()
    assert page.url.endswith("/notebooks/idea/why_another_loss.html")
    page.goto(f"{site}/book/loss.html", wait_until="networkidle")
    for kind in ("definition", "proposition", "proof", "exercise", "solution"):
        assert page.locator(f"div.{kind}").count() >= 1, kind
    assert page.locator(".eqno").count() >= 2
    page.close()
