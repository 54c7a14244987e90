"""The evidence of the pages on results: trained once, kept in results/pages, read by the pages.

With `python workflow/evidence.py` before them; `make evidence` calls them in this order:

    plan [PAGE] [--force]  say which pages have stale evidence, and clear the way for a new one
    make PAGE              execute a page up to its last cell tagged evidence, training, into _build/evidence
    accept                 take what was made over into results/pages

A page is its notebook below notebooks/, without the ending: experiments/benchmark. Its cells tagged ``evidence`` decide
the numbers: grids, and what is measured from the logits. Evidence is *stale* when these cells, what they take from
others, or the code of the ``gence`` modules that they use are not those it was made with.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import symtable
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import notebook_tools as nb

ROOT = nb.ROOT
KEPT, MADE = ROOT / "results" / "pages", ROOT / "_build" / "evidence"
TAG, CELLS = "evidence", "cells"
# Reads and writes the tables, and decides no number in them.
ONLY_CARRIES = "gence/lab/results/evidence.py"


def is_tagged(cell: nbformat.NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])


def cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells tagged evidence."""
    return list(filter(is_tagged, nb.code_cells(notebook)))


def up_to_last_tag(all_cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The cells up to the last tagged one."""
    return all_cells[: max(i for i, cell in enumerate(all_cells) if is_tagged(cell)) + 1]


def pages() -> dict[str, Path]:
    """Page to notebook, of all pages that have evidence."""
    found = {path.relative_to(nb.NOTEBOOKS).with_suffix("").as_posix(): path for path in nb.all_notebooks()}
    return {page: path for page, path in found.items() if cells(nb.read(path))}


def names_of(source: str) -> tuple[set[str], set[str]]:
    """The global names that a piece of code reads, at any depth, and those that it sets at its top level."""
    top = symtable.symtable(source, "cell", "exec")
    read = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    inside = list(top.get_children())
    while inside:
        scope = inside.pop()
        inside += scope.get_children()
        read |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    return read, {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned()}


def decides(notebook: nbformat.NotebookNode) -> list[str]:
    """The code that decides the numbers: the tagged cells, and what other cells before them define for them."""
    tagged = [nb.code_of(cell.source) for cell in cells(notebook)]
    wanted, own = map(set().union, *map(names_of, tagged))
    wanted -= own
    others: list[tuple[str, set[str], set[str]]] = []
    for cell in up_to_last_tag(nb.code_cells(notebook)):
        if not is_tagged(cell):
            for node in ast.parse(nb.without_magics(cell.source)).body:
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    text = nb.code_of(ast.unparse(node))
                    others.append((text, *names_of(text)))
    found: set[int] = set()
    while new := {i for i, (_, _, sets) in enumerate(others) if sets & wanted} - found:
        found |= new
        wanted |= set().union(*(others[i][1] for i in new))
    return [*(others[i][0] for i in sorted(found)), *tagged]


def imports(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Name to the statement that imports it, at the top level of any cell."""
    found = {}
    for cell in nb.code_cells(notebook):
        for node in ast.parse(nb.without_magics(cell.source)).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    one = ast.Import([alias]) if isinstance(node, ast.Import) else None
                    one = one or ast.ImportFrom(node.module, [alias], node.level)
                    found[(alias.asname or alias.name).split(".")[0]] = ast.unparse(one)
    return found


def code(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Name to hash, for the tagged cells and for each gence module that they use."""
    pieces = decides(notebook)
    read = set().union(*(names_of(piece)[0] for piece in pieces))
    used = [statement for name, statement in imports(notebook).items() if name in read]
    parts = {CELLS: "\n# next piece\n".join(pieces)}
    for path in nb.gence_modules(["\n".join(used)]):
        parts[path.relative_to(ROOT).as_posix()] = nb.code_of(path.read_text(encoding="utf-8"))
    for name in (nb.DECIDES_NOTHING, ONLY_CARRIES):
        parts.pop(name, None)
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}


def origin_of(folder: Path) -> dict[str, Any] | None:
    """Where the tables in a folder come from; None where there are none."""
    path = folder / nb.ORIGIN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def changed(page: str, notebook: nbformat.NotebookNode, *, above: Path = KEPT) -> list[str] | None:
    """What is not as it was when the evidence was made, by the names of :func:`code`; None where it was never made."""
    if (origin := origin_of(above / page)) is None:
        return None
    then, now = origin.get("code", {}), code(notebook)
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def why_stale(page: str, notebook: nbformat.NotebookNode, *, above: Path = KEPT) -> str | None:
    """None for fresh evidence, else the reason in words."""
    names = changed(page, notebook, above=above)
    if names is None:
        return "it was never made"
    if CELLS in names:
        return "the page's cells tagged evidence, or what they use, changed since it was made"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"code changed since it was made: {', '.join(names[:4])}{more}" if names else None


def status() -> dict[str, str | None]:
    """Page to the reason why its evidence is stale, or None."""
    return {page: why_stale(page, nb.read(path)) for page, path in pages().items()}


# --- making ----------------------------------------------------------------------------------------------------


def chosen(page: str | None) -> dict[str, Path]:
    """The pages that are asked for."""
    known = pages()
    if page and page not in known:
        from gence.words import nearest

        raise SystemExit(f"PAGE={page} is no page with evidence{nearest(page, known)} They are: {', '.join(known)}.")
    return {page: known[page]} if page else known


def to_make(page: str | None = None, *, force: bool = False) -> list[str]:
    """The pages whose evidence has to be made: stale in results/pages, and not made by an earlier, killed engine."""
    found = []
    for name, path in chosen(page or None).items():
        notebook = nb.read(path)
        made = why_stale(name, notebook, above=MADE) is None
        if not made and (force or why_stale(name, notebook)):
            found.append(name)
    return found


def plan(page: str | None, *, force: bool) -> str:
    """Say what has to be made and why; what was made of other code, or is to be made again, goes."""
    from gence.lab import runs

    lines = []
    for name, path in chosen(page or None).items():
        notebook = nb.read(path)
        if (MADE / name).exists() and (force or why_stale(name, notebook, above=MADE)):
            shutil.rmtree(MADE / name)
        if name in to_make(name, force=force):
            lines.append(f"{name}: {why_stale(name, notebook) or 'fresh, but asked for again'}")
    if lines and runs.provenance()["dirty"]:
        raise SystemExit("there are uncommitted changes: commit the code first, so that evidence can name its commit")
    return "\n".join(lines or ["All evidence is fresh. FORCE=1 makes it all the same."])


def make(page: str) -> None:
    """Train the networks of a page and write its tables, whole or not at all."""
    import papermill

    from gence.lab import runs

    (path,) = chosen(page).values()
    notebook = nb.read(path)
    notebook.cells = up_to_last_tag(notebook.cells)  # the rest reads the tables, and may hold them against what it says
    decided_by, started = code(notebook), runs.provenance()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"GENCE_RUNS": scratch, "GENCE_EVIDENCE": scratch}
        part = Path(scratch) / "page.ipynb"
        nbformat.write(notebook, part)
        options = {"cwd": str(path.parent), "progress_bar": {"desc": page}}
        papermill.execute_notebook(str(part), str(part), parameters={"source": "train"}, **options)
        made = Path(scratch) / page
        if (origin := origin_of(made)) is None:
            raise SystemExit(f"{page} wrote no evidence: its cells tagged {TAG} must call it by this name")
        # What ran is the code of the start. What else was written meanwhile, a page or a test, takes nothing from it.
        if code(notebook) != decided_by:
            raise SystemExit(f"the code behind {page} changed while it trained: make it again")
        origin["code"] = decided_by
        origin["provenance"] |= {name: started[name] for name in ("commit", "dirty")}
        shutil.copytree(made, MADE / page, dirs_exist_ok=True, ignore=shutil.ignore_patterns(nb.ORIGIN))
    runs.write_atomically(MADE / page / nb.ORIGIN, json.dumps(origin, indent=1) + "\n")


def accept() -> str:
    """Take fresh evidence over into results/pages; say what was taken, and what to do next."""
    taken = []
    for page, path in pages().items():
        if (origin := origin_of(MADE / page)) is None:
            continue
        if origin["provenance"]["dirty"]:
            raise SystemExit(f"{page} was made with uncommitted changes: commit the code, then make it again")
        if reason := why_stale(page, nb.read(path), above=MADE):
            raise SystemExit(f"{page}: {reason}. Make it again.")
        shutil.rmtree(KEPT / page, ignore_errors=True)
        shutil.copytree(MADE / page, KEPT / page)
        shutil.rmtree(MADE / page)
        networks, spent = origin["networks"], origin["provenance"]["duration_s"]
        taken.append(f"results/pages/{page}: {networks} networks, {spent:.0f} s")
    then = "Next: look at `git diff --stat results/pages`, commit it, then `make refresh` for the pages that read it."
    return "\n".join([*taken, then] if taken else ["Nothing new."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("plan", "make", "accept"):
        command = commands.add_parser(name)
        if name != "accept":
            command.add_argument("page", nargs=None if name == "make" else "?")
        if name == "plan":
            command.add_argument("--force", action="store_true")
    given = parser.parse_args()
    if given.command == "make":
        make(given.page)
    else:
        print(plan(given.page, force=given.force) if given.command == "plan" else accept())
    return 0


if __name__ == "__main__":
    sys.exit(main())
