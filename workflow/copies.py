"""Copies of the book for a class: chapters without solutions, a lab and a homework notebook for each session.

`python workflow/course.py copies` writes them under _build/course/student. The key of an instructor in the environment
(GENCE_COURSE_KEY, set by `make course INSTRUCTOR=key`) adds _build/course/instructor.sealed: solutions and guide.
"""

from __future__ import annotations

import copy
import inspect
import io
import os
import posixpath
import re
import shutil
import subprocess
import textwrap
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import nbformat
import notebook_tools as nb
import yaml
from pydantic import BaseModel
from zoo import ZOO, zoo

from gence.course import EXERCISES
from gence.course.sealed import KEY, seal
from gence.course.submission import BLANK, BLANK_CODE

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "book" / "course"
OUT = ROOT / "_build" / "course"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


class Session(BaseModel, extra="forbid"):
    """What is set in a session, by ids."""

    title: str
    lab: list[str]
    homework: list[str]


@cache
def sessions() -> dict[int, Session]:
    """All of them, by number."""
    written = yaml.safe_load((COURSE / "sessions.yml").read_text(encoding="utf-8"))
    return {number: Session(**one) for number, one in written.items()}


@cache
def others() -> dict[str, dict[str, str]]:
    """Exercises that no program decides: kind, chapter and title by id."""
    return yaml.safe_load((COURSE / "exercises.yml").read_text(encoding="utf-8"))


def kind_of(name: str) -> str:
    """Of an exercise: graded, or the kind that exercises.yml says."""
    return "graded" if name in EXERCISES else others()[name]["kind"]


def title_of(name: str) -> str:
    """Of an exercise, graded or not."""
    return EXERCISES[name].title if name in EXERCISES else others()[name]["title"]


@cache
def steps() -> dict[str, list[str]]:
    """How an exercise that no program decides is marked: a point for each step, by id."""
    return yaml.safe_load((COURSE / "guide.yml").read_text(encoding="utf-8"))


def tagged(cell: nbformat.NotebookNode, kind: Literal["exercise", "solution"]) -> list[str]:
    """The ids in the tags of a cell, as in ``exercise:E23``."""
    tags = cell.metadata.get("tags", [])
    return [tag.removeprefix(f"{kind}:") for tag in tags if tag.startswith(f"{kind}:")]


def is_solution(cell: nbformat.NotebookNode) -> bool:
    return "solution" in cell.metadata.get("tags", []) or bool(tagged(cell, "solution"))


def chapter(path: Path) -> nbformat.NotebookNode:
    """A notebook of the book without its solutions.

    Raises:
        SystemExit: a cell speaks of a solution in another way than all the others.
    """
    notebook = nb.read(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # some hold the end of a solution and the next exercise
            parts = nb.OPENING.split(cell.source)
            cell.source = "".join(part for part in parts if not part.startswith("*Solution.*"))
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip() and not is_solution(cell)]
    for cell in notebook.cells:
        if "Solution" in cell.source:
            raise SystemExit(f"{path.relative_to(ROOT)}: is this a solution? Tag it solution:ID\n{cell.source[:200]}")
    commit = notebook.metadata.get("gence", {}).get("commit")
    kept = {key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(kept | ({"gence": {"commit": commit}} if commit else {}))
    return notebook


def _cell(kind: str, name: str, source: str, *tags: str) -> nbformat.NotebookNode:
    made = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[kind](source, id=name)
    if tags:
        made.metadata["tags"] = list(tags)
    return made


HEAD = """# Session {number}, {kind}: {title}

Write each function below its statement; keep its name. `check` answers as often as you like: it names a property that \
fails, the smallest input that shows it, and what came out on both sides. It knows no solution. \
Where words are asked for, write into the cell *Your answer*. The chapters are in the folder `notebooks` beside this \
notebook, and as pages in the book.

Hand in this notebook, under your name."""


def sheet(number: int, kind: Literal["lab", "homework"]) -> nbformat.NotebookNode:
    """The notebook of a session's lab or homework."""
    session = sessions()[number]
    head = HEAD.format(number=number, kind=kind, title=session.title)
    cells = [_cell("markdown", "head", head), _cell("code", "install", nb.INSTALL, "hide-input")]
    cells.append(_cell("code", "imports", "from gence.course import check", "hide-input"))
    for name in getattr(session, kind):
        cells += graded(name) if name in EXERCISES else in_words(name)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL | {"gence": {"commit": commit()}})
    nb.pin(notebook)
    return notebook


