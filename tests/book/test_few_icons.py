"""The icons of the built pages: those that are shown are there, and the others are not sent to anybody."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "committed" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import few_icons  # noqa: E402


def test_of_a_script_the_icons_stay_that_are_named_also_by_another_name():
    sun, glass = 'sun:[512,512,[],"f185","M1"]', '"magnifying-glass":[512,512,["search"],"f002",["M2","M3"]]'
    script = f'a={{{sun},{glass},car:[1,2,[],"a","M4"]}};b=1'
    assert few_icons.without_others(script, {"sun", "search"}) == f"a={{{sun},{glass}}};b=1"
    assert few_icons.without_others(script, {"car"}) == 'a={car:[1,2,[],"a","M4"]};b=1'
    assert few_icons.without_others(script, set()) == "a={};b=1"


def test_the_book_sends_the_icons_that_its_pages_show_and_few_others():
    script = (HTML / few_icons.SCRIPT).read_text(encoding="utf-8")
    sent = {icon["name"].strip('"') for icon in few_icons.ICON.finditer(script)}
    shown = {
        name
        for page in HTML.rglob("*.html")
        for name in re.findall(r'class="fa[srb]? fa-([a-z-]+)"', page.read_text(encoding="utf-8"))
    }
    assert shown and shown <= sent
    assert len(script) < 100_000
