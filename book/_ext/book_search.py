"""The search of the book: words as its readers type them, pages that say most about them first, no raw LaTeX.

Sphinx stems "ATS" to the stop word "at" and then finds nothing; it indexes the commands of LaTeX as words; and it ranks
all pages that have a word somewhere alike. Here a word is never stemmed to a stop word, commands that only set type are
no words, and the pages of a word stand in the index in the order of how much of their text it is; `search.js` ranks
by it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.search.en import SearchEnglish

# Commands that only set type. (Names of letters and operators, such as rho and log, are words.)
TYPESETTING = re.compile(
    r"\\(?:(?:begin|end)\{\w+\*?\}|(?:tag|label|notag|nonumber|left|right|big[lrg]?|bigg[lr]?|quad|qquad|phantom|displaystyle|textstyle"
    r"|[dt]?frac|sqrt|sum|prod|int|limits|hat|tilde|bar|overline|underline|underbrace|boldsymbol|math\w+|operatorname"
    r"|text\w*|cdot|times|[lc]?dots|le|leq|ge|geq|ne|neq|in|to|infty|mid|partial|[lr]vert|(?:left|right)arrow)\b)"
)
STEMMER = """
var PlainStemmer = Stemmer;
Stemmer = function () {
  const plain = new PlainStemmer();
  this.stemWord = (word) => {
    const stem = plain.stemWord(word);
    return stopwords.includes(stem) ? word : stem;
  };
};
"""


class BookEnglish(SearchEnglish):
    """English as in this book; the JavaScript below does the same to what a reader types."""

    js_stemmer_code = SearchEnglish.js_stemmer_code + STEMMER

    def split(self, input: str) -> list[str]:
        """Lower-case words, without the commands of LaTeX that set type."""
        return super().split(TYPESETTING.sub(" ", input).lower())

    @cache  # noqa: B019 - there is one of it as long as a build lasts
    def stem(self, word: str) -> str:
        """The stem of a word, or the word itself where its stem says nothing."""
        stem = super().stem(word)
        return word if stem in self.stopwords else stem


PROSE, HEADING, AROUND = 20, 60, 1  # what a word in a table or a program says about its page is little


def weight_of(text: nodes.Text) -> int:
    """How much a word counts where it stands."""
    node = text.parent
    while node is not None:
        if isinstance(node, nodes.title):
            return HEADING
        if isinstance(node, nodes.literal_block | nodes.table):
            return AROUND
        node = node.parent
    return PROSE


def count_words(app, doctree: nodes.document, docname: str) -> None:
    """Count how often each stem occurs on a page, weighted, before the page is written."""
    indexer = getattr(app.builder, "indexer", None)
    if indexer is None:
        return
    counts: Counter[str] = Counter()
    for text in doctree.findall(nodes.Text):
        weight = weight_of(text)
        for word in indexer.lang.split(text.astext()):
            counts[word] += weight
    stems: Counter[str] = Counter()
    for word, count in counts.items():
        stems[indexer.lang.stem(word)] += count
    app.env.book_words = getattr(app.env, "book_words", {})
    app.env.book_words[docname] = stems


def as_list(files: int | list[int] | None) -> list[int]:
    """The pages of a word, which Sphinx writes as a number where there is one."""
    return [] if files is None else [files] if isinstance(files, int) else files


def by_weight(files: set[int], word: str, docnames: list[str], words: dict[str, Counter[str]]) -> list[int]:
    """The pages of a word, the one first that says most about it: its share of the page's words, damped by length."""

    def weight(file: int) -> float:
        page = words.get(docnames[file], Counter())
        return page[word] / max(page.total(), 1) ** 0.75

    return sorted(sorted(files), key=weight, reverse=True)


def _rank(app, exception) -> None:
    path = Path(app.outdir) / "searchindex.js"
    words = getattr(app.env, "book_words", {})
    if exception is not None or app.builder.format != "html" or not words:
        return
    written = path.read_text(encoding="utf-8")
    index = json.loads(written[len("Search.setIndex(") : -1])
    # A word of a heading is a word of the page, too: Sphinx lists the page under one of them only.
    for word in {**index["terms"], **index["titleterms"]}:
        files = {*as_list(index["terms"].get(word)), *as_list(index["titleterms"].get(word))}
        index["terms"][word] = by_weight(files, word, index["docnames"], words)
    index["alltitles"].pop("", None)  # exercises without a title
    path.write_text(f"Search.setIndex({json.dumps(index, ensure_ascii=False)})", encoding="utf-8")


def _load(app, pagename, templatename, context, doctree) -> None:
    if pagename == "search":
        app.add_js_file("search.js")


def setup(app):
    """Connect to Sphinx."""
    app.add_search_language(BookEnglish)
    app.connect("doctree-resolved", count_words)
    app.connect("html-page-context", _load)
    app.connect("build-finished", _rank)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