def graded(name: str) -> list[nbformat.NotebookNode]:
    """Statement, stub and check of a graded exercise."""
    exercise = EXERCISES[name]
    function = re.search(r"def (\w+)", exercise.stub)[1]
    text = f"## {name} {exercise.title}\n\n{exercise.statement}\n\n*Read:* {to_chapter(exercise.read)}"
    return [
        _cell("markdown", f"{name}-statement", text, f"exercise:{name}"),
        _cell("code", f"{name}-function", f"{exercise.stub.strip()}\n    # your code", f"function:{name}"),
        _cell("code", f"{name}-check", f'check("{name}", {function})', f"check:{name}"),
    ]


def to_chapter(read: str) -> str:
    """Where the book explains it, as a link to the copy of the chapter; a page that has none is named."""
    title, section, address = re.fullmatch(r'(.+), "(.+)" \((.+)\.html\)', read).groups()
    return f"[{title}]({address}.ipynb), *{section}*" if address.startswith("notebooks/") else f"{title}, *{section}*"


def in_words(name: str) -> list[nbformat.NotebookNode]:
    """Statement of an exercise that a person marks, and a cell for the answer."""
    one = others()[name]
    text = f"## {name} {one['title']}\n\n{statement(name)}"
    kind, blank = ("code", BLANK_CODE) if one["kind"] == "experiment" else ("markdown", BLANK)
    return [
        _cell("markdown", f"{name}-statement", text, f"exercise:{name}"),
        _cell(kind, f"{name}-answer", blank, f"answer:{name}"),
    ]


def statement(name: str) -> str:
    """What an exercise asks for, from the cells of a chapter with its tag."""
    found = list(_of_chapters(name, "exercise"))
    if not found:
        raise SystemExit(f"{name} has no statement: no chapter has a cell tagged exercise:{name}")
    path = found[0][1]
    text = re.sub(r"^\*\*\d+\.\*\* ", "", "\n\n".join(cell.source for cell, _ in found)).strip()
    title = re.match(r"# (.+)", _chapters()[path].cells[0].source)[1]
    return f"{from_top(text, path)}\n\n*From:* [{title}]({path.relative_to(ROOT).as_posix()})"


def from_top(text: str, path: Path) -> str:
    """Links to chapters as they lead from the folder of the copies."""
    here = path.parent.relative_to(ROOT).as_posix()
    return re.sub(r"\]\(([\w./]+\.ipynb)", lambda link: f"]({posixpath.normpath(f'{here}/{link[1]}')}", text)


def _of_chapters(name: str, kind: Literal["exercise", "solution"]) -> Iterator[tuple[nbformat.NotebookNode, Path]]:
    for path, notebook in _chapters().items():
        yield from ((cell, path) for cell in notebook.cells if name in tagged(cell, kind))


@cache
def _chapters() -> dict[Path, nbformat.NotebookNode]:
    return {path: nb.read(path) for path in nb.all_notebooks()}


