"""Marking a folder: every submission has its row, none runs in the marker's process, and the marks are the graders'."""

from __future__ import annotations

import builtins
import csv
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import handed_in
import numpy as np
import pytest

from gence.course import EXERCISES, check, marking, reports, submission, wire
from gence.course.__main__ import main
from gence.course.walls import Limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import zoo  # noqa: E402

QUICK = Limits(seconds=6, total=600)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def all_words(found: marking.Marked) -> str:
    parts = [found.problem, *found.faults, *(f"{one.property} {one.answer} {one.note}" for one in found.marks)]
    return "\n".join(parts)


def kept(out: Path, name: str) -> marking.Marked:
    found = json.loads((out / "kept" / f"{name}.json").read_text(encoding="utf-8"))
    found.pop("origin")
    return marking.Marked(**found | {"marks": [marking.Mark(**one) for one in found["marks"]]})


def marks_of(cases: dict[str, handed_in.Case], folder: Path, out: Path) -> None:
    """Mark them, and compare with what each must get."""
    handed_in.put(cases, folder)
    said = reports.mark_folder(folder, out, handed_in.GRADED, limits=QUICK)
    assert f"{len(cases)} notebooks, {len(cases)} rows" in said
    rows = rows_of(out / "marks.csv")
    assert sorted(row["student"].removeprefix("'") for row in rows) == sorted(cases), "none lost, none twice"
    assert not hasattr(builtins, "handed_in_ran_here"), "student code ran in the marker's process"
    found = {name: kept(out, name) for name in cases}
    got = {name: tuple(one.verdict for one in found[name].marks) for name in cases}
    assert got == {name: case.verdicts for name, case in cases.items()}, found
    assert {name: found[name] for name, case in cases.items() if case.says not in all_words(found[name])} == {}
    for name, case in cases.items():
        assert [one.points for one in found[name].marks] == [int(v == "passed") for v in case.verdicts]
        assert (out / "pages" / f"{name}.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    details = rows_of(out / "details.csv")
    assert len(details) == 2 * len(cases)


def test_a_short_class_is_marked_and_none_is_lost(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    cases = handed_in.short(outside)
    marks_of(cases, tmp_path / "in", tmp_path / "out")
    if kept(tmp_path / "out", "right").walls["landlock"]:
        assert list(outside.iterdir()) == []


@pytest.mark.thorough  # endless ones take their time
def test_a_whole_class_is_marked_and_none_is_lost(tmp_path):
    outside, folder, out = (tmp_path / name for name in ("outside", "in", "out"))
    outside.mkdir()
    cases = handed_in.many(outside, folder)
    assert len(cases) >= 30
    marks_of(cases, folder, out)
    walls = kept(out, "right").walls
    if walls["landlock"]:
        assert list(outside.iterdir()) == []
        assert len(list(folder.rglob("*.ipynb"))) == len(cases), "what one deletes is there"
    if walls["namespaces"]:
        assert running_in(Path(tempfile.gettempdir()) / "gence-") == [], "no child of a student goes on"


def running_in(start: Path) -> list[str]:
    """Processes whose working folder begins like this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is not ours
            if (folder := os.readlink(process / "cwd")).startswith(str(start)):
                found.append(folder)
    return found


def test_marks_are_kept_and_a_changed_notebook_is_marked_again(tmp_path, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "out"
    handed_in.put({"ann": handed_in.Case(handed_in.notebook(), ("", "")), "bob": handed_in.Case(b"", ("", ""))}, folder)
    marked = []
    monkeypatch.setattr(reports, "mark", lambda path, *rest: marked.append(path.stem) or marking.mark(path, *rest))
    reports.mark_folder(folder, out, ["E08"])
    assert marked == ["ann", "bob"]
    before = (out / "marks.csv").read_bytes()
    reports.mark_folder(folder, out, ["E08"])
    assert marked == ["ann", "bob"]
    assert (out / "marks.csv").read_bytes() == before
    (folder / "bob.ipynb").write_bytes(handed_in.notebook())
    (out / "kept" / "ann.json").write_text("cut off", encoding="utf-8")
    reports.mark_folder(folder, out, ["E08"])
    assert marked == ["ann", "bob", "ann", "bob"]
    assert not list(out.rglob("*.part"))


def answers_in_words(text: str, *, tags: list[str] = ["answer:E05"]) -> bytes:  # noqa: B006
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "## E05 Cross-entropy\n\nProve it."},
        {"cell_type": "markdown", "metadata": {"tags": tags}, "source": text},
        {"cell_type": "markdown", "metadata": {}, "source": "And <b>more</b>."},
        {"cell_type": "markdown", "metadata": {}, "source": "## E08 Brier"},
        {"cell_type": "code", "metadata": {}, "source": f"{handed_in.BRIER}\ncheck('E08', brier)"},
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}).encode()


def test_answers_in_words_are_collected_for_a_person_and_shown_as_text(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "ann.ipynb").write_bytes(answers_in_words("Because log x <= x - 1."))
    (folder / "bob.ipynb").write_bytes(answers_in_words("By Jensen.", tags=[]))
    (folder / "notes.txt").write_text("hello")
    said = reports.mark_folder(folder, out)  # which exercises: what most of them ask for
    assert "notes.txt" in said
    by_hand = [row for row in rows_of(out / "details.csv") if row["exercise"] == "E05"]
    assert by_hand == []  # a tag in one of two is no majority
    said = reports.mark_folder(folder, out, ["E08"], ["E05"])
    assert "2 answers to mark by hand" in said
    assert [row["E05"] for row in rows_of(out / "marks.csv")] == ["by hand", "by hand"]
    page = (out / "pages" / "ann.html").read_text(encoding="utf-8")
    assert "Because log x &lt;= x - 1." in page
    assert "And &lt;b&gt;more&lt;/b&gt;." in page


def test_an_untouched_answer_cell_is_no_answer(tmp_path):
    path = tmp_path / "ann.ipynb"
    path.write_bytes(answers_in_words(submission.BLANK).replace(b"And <b>more</b>.", b""))
    assert [one.verdict for one in marking.mark(path, [], ["E05"]).marks] == ["missing"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mark", "nowhere", "--out", "o"), "nowhere is no folder"),
        (("mark", "empty", "--out", "o"), "holds no file that ends in .ipynb"),
        (("mark", "bare", "--out", "o"), "name some, as in --exercises"),
        (("mark", "bare", "--out", "o", "--exercises", "E99"), "no graded exercise: E99. Graded are E02"),
        (("open", "bare/x.ipynb", "--out", "o"), "is no archive of `make course INSTRUCTOR=key`"),
        (("open", "nothing", "--out", "o"), "No such file"),
    ],
)
def test_bad_input_says_what_to_do(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "x.ipynb").write_bytes(handed_in.notebook("x = 1"))
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 1
    assert says in capsys.readouterr().err


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_bytes(handed_in.answered())
    handed_in.link(tmp_path, tmp_path / "secret.txt")
    found = marking.mark(tmp_path / "a link.ipynb", ["E08"])
    assert found.problem == "a link or a folder, not a file"
    assert found.marks[0].verdict == "not tried"


def test_the_command_line_marks_in_a_process_of_its_own(tmp_path):
    handed_in.put({"ann": handed_in.Case(handed_in.answered(), ("", ""))}, tmp_path / "in")
    command = [sys.executable, "-m", "gence.course", "mark", tmp_path / "in", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "1 notebooks, 1 rows" in done.stdout
    assert "Next:" in done.stdout
    (row,) = rows_of(tmp_path / "out" / "marks.csv")
    assert (row["points"], row["of"], row["E08"], row["E41"]) == ("2", "2", "1", "1")


def zoo_notebook(path: Path, names: list[str], which: int | None) -> bytes:
    """All functions of a file of the zoo: the solutions, or of each exercise the planted mistake `which`."""
    cells = [f"space = {{}}\nexec({path.read_text(encoding='utf-8')!r}, space)"]
    for name in names:
        at = "[0]" if which is None else f"[1][{which}][1]"
        cells.append(f"{marking.FUNCTIONS[name]} = space['ZOO'][{name!r}]{at}")
    return handed_in.notebook(*cells)


FILES = sorted(zoo.ZOO.glob("*.py"))


def ids_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [name for name in EXERCISES if f'    "{name}": (' in text]


def same_as_here(path: Path, tmp_path: Path, which: int | None) -> None:
    """What the marker says of the zoo's functions is what `check` says of them in this process."""
    names = [n for n in ids_of(path) if which is None or which < len(zoo.zoo()[n][1])]
    if not names:
        return
    handed = tmp_path / f"{which}.ipynb"
    handed.write_bytes(zoo_notebook(path, names, which))
    found = marking.mark(handed, names, limits=Limits(seconds=60, total=500))
    assert found.faults == [], found.faults
    for one in found.marks:
        good, wrong = zoo.zoo()[one.exercise]
        answer = check(one.exercise, good if which is None else wrong[which].function)
        assert (one.points, one.property) == (int(answer.passed), answer.broken or ""), one
        assert one.answer == str(answer)
        assert one.holds == answer.holds


def test_the_marker_answers_as_check_does(tmp_path):
    same_as_here(next(path for path in FILES if path.stem == "batch"), tmp_path, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("which", [None, *range(8)])
def test_the_marker_answers_as_check_does_for_the_whole_zoo(tmp_path, path, which):
    same_as_here(path, tmp_path, which)


class Unkind:
    """Something that is no data."""

    def __repr__(self) -> str:
        return "unkind"


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, float("inf"), "text \ud800", [1, (2.5, {"a": [True]})], {1: "x"}, {}, [], ()],
)
def test_data_go_through_the_wire_as_they_are(value):
    assert wire.unpack(wire.pack(value)) == value
    assert type(wire.unpack(wire.pack(value))) is type(value)


def test_arrays_keep_their_kind_and_other_things_their_name():
    for kind in (np.float32, np.float64, np.int64, np.bool_):
        back = wire.unpack(wire.pack(np.ones((2, 3), kind)))
        assert back.dtype == kind and back.shape == (2, 3)
        assert type(wire.unpack(wire.pack(kind(1)))) is kind
    other = wire.unpack(wire.pack([Unkind()]))[0]
    assert type(other).__name__ == "Unkind" and repr(other) == "unkind"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b'{"tuple": 3}', b'{"dict": [1]}', b'{"array": 1}', b"\xff"]
)
def test_what_is_no_message_is_refused(text):
    with pytest.raises(ValueError):
        wire.unpack(text)


def test_too_large_and_too_deep_are_refused():
    ring: list = []
    ring.append(ring)
    for value in (ring, "x" * (wire.MOST + 1)):
        with pytest.raises(ValueError, match="too"):
            wire.pack(value)


def test_functions_of_graders_are_found_by_number_in_a_fork():
    from gence.course import losses

    known = wire.functions()
    assert wire.unpack(wire.pack(losses.CE), known) is losses.CE
    assert type(wire.unpack(wire.pack(test_a_link_is_not_followed), known)).__name__ == "function"
