"""The house stands as it is drawn: imports go downwards, the library stays small, private names stay at home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up; what is on one line may not import each other, whatever is higher may import what is lower.
FLOORS = [
    {"gence.words", "gence._progress"},
    {"gence.losses", "gence.metrics", "gence.samplers"},
    {"gence.calibration", "gence.propriety"},
    {"gence.lab.storage", "gence.lab.records", "gence.course"},
    {"gence.lab.data", "gence.lab.networks"},
    {"gence.lab.training"},
    {"gence.lab.runs"},
    {"gence.lab.results"},
]
# Inside a folder, from the ground up.
STAIRS = {
    "gence.losses": "_contract _column_scores _module accumulation generative pointwise focal priors calibrating "
    "registry",
    "gence.metrics": "_input scores calibration_error detection registry",
    "gence.calibration": "_likelihood base temperature samplewise affine binary registry",
    "gence.propriety": "risk minimisers verdict completeness by_hand weights entropy links murphy divergence "
    "mixability elicitation",
    "gence.course": "walls wire sealed submission trial small losses decisions calibration repair batch registry "
    "student marking reports __main__",
    "gence.lab.data": "info arrays embedded readers files regimes packing shifted pretrained features "
    "embedding __main__",
    "gence.lab.networks": "architectures registry",
    "gence.lab.training": "recipe checkpoints outcome _steps _loop trainers",
    "gence.lab.runs": "_text _messages _checks provenance parameters record grid",
    "gence.lab.results": "names statistics wording sources tuning evidence tables predictions plots",
}
LIBRARY = {"torch", "numpy", "scipy", "sklearn"}
# The measurement of the loop's speed drives the loop itself.
MAY_LOOK_INSIDE = {"benchmarks/training.py"}
MOST_LINES = 400


def module_of(path: Path) -> str:
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


ROOMS = {module_of(path): path for path in sorted((ROOT / "gence").rglob("*.py"))}


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names of the modules that a file imports; of ``from a import b`` the module a.b where it is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in ROOMS else node.module)
    return found


def floor_of(module: str) -> tuple[int, str]:
    for height, units in enumerate(FLOORS):
        for unit in units:
            if module == unit or module.startswith(f"{unit}."):
                return height, unit
    raise AssertionError(f"{module} has no place in the house: give it a room in tests/test_house.py and the design")


@pytest.mark.parametrize("module", [m for m in ROOMS if m not in ("gence", "gence.lab")])
def test_imports_go_downwards(module):
    height, unit = floor_of(module)
    for other in imports_of(ROOMS[module]):
        if not other.startswith("gence.") or other == "gence.lab":
            continue
        below, other_unit = floor_of(other)
        assert below < height or other_unit == unit, f"{module} imports {other}, which is not below it"


def test_the_course_stands_beside_the_laboratory():
    users = [m for m, path in ROOMS.items() if any(i.startswith("gence.course") for i in imports_of(path))]
    assert all(user.startswith("gence.course") for user in users)


@pytest.mark.parametrize("folder", STAIRS)
def test_inside_a_folder_imports_go_downwards_too(folder):
    order = STAIRS[folder].split()
    rooms = {m.removeprefix(f"{folder}.") for m in ROOMS if m.startswith(f"{folder}.")}
    assert rooms == set(order), "each room has its place in STAIRS"
    for room in order:
        for other in imports_of(ROOMS[f"{folder}.{room}"]):
            if other.startswith(f"{folder}."):
                found = other.removeprefix(f"{folder}.")
                assert order.index(found) < order.index(room), f"{room} imports {found}, which is not below it"
            assert other != folder or room == "__main__", f"{room} imports the face of its own folder"


@pytest.mark.parametrize("module", [m for m in ROOMS if not m.startswith("gence.lab")])
def test_the_library_needs_four_packages(module):
    others = {name.split(".")[0] for name in imports_of(ROOMS[module], top_level_only=True)}
    allowed = {"torch"} if module.startswith("gence.losses") else LIBRARY
    assert others - set(sys.stdlib_module_names) - {"gence"} <= allowed


def test_importing_losses_loads_torch_and_none_of_the_others():
    code = "import gence.losses, sys; print(*({'scipy', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_public_name_of_the_library_is_at_its_face():
    import gence
    from gence import calibration, course, losses, metrics, propriety

    for package in (gence, losses, metrics, calibration, propriety, course):
        assert sorted(package.__all__, key=str) == sorted(set(package.__all__), key=str)
        assert all(hasattr(package, name) and not name.startswith("_") for name in package.__all__)


@pytest.mark.parametrize("module", ROOMS)
def test_a_room_can_be_read_at_one_sitting(module):
    assert len(ROOMS[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def users() -> list[Path]:
    """Everything outside the package and the tests that may import it; notebooks as they are."""
    folders = [ROOT / name for name in ("workflow", "benchmarks", "book", "notebooks")]
    found = [p for f in folders for kind in ("*.py", "*.ipynb", "*.md") for p in f.rglob(kind)]
    return [ROOT / "README.md", *(p for p in found if ".ipynb_checkpoints" not in p.parts)]


@pytest.mark.parametrize("path", users(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_outside_imports_a_private_name(path):
    import re

    if path.relative_to(ROOT).as_posix() in MAY_LOOK_INSIDE:
        return
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"from gence[.\w]*\._\w+ import|from gence[.\w]* import (?:[\w, ]+, )?_\w+", text)


def test_the_picture_of_the_house_is_the_house(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow"))
    import house

    drawn = {unit for storey in house.FLOORS.values() for floor in storey for unit in floor}
    assert drawn | {"lab"} >= {p.name for p in (ROOT / "gence").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert drawn >= {f"lab/{p.name}" for p in (ROOT / "gence" / "lab").iterdir() if p.is_dir() and p.name[0] != "_"}
    assert house.draw() == house.PICTURE.read_text(encoding="utf-8"), "run: python workflow/house.py draw"
