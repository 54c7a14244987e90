"""Copies for a class: no solution in them, the same bytes each time; the instructor's archive; exports."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from gence.course import EXERCISES, sealed
from gence.course.__main__ import main
from gence.course.submission import BLANK, BLANK_CODE, asked, read

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import copies  # noqa: E402
import exports  # noqa: E402
import notebook_tools as nb  # noqa: E402
import zoo  # noqa: E402

KINDS = ("lab", "homework")
KEY = "four quite unusual words"


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("copies") / "student"
    copies.student_copies(out)
    return out


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_every_exercise_of_the_course_is_set_once():
    set_ = [name for session in copies.sessions().values() for kind in KINDS for name in getattr(session, kind)]
    assert len(set_) == len(set(set_))
    assert set(EXERCISES) <= set(set_)
    by_hand = set(set_) - set(EXERCISES)
    assert by_hand <= set(copies.others())
    assert list(copies.sessions()) == [1, 2, 3, 4, 5, 6]
    assert set(copies.steps()) == by_hand, "each has its steps in guide.yml, and no other"
    assert all(len(steps) >= 3 for steps in copies.steps().values())


def test_copies_are_the_same_bytes_each_time(student, tmp_path):
    copies.student_copies(tmp_path)
    first, again = bytes_of(student), bytes_of(tmp_path)
    assert first == again
    chapters = {f"notebooks/{path.relative_to(nb.NOTEBOOKS).as_posix()}" for path in nb.all_notebooks()}
    assert set(first) == chapters | {f"session_{n}_{kind}.ipynb" for n in range(1, 7) for kind in KINDS}


def lines_of(text: str) -> set[str]:
    """The lines of a text that say something of their own."""
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return {line for line in lines if len(line) > 20 and not line.startswith(("#", "import ", "from ", '"""', "def "))}


def words_of(found: object) -> str:
    """All text in what JSON holds, wherever it stands."""
    said: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                said.append(str(key))
                walk(value)
        elif isinstance(node, list) and all(isinstance(line, str) for line in node):
            said.append("".join(node))
        elif isinstance(node, list):
            for value in node:
                walk(value)
        else:
            said.append(str(node))

    walk(found)
    return "\n".join(said)


def everything(path: Path) -> str:
    return re.sub(r"\s+", " ", words_of(json.loads(path.read_bytes())))


