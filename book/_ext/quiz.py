"""Questions that are answered with probabilities: ``{quiz}`` writes them out, quiz.js lets the reader answer.

All questions lie in book/course/quizzes.yml. What stands here is the page as it is without JavaScript and on paper: the
question, its options, and the answer in a fold.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from pydantic import BaseModel, Field, model_validator

COURSE = Path("book", "course")


class Option(BaseModel, extra="forbid"):
    """An answer to choose; a wrong one names the misconception of who takes it."""

    text: str = Field(min_length=1)
    why: str = Field(min_length=10)
    misconception: str | None = Field(default=None, min_length=3)


class Question(BaseModel, extra="forbid"):
    """A question with one right option."""

    id: str = Field(pattern=r"^Q\d{2}$")
    objectives: list[str] = Field(min_length=1)
    claims: list[str]
    stem: str = Field(min_length=10)
    options: list[Option] = Field(min_length=3, max_length=4)

    @model_validator(mode="after")
    def _one_is_right(self) -> Question:
        right = [option.text for option in self.options if option.misconception is None]
        if len(right) != 1:
            raise ValueError(
                f"{self.id} has {len(right)} options without a misconception: {right}. The right option has none, "
                "and each wrong one names its own"
            )
        return self

    @property
    def right(self) -> int:
        """The place of the right option, from 0."""
        return next(place for place, option in enumerate(self.options) if option.misconception is None)

    @property
    def session(self) -> int:
        """The session of the course that asks it: that of its first objective."""
        return int(self.objectives[0][1])


def questions(root: Path) -> list[Question]:
    """All questions, for the folder in which the book lies."""
    return [Question(**one) for one in _read(root / COURSE / "quizzes.yml")]


def sections(root: Path) -> dict[str, tuple[str, str]]:
    """Page and heading of each objective."""
    written = _read(root / COURSE / "objectives.yml")
    return {one["id"]: tuple(one["section"].split("#", 1)) for one in written}


@cache
def _parsed(path: Path, changed: float) -> list[dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _read(path: Path) -> list[dict]:
    return _parsed(path, path.stat().st_mtime)


def asked(wanted: list[str], session: int | None, known: list[Question]) -> list[Question]:
    """The questions with these ids and those of a session; ValueError for an id that no question has."""
    by_id = {question.id: question for question in known}
    for name in wanted:
        if name not in by_id:
            near = ", ".join(get_close_matches(name, by_id)) or f"{min(by_id)} to {max(by_id)}"
            raise ValueError(f"there is no question {name!r}: try {near}")
    found = [by_id[name] for name in wanted] + [question for question in known if question.session == session]
    if not found:
        raise ValueError("name questions by their ids, or the session whose questions you want (:session: 1 to 6)")
    return found


# --- the page --------------------------------------------------------------------------------------------------


class quiz_element(nodes.General, nodes.TextElement):
    """An HTML element that docutils has no node for: `tag`, and its attributes as a dict in `html`.

    It holds text, or others of its kind: Sphinx lets links stand in a TextElement only.
    """


def element(tag: str, *children: nodes.Node, **html: str | list[str]) -> quiz_element:
    """An element; underscores in names of attributes stand for hyphens, one at the end is left out."""
    attributes = {name.rstrip("_").replace("_", "-"): value for name, value in html.items()}
    return quiz_element("", "", *children, tag=tag, html=attributes)


class Quiz(Directive):
    """``{quiz} Q01 Q02`` or, with ``:session: 2``, all questions of a session."""

    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"session": directives.nonnegative_int}

    def run(self) -> list[nodes.Node]:
        """Return a block for each question."""
        env = self.state.document.settings.env
        root = Path(env.srcdir)
        for name in ("quizzes.yml", "objectives.yml"):
            env.note_dependency(str(root / COURSE / name))
        try:
            found = asked(" ".join(self.arguments).split(), self.options.get("session"), questions(root))
        except ValueError as error:
            raise self.error(str(error)) from error
        where = sections(root)
        return [self.block(question, where) for question in found]

    def words(self, text: str) -> list[nodes.Node]:
        """Inline nodes of one paragraph of MyST."""
        holder = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source="quizzes.yml"), 0, holder)
        return [part for paragraph in holder.children for part in paragraph.children]

    def block(self, question: Question, where: dict[str, tuple[str, str]]) -> quiz_element:
        """The question, its options, and its answer in a fold."""
        number = nodes.strong("", f"{question.id} ")
        options = (element("li", element("label", *self.words(option.text))) for option in question.options)
        fields = element(
            "fieldset",
            element("legend", number, *self.words(question.stem)),
            element("ol", *options, type="A"),
        )
        # The letters of the list are drawn by the browser; here they are written.
        reasons = [self.reason(letter, option) for letter, option in zip("ABCD", question.options, strict=False)]
        answer = element(
            "details",
            element("summary", nodes.Text("Answer")),
            element("ul", *reasons),
            element("p", *self.words(self.again(question, where)), class_="quiz-again"),
        )
        return element(
            "div", fields, answer, class_="quiz", ids=[f"quiz-{question.id}"],
            data_question=question.id, data_right=str(question.right),
        )  # fmt: skip

    def reason(self, letter: str, option: Option) -> quiz_element:
        """Why an option is right, or what it mistakes for what."""
        verdict = "right. " if option.misconception is None else f"{option.misconception}. "
        kind = "quiz-right" if option.misconception is None else "quiz-wrong"
        return element("li", nodes.strong("", f"{letter}, {verdict}"), *self.words(option.why), class_=kind)

    def again(self, question: Question, where: dict[str, tuple[str, str]]) -> str:
        """Where to read again, and the claims on which the answer rests, as MyST."""
        places = dict.fromkeys(where[objective] for objective in question.objectives)
        text = "Read again: " + "; ".join(f"{{doc}}`/{page}`, *{heading}*" for page, heading in places) + "."
        claims = ", ".join(f"`{claim}`" for claim in question.claims)
        return text + (f" In the {{doc}}`ledger </book/claims>`: {claims}." if claims else "")


class QuizResults(Directive):
    """``{quiz-results}``: the place of the reader's own scores."""

    def run(self) -> list[nodes.Node]:
        """Return the place, with a line for who reads without JavaScript."""
        says = nodes.Text("Your scores are computed in your browser, which needs JavaScript. The answers do not.")
        return [element("div", element("p", says), class_="quiz-results")]


def _open(self, node: quiz_element) -> None:
    self.body.append(self.starttag({}, node["tag"], "", **node["html"]))


def _close(self, node: quiz_element) -> None:
    self.body.append(f"</{node['tag']}>\n")


def _pass(self, node: quiz_element) -> None:
    """Other builders write what is inside."""


def _add_script(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None and any(node["tag"] == "div" for node in doctree.findall(quiz_element)):
        app.add_js_file("quiz.js", loading_method="defer")


def setup(app):
    """Connect to Sphinx."""
    others = {name: (_pass, _pass) for name in ("latex", "text", "man", "texinfo")}
    app.add_node(quiz_element, html=(_open, _close), **others)
    app.add_directive("quiz", Quiz)
    app.add_directive("quiz-results", QuizResults)
    app.connect("html-page-context", _add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
