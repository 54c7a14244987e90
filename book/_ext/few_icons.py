"""Keep of Font Awesome the icons that some page shows: the theme loads all 2,000 of them, half the weight of a page."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.util import logging

SCRIPT = Path("_static", "scripts", "fontawesome.js")
# name:[width,height,[other names],"code","path" or ["path","path"]]
ICON = re.compile(
    r'(?P<name>"[a-z0-9-]+"|[a-z0-9]+):\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]*",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)
USED = re.compile(r"\bfa-([a-z0-9-]+)")


def names_used(html: Path) -> set[str]:
    """The icons that pages and scripts name, and some more: words like fa-spin look alike."""
    files = [path for kind in ("html", "js") for path in html.rglob(f"*.{kind}") if path != html / SCRIPT]
    return {name for path in files for name in USED.findall(path.read_text(encoding="utf-8", errors="ignore"))}


def without_others(script: str, used: set[str]) -> str:
    """The script without the icons that nobody uses."""

    def kept(icon: re.Match[str]) -> str:
        names = {icon["name"].strip('"'), *re.findall(r'"([^"]+)"', icon["others"])}
        return icon[0] if names & used else ""

    return re.sub(r",\}", "}", ICON.sub(kept, script))


def _thin(app, exception) -> None:
    html = Path(app.outdir)
    if exception is not None or app.builder.format != "html" or not (html / SCRIPT).is_file():
        return
    script = (html / SCRIPT).read_text(encoding="utf-8")
    thinned = without_others(script, names_used(html))
    if len(thinned) > len(script) / 2:
        logging.getLogger(__name__).warning("few_icons: Font Awesome is written in another way now; all icons stay")
        return
    (html / SCRIPT).write_text(thinned, encoding="utf-8")


def setup(app):
    """Connect to Sphinx."""
    app.connect("build-finished", _thin)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
