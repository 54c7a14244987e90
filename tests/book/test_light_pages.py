"""What is put right on the built pages: style sheets joined, scripts last, images with a size, names and roles."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "committed" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import light_pages  # noqa: E402


@pytest.fixture
def html(tmp_path) -> Path:
    (tmp_path / "_static" / "styles").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    (tmp_path / "_static" / "basic.css").write_text("a { background: url(file.png) }")
    (tmp_path / "_static" / "styles" / "theme.css").write_text(
        '@import "../basic.css";.fa-sun:before,.fa-sol:before{content:"\\f185"}'
        "@font-face{font-family:Font Awesome 6;src:url(fa.woff2)}b { background: url('../c.png'), url(\"data:x\") }"
    )
    return tmp_path


def test_sheets_become_one_with_their_imports_and_addresses_and_without_icons(html):
    written = '<head><link href="../_static/styles/theme.css?digest=1" rel="stylesheet" />\n<title>T</title></head>'
    page = light_pages.with_one_sheet(written, html / "book", html / "_static")
    (name,) = re.findall(r'href="\.\./_static/(book-\w{8}\.css)"', page)
    assert page.count("stylesheet") == 1
    rules = (html / "_static" / name).read_text()
    assert rules == 'a { background: url("file.png") }b { background: url("c.png"), url("data:x") }'


def test_a_page_without_sheets_stays():
    assert light_pages.with_one_sheet("<p>leads on</p>", Path(), Path()) == "<p>leads on</p>"


def test_scripts_stand_last_in_their_order_and_the_index_only_where_one_searches():
    first = '<script data-cfasync="false">look()</script>'
    scripts = '<script src="a.js"></script>\n<script>let b</script>\n<script src="../searchindex.js"></script>\n'
    page = f'<head>{first}\n<link rel="preload" as="script" href="c.js" />\n{scripts}</head><body><p>x</p></body>'
    assert light_pages.with_scripts_last(page, keep_search=False) == (
        f'<head>{first}\n</head><body><p>x</p><script src="a.js"></script>\n<script>let b</script>\n</body>'
    )
    assert 'let b</script>\n<script src="../searchindex.js">' in light_pages.with_scripts_last(page, keep_search=True)


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 782, 451), (782, 451)),
        ("a.svg", b'<svg width="300pt" height="150pt" viewBox="0 0 300 150">', (400, 200)),
        ("b.svg", b'<svg viewBox="0 0 300 150">', (300, 150)),
        ("c.svg", b"<svg>", None),
    ],
)
def test_images_have_their_size_and_wide_ones_a_frame(tmp_path, name, content, size):
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images" / name).write_bytes(content)
    assert light_pages.size_of(tmp_path / "_images" / name) == size
    written = f'<img alt="x" src="_images/{name}" />'
    page = light_pages.with_sized_images(written, tmp_path)
    if size is None:
        assert page == written
    else:
        assert f'width="{size[0]}" height="{size[1]}" loading="lazy"' in page
        assert page.startswith('<div class="figure-frame">') == (size[0] >= light_pages.WIDE)


def test_names_roles_and_cells_are_put_right_and_what_is_gone_is_told():
    page, missing = light_pages.open_to_everybody(
        '<button class="btn search-button-field x" title="Search" aria-label="Search" data-y><th class="head"> </th>'
        '<th></th><thead><th>CE</th><div role="doc-biblioentry"><div id="pst-primary-sidebar" class="z">'
    )
    assert page == (
        '<button class="btn search-button-field x" data-y><th class="head">'
        '<span class="visually-hidden">row</span></th><th><span class="visually-hidden">row</span></th>'
        '<thead><th>CE</th><div role="listitem"><div id="pst-primary-sidebar" role="region" aria-label="Sidebar" class="z">'
    )
    assert len(missing) == 1
    assert "theme-switch" in missing[0]


def test_the_book_carries_one_sheet_a_page_and_little_that_no_page_asks_for():
    for path in light_pages.pages_of_theme(HTML):
        page = path.read_text(encoding="utf-8")
        assert len(re.findall(r'<link[^>]* rel="stylesheet"|<link rel="stylesheet"', page)) == 1, path
        head = page.partition("</head>")[0]
        assert re.findall(r"<script(?! data-cfasync)", head) == [], path
        images = re.findall(r'<img [^>]*src="[^"]*_images/[^>]*>', page)
        assert all("width=" in image and 'loading="lazy"' in image for image in images), path
    size = sum(path.stat().st_size for path in (HTML / "_static").rglob("*") if path.is_file())
    assert size < 6_000_000, "24 MB of MathJax and maps of scripts belong to nobody's visit"
