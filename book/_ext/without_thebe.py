"""Leave out the scripts of sphinx-thebe, which Jupyter Book always loads.

The book offers no kernel inside the page. Its scripts name another host, and declare their constants twice, which
every reader's console reports as an error.
"""

from __future__ import annotations


def _drop_thebe(app, pagename, templatename, context, doctree) -> None:
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{script.filename or ''} {script.attributes.get('body', '')}".lower()
    ]


def setup(app):
    """Connect to Sphinx."""
    app.connect("html-page-context", _drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
