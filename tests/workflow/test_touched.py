"""`make test FAST=1`: which tests a change touches, and where it stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

import touched  # noqa: E402


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("gence/losses/focal.py", ["gence/losses/focal.py", "tests/losses", touched.HOUSE]),
        ("gence/lab/runs/grid.py", ["gence/lab/runs/grid.py", "tests/lab/runs", touched.HOUSE]),
        ("gence/samplers.py", ["gence/samplers.py", "tests/test_samplers.py", touched.HOUSE]),
        ("gence/words.py", ["gence/words.py", touched.HOUSE]),
        ("gence/lab/results/plots.py", ["gence/lab/results/plots.py", "tests/lab/results/test_plots.py",
                                        "tests/lab/results", touched.HOUSE]),
        ("tests/losses/test_family.py", ["tests/losses/test_family.py"]),
        ("notebooks/proper/proper_losses.ipynb", ["tests/book/test_notebooks.py"]),
        ("workflow/sweep.py", ["tests/workflow"]),
        ("README.md", [touched.HOUSE]),
    ],
)  # fmt: skip
def test_what_a_file_touches(path: str, expected: list[str]) -> None:
    assert list(touched.tests_of(path)) == expected


def test_shared_references_touch_the_tests_that_use_them() -> None:
    users = list(touched.tests_of("tests/support/fake_slurm.py"))
    assert users and all("fake_slurm" in (ROOT / user).read_text(encoding="utf-8") for user in users)


def test_every_room_of_the_house_has_tests() -> None:
    for module in sorted((ROOT / "gence").rglob("*.py")):
        path = str(module.relative_to(ROOT))
        assert len(list(touched.tests_of(path))) >= 2, path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init", "-q")
    for name, text in (("user.name", "A"), ("user.email", "a@example.org")):
        git("config", name, text)
    for word in ("one", "two"):
        (tmp_path / f"{word}.txt").write_text(word)
        git("add", "-A")
        git("commit", "-qm", word)
    return tmp_path


def test_the_change_is_the_working_tree_or_else_the_last_commit(repository: Path) -> None:
    assert touched.changed_files(None, repository) == ["two.txt"]
    (repository / "one.txt").write_text("changed")
    (repository / "new.txt").write_text("new")
    assert touched.changed_files(None, repository) == ["new.txt", "one.txt"]
    assert touched.changed_files("HEAD~1", repository) == ["new.txt", "one.txt", "two.txt"]


def test_an_unknown_commit_is_named(repository: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)no_such_commit.*Name a commit"):
        touched.changed_files("no_such_commit", repository)


def test_no_test_starts_when_the_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_two.py").write_text("def test_one(): pass\n\n\ndef test_two(): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", str(tmp_path), "--within", "0"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert "2 skipped" in said and "They are left for `make test`" in said
