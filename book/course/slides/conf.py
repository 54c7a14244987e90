"""How Sphinx makes the decks (workflow/slides.py calls it); the book's own settings are in _config.yml."""

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
BOOK = yaml.safe_load((HERE.parents[2] / "_config.yml").read_text(encoding="utf-8"))

project = BOOK["title"]
author = BOOK["author"]
language = "en"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx-mathjax-offline"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
mathjax3_config = {
    **BOOK["sphinx"]["config"]["mathjax3_config"],
    "options": {"enableMenu": False},  # with it each formula is a stop of the keyboard
}

revealjs_html_theme = "revealjs-simple"  # the other one forbids readers to zoom
revealjs_style_theme = "white"
revealjs_static_path = [str(HERE / "static")]
revealjs_css_files = ["deck.css"]
revealjs_script_files = ["deck.js"]
revealjs_script_plugins = [{"src": "revealjs/plugin/notes/notes.js", "name": "RevealNotes"}]
revealjs_script_conf = {
    "width": 1280,
    "height": 720,
    "margin": 0,
    "center": False,
    "hash": True,
    "slideNumber": "c/t",
    "transition": "none",
    "pdfSeparateFragments": False,
}
