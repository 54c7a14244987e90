"""How soon a reader on a slow line sees something, and whether it stays where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from web import SLOW, served

HTML = Path(__file__).resolve().parents[2] / "_build" / "committed" / "html"
LINE = {"offline": False, "latency": 300, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
WATCH = """window.shifted = 0;
new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({type: 'layout-shift', buffered: true});"""
SEEN = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def on_a_slow_line(browser, site: str, name: str) -> dict[str, float]:
    """Milliseconds until something is seen, and the layout shift until all is there, at 1.6 Mbit/s and 300 ms."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(SLOW)
    context.add_init_script(WATCH)
    page = context.new_page()
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", LINE)
    page.goto(f"{site}/{name}.html", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    found = {"seen": page.evaluate(SEEN), "shifted": page.evaluate("window.shifted")}
    context.close()
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["book/index", "notebooks/idea/why_another_loss"])
def test_a_page_is_seen_soon_on_a_slow_line_and_does_not_jump(browser, name):
    with served(HTML) as site:
        found = on_a_slow_line(browser, site, name)
    assert found["seen"] <= 2500
    assert found["shifted"] < 0.05
