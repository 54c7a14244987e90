"""Which notebooks nbval executes in `make test`, and how it compares outputs."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests" / "support"), str(ROOT / "workflow")]

import drawing  # noqa: E402
import touched  # noqa: E402


def executed(found: set[Path]) -> set[Path]:
    """The notebooks of the change, and a third of all, drawn by the commit.

    The others are held to the code and the outputs of their run by their stamps
    (`notebook_tools.py status`); all are executed in `make test-thorough`.
    """
    try:
        changed = {ROOT / name for name in touched.changed_files(None)}
    except SystemExit:  # a copy without history
        changed = set()
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    third = drawing.drawn(names, -(-len(names) // 3))
    return (found & changed) | {ROOT / name for name in third}


@pytest.hookimpl(tryfirst=True)  # before the marks are read
def pytest_collection_modifyitems(items):
    """Mark the cells of the other notebooks as thorough, and compare no stderr.

    It holds times; warnings are caught when a run is stamped.
    """
    cells = [item for item in items if hasattr(item.parent, "skip_compare")]
    chosen = executed({item.path for item in cells})
    for item in cells:
        if item.path not in chosen:
            item.add_marker(pytest.mark.thorough)
    for notebook in {item.parent for item in cells}:
        notebook.skip_compare = (*notebook.skip_compare, "stderr")
