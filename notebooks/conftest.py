"""Which notebooks nbval executes in `make test`, and how it compares outputs."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

import drawing  # noqa: E402


def name_of(cell: pytest.Item) -> str:
    """The notebook of a cell, from the root of the repository."""
    return cell.path.relative_to(ROOT).as_posix()


@pytest.hookimpl(tryfirst=True)  # before the marks are read
def pytest_collection_modifyitems(items):
    """Leave most notebooks to `make test-thorough`, and compare no stderr.

    The stamps of the others hold them to the code and the outputs of their run
    (`notebook_tools.py status`). stderr holds times; warnings are caught when a run
    is stamped.
    """
    cells = [item for item in items if hasattr(item.parent, "skip_compare")]
    executed = drawing.changed_or_drawn(map(name_of, cells))
    for cell in cells:
        if name_of(cell) not in executed:
            cell.add_marker(pytest.mark.thorough)
    for notebook in {cell.parent for cell in cells}:
        notebook.skip_compare = (*notebook.skip_compare, "stderr")
