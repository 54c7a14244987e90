"""How soon a reader on a slow line sees something, and whether it stays where it is."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from web import SLOW, served

HTML = Path(__file__).resolve().parents[2] / "_build" / "committed" / "html"
LINE = {"offline": False, "latency": 300, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
WATCH = """window.shifted = 0;
new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({type: 'layout-shift', buffered: true});"""
LOADED = """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .reduce((sum, entry) => sum + entry.transferSize, 0)"""
SEEN = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def on_a_slow_line(browser, site: str, name: str) -> dict[str, float]:
    """Milliseconds until something is seen, layout shift and bytes until all is there, at 1.6 Mbit/s and 300 ms."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(SLOW)
    context.add_init_script(WATCH)
    page = context.new_page()
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", LINE)
    page.goto(f"{site}/{name}.html", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    found = {"seen": page.evaluate(SEEN), "shifted": page.evaluate("window.shifted"), "bytes": page.evaluate(LOADED)}
    context.close()
    return found


def heaviest(n: int) -> list[str]:
    """The pages whose compressed text is longest; images below the first screen come when a reader nears them."""
    size = {path: len(gzip.compress(path.read_bytes(), 6)) for path in HTML.glob("notebooks/*/*.html")}
    return [str(path.relative_to(HTML).with_suffix("")) for path in sorted(size, key=size.__getitem__)[-n:]]


@pytest.mark.thorough
def test_the_first_and_the_heaviest_pages_are_seen_soon_on_a_slow_line_and_do_not_jump(browser):
    with served(HTML) as site:
        for name in ["book/index", "notebooks/idea/why_another_loss", *heaviest(5)]:
            found = on_a_slow_line(browser, site, name)
            print(f"{name}: {found['seen']:.0f} ms, shift {found['shifted']:.3f}, {found['bytes'] / 1e6:.2f} MB")
            assert found["bytes"] <= 1e6, name
            assert found["seen"] <= 2500, name
            assert found["shifted"] < 0.05, name
