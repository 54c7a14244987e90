"""The command line: mark a folder of notebooks, open an instructor's archive."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gence.course.reports import mark_folder
from gence.course.sealed import open_archive
from gence.course.walls import Limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Mark what was handed in, or open the instructor's archive."""
    parser = argparse.ArgumentParser(prog="python -m gence.course", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    marking = commands.add_parser("mark", help="mark all notebooks of a folder")
    marking.add_argument("folder", type=Path, help="of notebooks, or of folders of notebooks")
    marking.add_argument("--out", type=Path, required=True, help="folder for marks.csv, details.csv and pages")
    marking.add_argument(
        "--exercises", nargs="+", default=[], metavar="E02", help="that count; default: what most of them check"
    )
    marking.add_argument("--by-hand", nargs="+", default=[], metavar="E05", help="that a person marks")
    marking.add_argument(
        "--seconds", type=float, default=20, help="of the processor, for a cell and an exercise (default: 20)"
    )
    marking.add_argument("--total", type=float, default=600, help="seconds for a submission (default: 600)")
    marking.add_argument("--memory", type=float, default=2, help="GB beside the libraries (default: 2)")
    opening = commands.add_parser("open", help="open the archive of `make course INSTRUCTOR=key`")
    opening.add_argument("archive", type=Path)
    opening.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)
    try:
        if given.command == "open":
            print(open_archive(given.archive, given.out))
        else:
            limits = Limits(seconds=given.seconds, total=given.total, memory=int(given.memory * 2**30))
            print(mark_folder(given.folder, given.out, given.exercises, given.by_hand, limits))
    except (ValueError, OSError, ImportError) as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
