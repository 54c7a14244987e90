"""A small server that compresses, like those that publish the book, and pages opened in a browser."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMPRESSED = (".html", ".css", ".js", ".svg", ".json", ".csv", ".txt")


@lru_cache(maxsize=256)
def _compressed(path: str, changed: float) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)


class Compressing(SimpleHTTPRequestHandler):
    """Serve files, text as gzip, on connections that stay open; no line for each request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in COMPRESSED or not path.is_file():
            super().do_GET()
            return
        body = _compressed(str(path), path.stat().st_mtime)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which the files of a folder are served while the block runs."""

    def handler(*arguments):
        return Compressing(*arguments, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


WIDE, PHONE = 1440, 390
SLOW = 120_000  # milliseconds: many formulas on a busy machine
# Wait until all formulas are set; a MathJax that failed to start would keep its promise waiting for ever.
FORMULAS = """limit => Promise.race([
    window.MathJax?.startup?.promise,
    new Promise((_, refuse) => setTimeout(() => refuse(new Error('MathJax does not come to an end')), limit)),
])"""


class Opened:
    """A page in the browser, with what it asked for, what came, and what went wrong while it loaded."""

    def __init__(self, browser, site: str, name: str, look: str = "light", width: int = WIDE) -> None:
        self.name, self.width, self.elsewhere, self.errors, self.came = name, width, [], [], {}
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=look)
        self.context.set_default_timeout(SLOW)
        self.page = page = self.context.new_page()
        page.on(
            "request", lambda r: None if r.url.startswith((site, "data:", "blob:")) else self.elsewhere.append(r.url)
        )
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("response", self.take)
        page.goto(f"{site}/{name}.html", wait_until="load")
        page.evaluate(FORMULAS, SLOW)

    def take(self, response) -> None:
        self.came[response.url] = int(response.headers.get("content-length", 0))
        if response.status >= 400:
            self.errors.append(f"{response.status} {response.url}")

    def resize(self, width: int) -> None:
        if width == self.width:  # a page of many formulas takes seconds to lay out
            return
        self.width = width
        self.page.set_viewport_size({"width": width, "height": 900})
        # Boxes are measured anew when a fold opens and when the window changes, in the frame that draws it.
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


# --- axe-core --------------------------------------------------------------------------------------------------

# WCAG 2.1 A and AA, and what axe counts as good practice. Three rules are on trial there and off unless they are named.
AXE = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]},
    "rules": {name: {"enabled": True} for name in ("label-content-name-mismatch", "td-has-header", "p-as-heading")},
}
# axe looks at each element again and again: a page of 22,000 of them takes minutes. What is alike is looked at once: of
# the words of code one for each colour and ground; and formulas, which are alike, only where `formulas` says so.
# Everything is put back.
THIN = """([options, formulas]) => {
    const away = [];
    const put = (element, other) => { element.replaceWith(other); away.push([other, element]); };
    // First all looks are read, then all is put away: each change makes the browser compute the looks anew.
    const seen = new Set();
    const alike = [...document.querySelectorAll('pre span')].filter(word => {
        if (word.children.length) return false;
        const look = getComputedStyle(word).color + getComputedStyle(word.closest('pre')).backgroundColor;
        const key = look + Boolean(word.closest('details:not([open])'));
        return seen.has(key) || !seen.add(key);
    });
    for (const word of alike) put(word, document.createTextNode(word.textContent));
    if (!formulas)
        for (const formula of document.querySelectorAll('mjx-container')) put(formula, document.createTextNode('x'));
    return window.axe.run(document, options)
        .then(found => found.violations.flatMap(rule => rule.nodes.map(node =>
            `${rule.id} (${rule.impact}): ${node.target.join(' ')} ${node.html.slice(0, 150)}`)))
        .finally(() => { for (const [other, element] of away.reverse()) other.replaceWith(element); });
}"""


def barriers(page, formulas: bool = False) -> list[str]:
    """What axe-core finds on a page that keeps somebody out: the rule, its weight, the element."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    return page.evaluate(THIN, [AXE, formulas])
