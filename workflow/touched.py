"""The tests that a change touches, for `make test FAST=1`: arguments of pytest, one a line.

    python workflow/touched.py [BASE]

The change is what differs from the commit BASE; without one, from HEAD, or, where nothing differs, what the last commit
did. A changed test file is run itself. A changed module brings its own examples and the room of tests that mirrors its
room; a notebook, a page or the engine the tests of the book and of the engine. What took part in no rule brings the
tests of the house. `pytest --within SECONDS` then stops where the time is over and says how many are left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUSE = "tests/test_house.py"
# Where tests of a folder lie whose own name says nothing of it.
ROOMS = {
    "notebooks": "tests/book/test_notebooks.py",
    "book": "tests/book/test_notebooks.py",
    "workflow": "tests/workflow",
    "benchmarks": "tests/workflow",
    "results": "tests/results",
}


def changed_files(base: str | None, root: Path = ROOT) -> list[str]:
    """The files that differ from a commit, untracked ones included.

    Raises:
        SystemExit: git cannot say so; the message names its reason.
    """

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}\nName a commit: make test FAST=1 BASE=")
        return done.stdout.splitlines()

    new = git("ls-files", "--others", "--exclude-standard")
    found = git("diff", "--name-only", base or "HEAD") + new
    return sorted(set(found or git("diff", "--name-only", "HEAD~1")))


def tests_of(path: str, root: Path = ROOT) -> Iterator[str]:
    """The tests that a file touches, the nearest first."""
    file = Path(path)
    if file.suffix == ".py" and file.parts[0] == "gence":
        yield path
        room = Path("tests", *file.parts[1:])
        near = [room.with_name(f"test_{file.name}"), room.parent]
        yield from (str(at) for at in near if (root / at).exists() and at != Path("tests"))
        yield HOUSE
    elif file.parts[0] == "tests" and file.suffix == ".py":
        if file.name.startswith("test_"):
            yield path
        else:  # what tests share: those that name it
            users = sorted((root / "tests").rglob("test_*.py"))
            yield from (str(u.relative_to(root)) for u in users if file.stem in u.read_text(encoding="utf-8"))
    else:
        yield ROOMS.get(file.parts[0], HOUSE)


def main(arguments: list[str]) -> int:
    """Print them."""
    found = [test for path in changed_files(*(arguments or [None])) for test in tests_of(path)]
    existing = [test for test in dict.fromkeys(found) if (ROOT / test).exists()]
    # A folder holds its files: pytest would run them twice over.
    nearest = [test for test in existing if test.endswith(".py")]
    print("\n".join([*nearest, *(test for test in existing if test not in nearest)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