def apart(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """The solutions of a chapter, text, code and output; and the rest of it.

    What a solution is, is seen here without the tags that the copies go by: code before a text that begins with
    *Solution.*, and that text up to the next exercise.
    """
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    mine, rest = [], []
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "code":
            ends = after is not None and after.cell_type == "markdown" and after.source.startswith("*Solution.*")
            (mine if ends or "solution" in cell.metadata.get("tags", []) else rest).append(words_of(cell))
        else:
            for part in nb.OPENING.split(cell.source):
                (mine if part.startswith("*Solution.*") else rest).append(part)
    return "\n".join(mine), re.sub(r"\s+", " ", "\n".join(rest))


def zoo_lines() -> set[str]:
    return {line for path in zoo.ZOO.glob("*.py") for line in lines_of(path.read_text(encoding="utf-8"))}


def guide_lines() -> set[str]:
    return {line for steps in copies.steps().values() for step in steps for line in lines_of(step)}


def test_no_solution_is_left_in_cells_metadata_or_outputs(student):
    planted = zoo_lines() | guide_lines()
    assert len(planted) > 400
    for path in student.glob("*.ipynb"):
        text = everything(path)
        assert [line for line in planted if line in text] == [], path.name
        assert "solution:" not in text and "*Solution.*" not in text
    found = 0
    for original in nb.all_notebooks():
        solutions, rest = apart(nb.read(original))
        # What the chapter itself shows elsewhere is no secret.
        lines = {line for line in lines_of(solutions) | planted if line not in rest}
        found += len(lines - planted)
        copy = student / "notebooks" / original.relative_to(nb.NOTEBOOKS)
        text = everything(copy)
        assert [line for line in lines if line in text] == [], original.name
        assert "solution:" not in text and "*Solution.*" not in text
        assert not any(copies.is_solution(cell) for cell in nb.read(copy).cells)
    assert found > 500


def test_a_solution_that_is_not_tagged_is_seen(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("**1.** Why? *Solution:* so.")])
    path = copies.ROOT / "notebooks" / "mixed.ipynb"
    monkeypatch.setattr(nb, "read", lambda _: notebook)
    with pytest.raises(SystemExit, match=r"notebooks/mixed.ipynb: is this a solution"):
        copies.chapter(path)


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("kind", KINDS)
def test_a_sheet_is_a_notebook_that_installs_and_asks(student, number, kind):
    path = student / f"session_{number}_{kind}.ipynb"
    sheet = nb.read(path)
    nbformat.validate(sheet)
    assert [nb.installs(cell) for cell in sheet.cells].index(True) == 1
    assert f"!git checkout -q {copies.commit()}" in sheet.cells[1].source
    wanted = getattr(copies.sessions()[number], kind)
    checked, by_hand = asked(read(path))
    assert checked | by_hand == set(wanted)
    assert checked == set(wanted) & set(EXERCISES)
    for name in wanted:
        mine = [cell for cell in sheet.cells if f"exercise:{name}" in cell.metadata.get("tags", [])]
        assert len(mine) == 1
        title = EXERCISES[name].title if name in EXERCISES else copies.others()[name]["title"]
        assert mine[0].source.startswith(f"## {name} {title}\n\n")
        assert len(mine[0].source) > 120
    blanks = [
        cell.source for cell in sheet.cells if any(t.startswith("answer:") for t in cell.metadata.get("tags", []))
    ]
    assert len(blanks) == len(by_hand) and set(blanks) <= {BLANK, BLANK_CODE}


def test_links_of_a_sheet_lead_to_the_chapters_beside_it(student):
    text = copies.from_top("[a](x.ipynb), [b](../proper/y.ipynb#z)", ROOT / "notebooks" / "batch" / "w.ipynb")
    assert text == "[a](notebooks/batch/x.ipynb), [b](notebooks/proper/y.ipynb#z)"
    for path in student.glob("*.ipynb"):
        for cell in nb.read(path).cells:
            for link in re.findall(r"\]\(([^)#]+\.ipynb)", cell.source):
                assert (student / link).exists(), f"{path.name}: {link}"
            assert ".html)" not in cell.source, f"{path.name}: a page that is not beside it\n{cell.source}"


def test_a_sheet_as_it_is_runs_and_is_not_yet_right(student):
    space: dict[str, object] = {}
    answers = []
    for cell in nb.code_cells(nb.read(student / "session_6_lab.ipynb")):
        tree = ast.parse(nb.without_magics(cell.source))
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
            answers.append(str(eval(cell.source, space)))
        else:
            exec(compile(tree, "cell", "exec"), space)
    assert len(answers) == 4
    assert all("not yet" in answer and "not written yet" in answer for answer in answers)


def test_the_numbers_in_the_guide_are_those_of_the_exercise():
    q = np.array([1 / 2, 1 / 4, 1 / 4])
    forecasts = np.array([q, [4 / 5, 1 / 10, 1 / 10], [1 / 3] * 3])
    prices = [-np.log(forecasts), ((forecasts[:, None] - np.eye(3)) ** 2).sum(2), 1 - forecasts]
    for table, step in zip(prices, copies.steps()["E01"], strict=False):
        assert [f"{x:.3f}" for x in table @ q] == re.findall(r"\d\.\d{3}", step)[:3]


# --- the instructor's archive ----------------------------------------------------------------------------------


