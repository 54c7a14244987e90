"""Make the built pages light and open to everybody: what the theme and its extensions write is put right at the end.

Each page loads one style sheet, without Font Awesome's (its script draws the icons); scripts stand at its end, and the
search index only on the search page. Images have a size, so that nothing moves when they come, and come when they are
near. MathJax is loaded in the parts that the book uses. Names, roles and empty cells are what assistive technology
expects. A theme that is written in another way gets a warning here, which fails the build.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

# --- style sheets ----------------------------------------------------------------------------------------------

SHEET = re.compile(r'[ \t]*<link (?=[^>]*rel="stylesheet")[^>]*href="([^":?]*\.css)(?:\?[^"]*)?"[^>]*>\n?')
ICON_RULES = re.compile(
    r'(?:\.fa-[a-z0-9-]+:+before,?)+\{content:"[^"]*"\}|@font-face\{[^}]*Font Awesome[^}]*\}|/\*.*?\*/', re.DOTALL
)
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"');]+)["']?\)?;""")
ADDRESS = re.compile(r"""url\((['"]?)(?!['"]?(?:data|https?|#))([^'")]+)\1\)""")


def joined(sheets: list[Path], static: Path) -> str:
    """The rules of all sheets in their order, for a sheet that lies in `static`."""

    def moved(sheet: Path) -> str:
        def address(found: re.Match[str]) -> str:
            return f'url("{os.path.relpath(sheet.parent / found[2], static)}")'

        def imported(found: re.Match[str]) -> str:
            return moved(sheet.parent / found[1])

        return IMPORT.sub(imported, ADDRESS.sub(address, ICON_RULES.sub("", sheet.read_text(encoding="utf-8"))))

    return "\n".join(map(moved, sheets))


def with_one_sheet(page: str, folder: Path, static: Path) -> str:
    """The page with one style sheet for all that it names; `folder` is where the page lies."""
    names = [name for name in SHEET.findall(page) if "thebe" not in name]
    sheets = [folder / name for name in names]
    if not sheets:
        return page
    key = "\n".join(os.path.relpath(sheet, static) + str(sheet.stat().st_mtime_ns) for sheet in sheets)
    target = static / f"book-{hashlib.sha256(key.encode()).hexdigest()[:8]}.css"
    if not target.exists():
        target.write_text(joined(sheets, static), encoding="utf-8")
    link = f'<link rel="stylesheet" href="{os.path.relpath(target, folder)}" />\n'
    first = SHEET.search(page).start()
    return page[:first] + link + SHEET.sub("", page[first:])


# --- scripts ---------------------------------------------------------------------------------------------------

SCRIPT = re.compile(r"[ \t]*<script(?! data-cfasync)[^>]*>.*?</script>\n?", re.DOTALL)
PRELOAD = re.compile(r'[ \t]*<link rel="preload" as="script"[^>]*>\n?')
SEARCH = re.compile(r'src="[^"]*(?:searchtools|language_data|searchindex)\.js')


def with_scripts_last(page: str, keep_search: bool) -> str:
    """The page with the scripts of its head at its end, in their order; those of the search only where they search."""
    head, end, body = page.partition("</head>")
    scripts = [found.strip() for found in SCRIPT.findall(head) if keep_search or not SEARCH.search(found)]
    head = PRELOAD.sub("", SCRIPT.sub("", head))
    return f"{head}{end}{body}".replace("</body>", "\n".join(scripts) + "\n</body>")


# MathJax without its menu (which makes each formula a tab stop, and is a third of it): the parts that set formulas.
MATHJAX = ("core", "input/tex", "output/chtml", "a11y/assistive-mml")
MATHJAX_FILES = {"startup.js", "output/chtml/fonts/tex.js", *(f"{part}.js" for part in MATHJAX)}
MATHJAX_FOLDERS = ("input/tex/extensions", "output/chtml/fonts/woff-v2")


