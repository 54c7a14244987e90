"""Marks of a folder of notebooks as files: one row each, one row for each exercise, and a page for each student."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from gence._progress import tqdm
from gence.course.marking import Mark, Marked, mark
from gence.course.registry import EXERCISES
from gence.course.submission import asked, read
from gence.course.walls import Limits

__all__ = ["mark_folder"]


def mark_folder(
    folder: Path, out: Path, graded: Sequence[str] = (), by_hand: Sequence[str] = (), limits: Limits | None = None
) -> str:
    """Mark all notebooks of a folder, and write what was found; what was marked before is not marked again.

    Args:
        folder: of notebooks, or of folders of them: a student's name is the path without its ending.
        out: where marks.csv, details.csv, pages/ and kept/ go.
        graded: ids of the exercises that count; empty: those that more than half of the notebooks check.
        by_hand: ids of the exercises that a person marks; empty: those that more than half answer in words.
        limits: what a submission may use.

    Returns:
        What was done and what is left to do, in a few lines.

    Raises:
        ValueError: no notebook in the folder, no exercise in the notebooks, or an unknown id.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the one with the notebooks that were handed in")
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise ValueError(f"{folder} holds no file that ends in .ipynb")
    if not graded and not by_hand:
        graded, by_hand = _most_asked(paths)
    if not graded and not by_hand:
        raise ValueError(f"most notebooks in {folder} check no exercise: name some, as in --exercises E02 E03")
    limits, rows = limits or Limits(), {}
    tqdm.monitor_interval = 0  # a thread of its own would stand in the way of forking
    with tqdm(total=len(paths), desc="marking", unit="notebook") as bar:
        for path in paths:
            name = path.relative_to(folder).with_suffix("").as_posix()
            rows[name] = _marked(path, out / "kept" / f"{name}.json", graded, by_hand, limits)
            _write(out / "pages" / f"{name}.html", _page(name, rows[name]))
            _write(out / "marks.csv", _marks(rows, (*graded, *by_hand)))
            _write(out / "details.csv", _details(rows))
            bar.update()
    return _summary(folder, out, rows)


def _most_asked(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    counts, readable = (Counter(), Counter()), 0
    for path in paths:
        try:
            found = asked(read(path))
        except (ValueError, OSError):
            continue
        readable += 1
        for count, names in zip(counts, found, strict=True):
            count.update(names)
    graded, by_hand = (sorted(name for name, n in count.items() if 2 * n > readable) for count in counts)
    return [name for name in graded if name in EXERCISES], by_hand


def _marked(path: Path, kept: Path, graded: Sequence[str], by_hand: Sequence[str], limits: Limits) -> Marked:
    """The marks of a notebook; those kept from earlier, if it, the graders and what was asked are the same."""
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        content = "unreadable"
    origin = [content, _graders(), list(graded), list(by_hand), repr(limits)]
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found.pop("origin") == origin:
            return Marked(**found | {"marks": [Mark(**one) for one in found["marks"]]})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    marked = mark(path, graded, by_hand, limits)
    _write(kept, json.dumps(asdict(marked) | {"origin": origin}, indent=1))
    return marked


@cache
def _graders() -> str:
    files = sorted(Path(__file__).parent.glob("*.[pt][yo]*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(text, encoding="utf-8", errors="replace")
    os.replace(draft, path)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if cell is None else _no_formula(str(cell)) for cell in row])
    return text.getvalue()


def _no_formula(text: str) -> str:
    """What a student wrote must not become a formula when a spreadsheet opens it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _marks(rows: dict[str, Marked], exercises: Sequence[str]) -> str:
    def row(name: str, found: Marked) -> list[object]:
        of = {one.exercise: one.verdict if one.points is None else one.points for one in found.marks}
        counted = [one.points for one in found.marks if one.points is not None]
        return [name, sum(counted), len(counted), *(of[e] for e in exercises), found.problem, found.seconds]

    return _table(["student", "points", "of", *exercises, "problem", "seconds"], (row(*pair) for pair in rows.items()))


def _details(rows: dict[str, Marked]) -> str:
    head = ["student", "exercise", "points", "verdict", "holds", "of", "property", "note", "seconds"]
    return _table(
        head,
        ([name, *(getattr(one, field) for field in head[1:])] for name, found in rows.items() for one in found.marks),
    )


_STYLE = "body{font-family:sans-serif;max-width:52em;margin:2em auto;padding:0 1em;line-height:1.5}"
_STYLE += "pre{background:#f3f5f8;padding:.8em;white-space:pre-wrap;overflow-wrap:anywhere}"


def _page(name: str, found: Marked) -> str:
    """All that is known of a submission; what comes from the student is text, and never markup."""
    parts = [f"<h1>{html.escape(name)}</h1>"]
    parts += [f"<p>Not read: {html.escape(found.problem)}.</p>"] if found.problem else []
    for one in found.marks:
        title = f" {EXERCISES[one.exercise].title}" if one.exercise in EXERCISES else ""
        shown = f"{one.verdict}, {one.holds} of {one.of} properties hold" if one.of else one.verdict
        parts.append(f"<h2>{html.escape(one.exercise + title)}: {html.escape(shown)}</h2>")
        parts += [f"<pre>{html.escape(one.answer)}</pre>"] if one.answer else []
        parts += [f"<p>{html.escape(one.note)}.</p>"] if one.note else []
    if found.faults:
        parts += ["<h2>What went wrong in its cells</h2>", f"<pre>{html.escape(chr(10).join(found.faults))}</pre>"]
    if found.printed:
        parts += ["<h2>What it printed first</h2>", f"<pre>{html.escape(found.printed)}</pre>"]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(name)}</title>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _summary(folder: Path, out: Path, rows: dict[str, Marked]) -> str:
    unread = [name for name, found in rows.items() if found.problem]
    looked = [
        name for name, found in rows.items() if any(one.verdict in ("stopped", "not tried") for one in found.marks)
    ]
    hand = sum(one.verdict == "by hand" for found in rows.values() for one in found.marks)
    other = sorted(
        p.name for p in folder.rglob("*") if p.is_file() and p.suffix not in (".ipynb", "") and "/." not in str(p)
    )
    lines = [f"{len(rows)} notebooks, {len(rows)} rows: {out / 'marks.csv'}"]
    lines += [f"Not read: {', '.join(unread)}"] if unread else []
    lines += (
        [f"Stopped somewhere, so look at them: {', '.join(n for n in looked if n not in unread)}"] if looked else []
    )
    lines += [f"Files that are no notebooks, left alone: {', '.join(other[:10])}"] if other else []
    lines += [_contained(rows)]
    to_do = f"{hand} answers to mark by hand, on" if hand else "what each student reads:"
    return "\n".join(
        [*lines, f"Next: {to_do} the pages in {out / 'pages'}; properties that fail: {out / 'details.csv'}"]
    )


def _contained(rows: dict[str, Marked]) -> str:
    stood = [found.walls for found in rows.values() if found.walls]
    names = {"namespaces": "network and other processes", "landlock": "files outside its folder"}
    missing = [what for wall, what in names.items() if stood and not all(walls.get(wall) for walls in stood)]
    return (
        f"NOT kept from student code on this system: {', '.join(missing)}"
        if missing
        else ("Kept from student code: network, other processes, files outside its own folder")
    )