def test_the_archive_holds_a_solution_or_a_guide_for_each_exercise():
    files = copies.instructor_files()
    guide = files["GUIDE.md"]
    for session in copies.sessions().values():
        for name in (*session.lab, *session.homework):
            assert f"### {name} " in guide
    assert all(step in guide for steps in copies.steps().values() for step in steps)
    assert all(f"zoo/{path.name}" in files for path in zoo.ZOO.glob("*.py"))
    original = nb.read(nb.NOTEBOOKS / "proper" / "proper_losses.ipynb")
    text = files["solutions/proper/proper_losses.ipynb"]
    assert all(json.dumps(line)[1:-1] in text for cell in original.cells if copies.is_solution(cell)
               for line in cell.source.splitlines())  # fmt: skip
    assert copies.zipped(files) == copies.zipped(copies.instructor_files())


def test_the_archive_opens_with_its_key_and_with_no_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cryptography", reason="the archive needs cryptography: pip install 'gence[course]'")
    archive = tmp_path / "instructor.sealed"
    content = copies.zipped({"GUIDE.md": "the way", "zoo/a.py": "x = 1"})
    archive.write_bytes(sealed.seal(content, KEY))
    assert b"the way" not in archive.read_bytes() and b"GUIDE" not in archive.read_bytes()
    assert archive.read_bytes() != sealed.seal(content, KEY), "a salt of its own each time"
    monkeypatch.setenv(sealed.KEY, KEY)
    assert main(["open", str(archive), "--out", str(tmp_path / "opened")]) == 0
    assert (tmp_path / "opened" / "GUIDE.md").read_text() == "the way"
    assert "begin with" in capsys.readouterr().out
    for key, out, says in (
        (KEY, "opened", "is there already: name a new folder"),
        (f"{KEY}!", "other", "another key closed"),
        ("short", "other", "the key has 5 characters: take 16 or more"),
    ):
        monkeypatch.setenv(sealed.KEY, key)
        with pytest.raises(SystemExit):
            main(["open", str(archive), "--out", str(tmp_path / out)])
        assert says in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_without_the_package_or_with_a_short_key_nothing_is_sealed(monkeypatch):
    with pytest.raises(ValueError, match="the key has 3 characters: take 16 or more, for example four unusual words"):
        sealed.seal(b"", "abc")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ImportError, match=r"needs the package cryptography: pip install 'gence\[course\]'"):
        sealed.seal(b"", KEY)


def test_the_command_writes_copies_and_with_a_key_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "OUT", tmp_path)
    monkeypatch.delenv(sealed.KEY, raising=False)
    said = copies.make_copies()
    assert (tmp_path / "student" / "session_1_lab.ipynb").exists() and not (tmp_path / "instructor.sealed").exists()
    assert "Next: hand out" in said
    pytest.importorskip("cryptography", reason="the archive needs cryptography: pip install 'gence[course]'")
    monkeypatch.setenv(sealed.KEY, KEY)
    monkeypatch.setattr(copies, "student_copies", lambda out: [])
    assert "instructor.sealed --out" in copies.make_copies()
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["open", str(tmp_path / "instructor.sealed"), "--out", str(tmp_path / "opened")])
    assert (tmp_path / "opened" / "GUIDE.md").read_text(encoding="utf-8") == copies.guide()


# --- exports ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", exports.KINDS)
def test_an_export_asks_what_the_sheet_asks_and_holds_no_solution(tmp_path, monkeypatch, to):
    monkeypatch.setattr(copies, "OUT", tmp_path)
    assert exports.NEXT[to] in exports.export(to)
    made = list((tmp_path / to).rglob("*.ipynb"))
    assert len(made) == 12
    planted = zoo_lines() | guide_lines()
    for path in made:
        nbformat.validate(nb.read(path))
        text = everything(path)
        assert [line for line in planted if line in text] == []
        number, kind = re.fullmatch(r"session_(\d)_(\w+)", path.stem).groups()
        checked, by_hand = asked(read(path))
        assert checked | by_hand == set(getattr(copies.sessions()[int(number)], kind))


