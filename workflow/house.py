"""Draw the house of ``gence`` as a picture, and print how large its rooms are and what they import.

python workflow/house.py          print lines per room and imports between the storeys
python workflow/house.py draw     write book/_static/house.svg, the picture in the README
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "_static" / "house.svg"
# What stands on each floor, from the top; a folder's rooms are read from the disk.
FLOORS = {
    "gence.lab: the laboratory (pip install gence[lab])": (
        ("lab/results",),
        ("lab/runs",),
        ("lab/training",),
        ("lab/data", "lab/networks"),
    ),
    "gence.course: exercises that answer back (no further packages)": (("course",),),
    "gence: the library (torch, NumPy, SciPy, scikit-learn)": (
        ("calibration", "propriety"),
        ("losses", "metrics", "samplers"),
    ),
}
WIDTH, ROW, HEAD = 860, 62, 30


def rooms_of(unit: str) -> list[str]:
    """The rooms of a folder that others may enter, by name; nothing for a room of its own."""
    return sorted(path.stem for path in (ROOT / "gence" / unit).glob("*.py") if not path.stem.startswith("_"))


def draw() -> str:
    """The picture as SVG: what is higher may import what is lower."""
    parts, y = [], 8
    for title, floors in FLOORS.items():
        height = HEAD + ROW * len(floors) + 6
        parts.append(f'<rect class="storey" x="8" y="{y}" width="{WIDTH - 16}" height="{height}" rx="6"/>')
        parts.append(f'<text class="title" x="22" y="{y + 21}">{title}</text>')
        for row, units in enumerate(floors):
            wishes = [30 + len(_names(unit)) for unit in units]  # a folder with more rooms is drawn wider
            x = 22.0
            for unit, wish in zip(units, wishes, strict=True):
                width = (WIDTH - 44 - 10 * (len(units) - 1)) * wish / sum(wishes)
                parts += _room(unit, x, y + HEAD + row * ROW, width)
                x += width + 10
        y += height + 10
    style = (
        "text{font-family:sans-serif;font-size:12px;fill:#1b1f24}.title{font-weight:bold}"
        ".storey{fill:#f3f5f8;stroke:#57606a}.room{fill:#fff;stroke:#0072b2;stroke-width:1.5}.name{fill:#0072b2;"
        "font-weight:bold}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-label="{_words()}">'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>", ""])


def _room(unit: str, x: float, y: float, width: float) -> list[str]:
    return [
        f'<rect class="room" x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW - 10}" rx="4"/>',
        f'<text class="name" x="{x + 10:.0f}" y="{y + 20}">{unit.removeprefix("lab/")}</text>',
        f'<text x="{x + 10:.0f}" y="{y + 40}">{_names(unit)}</text>',
    ]


def _names(unit: str) -> str:
    return " · ".join(rooms_of(unit))


def _words() -> str:
    floors = [unit for storey in FLOORS.values() for floor in storey for unit in floor]
    return f"The house of gence, from the top: {', '.join(floors)}. What is higher may import what is lower."


def _storey(words: Iterable[str]) -> str:
    return next((name for part, name in (("lab", "laboratory"), ("course", "course")) if part in words), "library")


def sizes() -> str:
    """Lines of each room, and how often a storey imports from another."""
    lines, between = [], {}
    for path in sorted((ROOT / "gence").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines.append(f"{len(text.splitlines()):5d}  {path.relative_to(ROOT).as_posix()}")
        mine = _storey(path.relative_to(ROOT).parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gence":
                words = [*node.module.split("."), *(alias.name for alias in node.names)]
                theirs = _storey(words)
                between[mine, theirs] = between.get((mine, theirs), 0) + 1
    return "\n".join([*lines, *(f"{count:5d}  imports of the {b} by the {a}" for (a, b), count in between.items())])


if __name__ == "__main__":
    if sys.argv[1:] == ["draw"]:
        PICTURE.write_text(draw(), encoding="utf-8")
    else:
        print(sizes())