def thin_mathjax(folder: Path) -> None:
    """Delete the parts of MathJax that no page asks for: 23 of 24 MB."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        inside = path.relative_to(folder).as_posix()
        if inside not in MATHJAX_FILES and not inside.startswith(MATHJAX_FOLDERS):
            path.unlink()
    missing = sorted(inside for inside in MATHJAX_FILES if not (folder / inside).is_file())
    if missing:
        LOGGER.warning("light_pages: this MathJax has no %s", ", ".join(missing))
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _light_mathjax(app, config) -> None:
    config.mathjax_path = "mathjax/startup.js"
    ours = dict(config.mathjax3_config or {})
    ours["loader"] = {"load": list(MATHJAX)}
    ours["startup"] = {"input": ["tex"], "output": "chtml"}
    ours["options"] = {**ours.get("options", {}), "enableMenu": False, "enableAssistiveMml": True}
    config.mathjax3_config = ours


# --- images ----------------------------------------------------------------------------------------------------

IMAGE = re.compile(r'<img (?P<rest>[^>]*?src="(?P<source>[^":]*_images/[^"]*)"[^>]*?)\s*/?>')
WIDE = 560  # pixels: an image as wide as this is no good on a phone when it is made to fit


def size_of(image: Path) -> tuple[int, int] | None:
    """Width and height in CSS pixels of a PNG or SVG; None for other files."""
    if image.suffix == ".png":
        return struct.unpack(">II", image.read_bytes()[16:24])
    box = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', image.read_text(encoding="utf-8")[:4000])
    unit = 4 / 3 if box and re.search(r'<svg[^>]* width="[\d.]+pt"', image.read_text(encoding="utf-8")[:4000]) else 1
    return (round(float(box[1]) * unit), round(float(box[2]) * unit)) if box else None


def thin_images(folder: Path) -> None:
    """Give large PNGs a palette of 256 colours: half the bytes, and figures of lines, points and tiles lose nothing."""
    for path in sorted(folder.glob("*.png")):
        if path.stat().st_size < 15_000:
            continue
        with Image.open(path) as image:
            thin = image.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        thin.save(packed, format="PNG", optimize=True)
        if packed.tell() < path.stat().st_size:
            path.write_bytes(packed.getvalue())


def with_sized_images(page: str, folder: Path) -> str:
    """The page with sizes of its images, which load when they come near; wide ones get a frame to scroll in."""

    def sized(found: re.Match[str]) -> str:
        size = size_of(folder / found["source"])
        if size is None or "width=" in found["rest"]:
            return found[0]
        image = f'<img {found["rest"]} width="{size[0]}" height="{size[1]}" loading="lazy" decoding="async"/>'
        return f'<div class="figure-frame">{image}</div>' if size[0] >= WIDE else image

    return IMAGE.sub(sized, page)


# --- assistive technology --------------------------------------------------------------------------------------

# What is written, what it becomes, and whether every page has it.
PUT_RIGHT = (
    # The visible words of a button are its name.
    (r'(<button class="btn search-button-field[^>]*?) title="Search" aria-label="Search"', r"\1", True),
    (r'<summary aria-label="Toggle hidden content">', "<summary>", False),
    (r'(<i class="theme-switch[^>]*?) title="[^"]*"', r"\1", True),
    # All that can be seen lies in a landmark.
    (r'<div id="pst-primary-sidebar"', r'<div id="pst-primary-sidebar" role="region" aria-label="Sidebar"', True),
    # Every column has a head that can be heard: the one without a word names the rows.
    (r"<th((?:\s[^>]*)?)>\s*(?:<p>\s*</p>\s*)?</th>", r'<th\1><span class="visually-hidden">row</span></th>', False),
    # A list has items. (docutils gives the entries a role that is deprecated, and that is none of an item.)
    (r' role="doc-biblioentry"', r' role="listitem"', False),
    # A formula is a box, and a line may break behind a box: what ends the sentence stays with it.
    (
        r'(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:?!)\u2019]+)',
        r'<span class="keep-together">\1\2</span>',
        False,
    ),
)


def open_to_everybody(page: str) -> tuple[str, list[str]]:
    """The page put right, and what was expected on it and not found."""
    missing = []
    for written, becomes, everywhere in PUT_RIGHT:
        page, count = re.subn(written, becomes, page)
        if everywhere and count == 0:
            missing.append(written)
    return page, missing


# --- all of it -------------------------------------------------------------------------------------------------


def pages_of_theme(html: Path) -> Iterator[Path]:
    """The pages that the theme wrote; not those that only lead on to another one."""
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.relative_to(html).parts and 'id="pst-primary-sidebar"' in path.read_text("utf-8"):
            yield path


def finish(html: Path) -> list[str]:
    """Rewrite all pages under `html`; return what was expected on them and not found."""
    static, wrong = html / "_static", []
    for path in pages_of_theme(html):
        page, missing = open_to_everybody(path.read_text(encoding="utf-8"))
        page = with_sized_images(page, path.parent)
        page = with_scripts_last(with_one_sheet(page, path.parent, static), path.name == "search.html")
        path.write_text(page, encoding="utf-8")
        wrong += [f"{PurePosixPath(path.relative_to(html))}: {pattern}" for pattern in missing]
    thin_mathjax(static / "mathjax")
    thin_images(html / "_images")
    for path in static.rglob("*.map"):
        path.unlink()
    shutil.rmtree(static / "vendor" / "fontawesome", ignore_errors=True)
    return wrong


def _finish(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        for line in finish(Path(app.outdir)):
            LOGGER.warning("light_pages: the theme is written in another way now. Not found on %s", line)


def setup(app):
    """Connect to Sphinx: last of all, when the files of the others lie where they belong."""
    app.connect("config-inited", _light_mathjax, priority=900)
    app.connect("build-finished", _finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
