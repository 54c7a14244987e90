"""The claim ledger: a settled claim has a derivation, a check cell and a test, and nothing else poses as one."""

from __future__ import annotations

import ast
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import notebook_tools as nb  # noqa: E402

CLAIMS = {claim["id"]: claim for claim in nb.claims()}
SETTLED = [claim for claim in CLAIMS.values() if claim["status"] != "open"]


def claim_id(claim: dict[str, str]) -> str:
    return claim["id"]


def computed(name: str) -> bool:
    """Whether a claim is a prediction: its status is computed from the records, by the code and by its one test."""
    return name.startswith("prediction-")


@lru_cache
def check_cells() -> dict[str, set[str]]:
    """Claim id to the notebooks that have a cell tagged with it."""
    found: dict[str, set[str]] = {}
    for path in nb.all_notebooks():
        for cell in nb.code_cells(nb.read(path)):
            for tag in cell.metadata.get("tags", []):
                if tag.startswith("claim:"):
                    found.setdefault(tag.removeprefix("claim:"), set()).add(str(path.relative_to(ROOT)))
    return found


# What the marker of a test says of its claims, so that a status is written twice: beside the test, and in the ledger.
SAYS = {"pytest.mark.claim": "holds", "pytest.mark.refutes": "fails"}


@lru_cache
def marked_tests() -> dict[tuple[str, str], set[str]]:
    """Claim id and what its marker says of it, to the tests that carry the marker."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", []):
                says = SAYS.get(ast.unparse(decorator.func)) if isinstance(decorator, ast.Call) else None
                for argument in decorator.args if says else []:
                    name = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                    found.setdefault((argument.value, says), set()).add(name)
    return found


def test_ids_are_unique_and_every_row_is_whole():
    assert len(CLAIMS) == len(nb.claims())
    for claim in CLAIMS.values():
        assert claim["status"] in ("holds", "fails", "open")
        assert claim.get("basis", "printed") == "printed", f"{claim['id']}: unknown basis"
        for key in ("statement", "source", "note"):
            assert str(claim.get(key, "")).strip(), f"{claim['id']} has no {key}"


@pytest.mark.parametrize("claim", SETTLED, ids=claim_id)
def test_a_settled_claim_has_a_derivation_a_check_cell_and_a_test(claim):
    notebook, _, heading = claim["derivation"].partition("#")
    text = (ROOT / notebook).read_text(encoding="utf-8")
    assert not heading or heading in text, f"{notebook} has no section {heading!r}"
    assert claim["check"] in check_cells().get(claim["id"], set()), (
        f"no cell of {claim['check']} is tagged claim:{claim['id']}"
    )
    says = "holds" if computed(claim["id"]) else claim["status"]
    marker = next(name for name, said in SAYS.items() if said == says)
    assert claim["test"] in marked_tests().get((claim["id"], says), set()), (
        f"no test {claim['test']} marked @{marker}({claim['id']!r}), which is what `status: {claim['status']}` needs"
    )


def test_no_check_and_no_test_without_a_claim():
    assert set(check_cells()) <= set(CLAIMS)
    for (marked, says), names in marked_tests().items():
        assert marked in CLAIMS, names
        assert computed(marked) or CLAIMS[marked]["status"] in (says, "open"), f"{names} say that {marked} {says}"


def test_the_page_shows_every_claim_and_which_are_arithmetic_on_printed_cells():
    page = nb.ledger()
    printed = [claim["id"] for claim in CLAIMS.values() if claim.get("basis") == "printed"]
    assert printed
    assert page.count(", *as printed* (") == len(printed)
    for claim in CLAIMS.values():
        assert f"**{claim['id']}**" in page