def test_nbgrader_sees_points_and_solutions_where_they_are(tmp_path):
    sheet = exports.nbgrader(copies.sheet(1, "lab"), "session_1_lab")
    about = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader for cell in sheet.cells if "nbgrader" in cell.metadata
    }
    assert about["E02-function"].solution and not about["E02-function"].grade
    assert about["E02-check"].grade and about["E02-check"].locked and about["E02-check"].points == 1
    assert about["E01-answer"].grade and about["E01-answer"].points == len(copies.steps()["E01"])


def tool(name: str) -> list[str]:
    """How to start another grader: the one in $GENCE_OTTER or $GENCE_NBGRADER, or the one on the path."""
    found = os.environ.get(f"GENCE_{name.upper()}") or shutil.which(name)
    if not found:
        pytest.skip(
            f"{name} is not installed. In a virtual environment of its own, with gence in it: GENCE_{name.upper()}=..."
        )
    return [found]


def filled(path: Path, functions: dict[str, str], to: Path) -> None:
    """The student's version with these functions in place of the stubs."""
    notebook = nb.read(path)
    for cell in notebook.cells:
        for name, source in functions.items():
            if cell.cell_type == "code" and cell.source.lstrip().startswith(f"def {name}("):
                cell.source = source
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(nbformat.writes(notebook), encoding="utf-8")


PRICE = """def price(entropy, gradient, p, label):
    g = gradient(p)
    return entropy(p) + g[label] - sum(a * b for a, b in zip(g, p))"""
WRONG_PRICE = "def price(entropy, gradient, p, label):\n    return entropy(p)"


def taken(to: str, tmp_path: Path, monkeypatch) -> tuple[Path, dict[str, str]]:
    """The exports in a folder of their own, and an environment in which the tool finds gence, and its own commands."""
    monkeypatch.setattr(copies, "OUT", tmp_path)
    exports.export(to)
    path = f"{Path(tool(to)[0]).parent}{os.pathsep}{os.environ['PATH']}"
    return tmp_path / to, os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.thorough  # two kernels
def test_otter_makes_and_grades_a_lab(tmp_path, monkeypatch):
    (otter,) = tool("otter")
    folder, environment = taken("otter", tmp_path, monkeypatch)

    def run(*arguments: str) -> None:
        subprocess.run([otter, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)

    run("assign", "session_2_lab/session_2_lab.ipynb", "made")
    (grader,) = (folder / "made" / "autograder").glob("*.zip")
    for name, price, points in (("right", PRICE, 1), ("wrong", WRONG_PRICE, 0)):
        handed = folder / f"{name}.ipynb"
        filled(folder / "made" / "student" / "session_2_lab.ipynb", {"price": price}, handed)
        (folder / name).mkdir()
        run("run", "-a", str(grader), "-o", name, handed.name)
        tests = json.loads((folder / name / "results.json").read_text())["tests"]
        (e07,) = [test for test in tests if test["name"] == "E07"]
        assert e07["score"] == points and e07["max_score"] == 1
        assert ("honesty is the cheapest answer" in e07.get("output", "")) == (points == 0), (
            "the message is that of check"
        )


@pytest.mark.thorough
def test_nbgrader_makes_and_grades_a_lab(tmp_path, monkeypatch):
    (nbgrader,) = tool("nbgrader")
    folder, environment = taken("nbgrader", tmp_path, monkeypatch)

    def run(*arguments: str) -> None:
        subprocess.run([nbgrader, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)

    run("generate_assignment", "session_2_lab", "--create")
    for name, price in (("right", PRICE), ("wrong", WRONG_PRICE)):
        handed = folder / "submitted" / name / "session_2_lab" / "session_2_lab.ipynb"
        filled(folder / "release" / "session_2_lab" / "session_2_lab.ipynb", {"price": price}, handed)
    run("autograde", "session_2_lab")
    run("export")
    with (folder / "grades.csv").open(encoding="utf-8", newline="") as lines:
        found = {row["student_id"]: float(row["score"]) for row in csv.DictReader(lines) if row["score"]}
    assert found == {"right": 1.0, "wrong": 0.0}
