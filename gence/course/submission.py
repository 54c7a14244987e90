"""What stands in a notebook that was handed in, read as data: code, the exercises it checks, answers in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["BLANK", "BLANK_CODE", "Cell", "answers", "asked", "python", "read"]

BLANK, BLANK_CODE = "*Your answer.*", "# Your answer."  # what an answer cell holds before there is an answer
_MOST = 50 * 2**20
_CHECK = re.compile(r"""\bcheck\(\s*["'](E\d+)["']""")
_HEADING = re.compile(r"^#+ +(E\d+)\b", re.MULTILINE)


class Cell(NamedTuple):
    """A cell: whether it holds code, its text, and its tags, of which ``answer:E05`` marks an answer in words."""

    is_code: bool
    source: str
    tags: tuple[str, ...] = ()


def read(path: Path) -> list[Cell]:
    """The cells of a notebook, whatever its kernel.

    Raises:
        ValueError: it is none; the message says why, in words for a list of marks.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("a link or a folder, not a file")
    if (size := path.stat().st_size) > _MOST:
        raise ValueError(f"too large: {size / 2**20:.0f} MB, and {_MOST // 2**20} are the most")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("not a notebook: its bytes are not JSON" if size else "an empty file") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise ValueError("not a notebook: no list of cells (format 3 and older: open and save it in Jupyter)")
    return [_cell(cell) for cell in found["cells"] if isinstance(cell, dict)]


def _cell(found: dict[str, Any]) -> Cell:
    source, metadata = found.get("source", ""), found.get("metadata")
    source = source if isinstance(source, str) else "".join(map(str, source if isinstance(source, list) else []))
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    tags = tuple(map(str, tags)) if isinstance(tags, list) else ()
    return Cell(found.get("cell_type") == "code", source.encode("utf-8", "replace").decode(), tags)


def python(source: str) -> str:
    """The Python of a cell: lines for IPython, which begin with %, ! or ?, do nothing.

    Example:
        >>> python("%%time\\nif True:\\n    !ls\\nx = 1")
        'pass\\nif True:\\n    pass\\nx = 1'
        >>> python("%%bash\\nrm -r .")
        ''
    """
    if (magic := re.match(r"\s*%%(\w+)", source)) and magic[1] not in ("time", "timeit", "capture", "prun"):
        return ""
    return re.sub(r"^(\s*)(?:[%!?].*|[\w.]+\?+\s*)$", r"\1pass", source, flags=re.MULTILINE)


def asked(cells: Iterable[Cell]) -> tuple[set[str], set[str]]:
    """Exercises that a notebook checks, and those that it answers in words."""
    cells = list(cells)
    checked = {name for cell in cells if cell.is_code for name in _CHECK.findall(cell.source)}
    tagged = {tag.removeprefix("answer:") for cell in cells for tag in cell.tags if tag.startswith("answer:")}
    return checked, tagged - checked


def answers(cells: Iterable[Cell], name: str) -> list[Cell]:
    """The cells that answer an exercise: those under its heading, and those with its tag wherever they went."""
    found, under = [], None
    for cell in cells:
        headings = [] if cell.is_code else _HEADING.findall(cell.source)
        if headings:
            under = headings[-1]
        mine = f"answer:{name}" in cell.tags
        if mine or (under == name and not headings and not any(tag.startswith("answer:") for tag in cell.tags)):
            found.append(cell)
    return [cell for cell in found if cell.source.strip() not in ("", BLANK, BLANK_CODE)]