@cache
def commit() -> str | None:
    """The commit that the copies install; None outside a checkout."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def student_copies(out: Path) -> list[Path]:
    """Write all of them anew; return where."""
    shutil.rmtree(out, ignore_errors=True)
    made = {out / f"session_{n}_{kind}.ipynb": sheet(n, kind) for n in sessions() for kind in ("lab", "homework")}
    made |= {out / "notebooks" / path.relative_to(nb.NOTEBOOKS): chapter(path) for path in nb.all_notebooks()}
    for path, notebook in made.items():
        write(notebook, path)
    return list(made)


# --- for the instructor ----------------------------------------------------------------------------------------


def guide() -> str:
    """Session by session, how each exercise is marked, and its solution."""
    lines = [GUIDE]
    for number, session in sessions().items():
        lines.append(f"# Session {number}: {session.title}")
        for kind in ("lab", "homework"):
            lines.append(f"## {kind.capitalize()}")
            for name in getattr(session, kind):
                if name in EXERCISES:
                    good, wrong = zoo()[name]
                    lines += _graded_guide(name, inspect.getsource(good), [one.mistake for one in wrong])
                else:
                    points = [f"- {step}" for step in steps()[name]]
                    lines += [f"### {name} {others()[name]['title']}", statement(name), "\n".join(points)]
                    lines += [cell.source for cell, _ in _of_chapters(name, "solution") if cell.cell_type == "markdown"]
    return "\n\n".join(lines) + "\n"


GUIDE = """# Guide for marking

Graded exercises: one point where no property fails. The list of marks says how many properties hold before the first
that fails, if you want to give a part. The other exercises: a point for each step below, also where the student takes
another way to it. `solutions/` holds the exercises of the chapters with their solutions, `zoo/` solutions of the graded
ones with the mistakes that were planted, `kill_matrix.md` what refuses each."""


def _graded_guide(name: str, solution: str, mistakes: list[str]) -> list[str]:
    exercise = EXERCISES[name]
    laws = "\n".join(f"- {says}" for says in exercise.laws)
    code = textwrap.dedent(solution).strip().rstrip(",")
    return [
        f"### {name} {exercise.title}",
        exercise.statement,
        f"Properties, in their order:\n\n{laws}",
        f"Mistakes that were planted: {'; '.join(mistakes)}.",
        f"```python\n{code}\n```",
    ]


def solutions(path: Path) -> nbformat.NotebookNode | None:
    """The exercises of a chapter with their solutions; None where it has none."""
    notebook = copy.deepcopy(_chapters()[path])
    notebook.cells = [cell for cell in notebook.cells if is_solution(cell) or tagged(cell, "exercise")]
    return notebook if any(map(is_solution, notebook.cells)) else None


def instructor_files() -> dict[str, str]:
    """What the archive holds, by name."""
    found = {"GUIDE.md": guide(), "kill_matrix.md": (COURSE / "kill_matrix.md").read_text(encoding="utf-8")}
    found |= {f"zoo/{path.name}": path.read_text(encoding="utf-8") for path in sorted(ZOO.glob("*.py"))}
    for path in nb.all_notebooks():
        if (notebook := solutions(path)) is not None:
            found[f"solutions/{path.relative_to(nb.NOTEBOOKS).as_posix()}"] = nbformat.writes(notebook) + "\n"
    return found


def zipped(files: dict[str, str]) -> bytes:
    """The files as one archive, of the same bytes each time."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text.encode(), zipfile.ZIP_DEFLATED)
    return held.getvalue()


def make_copies() -> str:
    """Write the student copies and, if there is a key, the instructor's archive; say what to do with them."""
    key = os.environ.get(KEY)
    sealed = seal(zipped(instructor_files()), key) if key else None  # first: a bad key must not cost the time
    made = student_copies(OUT / "student")
    lines = [f"{len(made)} notebooks without solutions: {OUT / 'student'}"]
    if sealed:
        (OUT / "instructor.sealed").write_bytes(sealed)
        lines += [f"Solutions and guide: {OUT / 'instructor.sealed'}"]
        lines += [f"Open it with: python -m gence.course open {OUT / 'instructor.sealed'} --out instructor"]
    lines += [
        "Next: hand out session_1_lab.ipynb, with the folder notebooks; mark what comes back with"
        " python -m gence.course mark FOLDER --out OUT"
    ]
    return "\n".join(lines)
