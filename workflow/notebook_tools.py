"""Executing, stamping, checking and staging the book's notebooks. The Snakefile and the tests call this.

With `python workflow/notebook_tools.py` before them:

    run NOTEBOOK OUT      execute with papermill; write outputs and their origin to OUT
    status                say for every committed notebook, and all recorded evidence, whether it is fresh, or why not
    accept EXECUTED...    take outputs of fresh executions over into notebooks/
    fold                  tag the cells whose code carries no idea with hide-input, and only those
    pin                   write the cells that install: the version behind each notebook's outputs
    stage OUT [EXECUTED]  lay out the sources of the book, outputs from EXECUTED
    check-pages HTML      compare the built pages with _toc.yml

A notebook is *fresh* when its code cells, the code of the ``gence`` modules it imports, and the tables of results/pages
that it reads are those of the run that made its outputs, and its outputs are as that run left them. Prose, comments and
docstrings may change without a new run.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import yaml

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
EVIDENCE = ROOT / "results" / "pages"  # workflow/evidence.py makes it
ORIGIN = "origin.json"
# Below this a built page holds no content: an empty deployment once stayed unnoticed for months elsewhere.
MIN_PAGE_BYTES = 5_000


def all_notebooks() -> list[Path]:
    return sorted(p for p in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The notebook's own code cells, without what papermill injected."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


# --- the cell that installs ------------------------------------------------------------------------------------

# For Colab, and wherever else the package is missing: the commit behind the page's outputs, with its recorded runs.
INSTALL = """\
# Only needed where the package is missing, for example on Colab.
import importlib.util

if importlib.util.find_spec("gence") is None:
    !git clone -q {address} gence-book
    %cd -q gence-book
    !git checkout -q {version}  # what the outputs below were made with
    %pip install -q ".[sweep]\""""
# What hashes have in its place, so that no page is stale because it installs another version: its first wording.
INSTALL_AS_HASHED = """\
# Only needed where the package is missing, for example on Colab.
import importlib.util

if importlib.util.find_spec("gence") is None:
    %pip install -q "gence[sweep] @ git+{address}\""""


def configuration() -> dict[str, Any]:
    """The book's configuration; `repository` there is the one place that holds the address of the repository."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@lru_cache
def address() -> str:
    return configuration()["repository"]["url"]


def installs(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and cell.source.startswith(INSTALL.partition("\n")[0])


def pin(notebook: nbformat.NotebookNode) -> None:
    """Let the cell that installs take the commit that made the notebook's outputs; without outputs, the main branch."""
    version = notebook.metadata.get("gence", {}).get("commit") or configuration()["repository"]["branch"]
    for cell in filter(installs, notebook.cells):
        cell.source = INSTALL.format(address=address(), version=version)


def sources_of(notebook: nbformat.NotebookNode) -> list[str]:
    """The code that decides the notebook's numbers, cell by cell."""
    installing = INSTALL_AS_HASHED.format(address=address())
    return [installing if installs(cell) else cell.source for cell in code_cells(notebook)]


# --- freshness -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def code_of(source: str) -> str:
    """Source without comments, docstrings, blank lines and trailing spaces: what can change a result."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body and _is_docstring(body[0]):
            for row in range(body[0].lineno - 1, body[0].end_lineno):
                lines[row] = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and lines[row - 1]:
            lines[row - 1] = lines[row - 1][:column]
    text = "\n".join(line.rstrip() for line in lines if line.strip())
    return text


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def gence_modules(sources: list[str]) -> list[Path]:
    """Files of the gence modules that these sources import, and of those that these import in turn."""
    found: set[Path] = set()
    pending = list(sources)
    while pending:
        for path in _imported(pending.pop()) - found:
            found.add(path)
            pending.append(path.read_text(encoding="utf-8"))
    return sorted(found)


@lru_cache(maxsize=1024)
def _imported(source: str) -> frozenset[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(without_magics(source))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gence":
            found |= {_file_of(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {_file_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "gence"}
    return frozenset(found)


@lru_cache(maxsize=1024)
def _file_of(module: str, name: str | None = None) -> Path:
    """The file that gives out a name of a module: of a folder's face, the room that the face has it from."""
    here = ROOT.joinpath(*module.split("."))
    if here.with_suffix(".py").exists():
        return here.with_suffix(".py")
    face = here / "__init__.py"
    if name is None:
        return face
    if (here / name).is_dir() or (here / f"{name}.py").exists():
        return _file_of(f"{module}.{name}")
    for node in ast.walk(ast.parse(face.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return _file_of(node.module, name)
    return face


def without_magics(source: str) -> str:
    """IPython's % and ! lines are no Python; keep their indentation valid."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def evidence_of(notebook: nbformat.NotebookNode) -> dict[str, Any] | None:
    """The origin of the recorded tables that a notebook reads; None where it reads none."""
    sources = "\n".join(cell.source for cell in code_cells(notebook))
    found = re.search(r"""\bevidence\.of_\w+\(\s*["']([^"']+)""", sources)
    path = EVIDENCE / found[1] / ORIGIN if found else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else None


# Says where a run comes from, and decides no number.
DECIDES_NOTHING = "gence/lab/runs/provenance.py"


def code_hashes(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Name to hash, for the notebook's cells and for each gence module they use."""
    sources = sources_of(notebook)
    parts = {"cells": "\n# next cell\n".join(sources)}
    for path in gence_modules(sources):
        parts[path.relative_to(ROOT).as_posix()] = code_of(path.read_text(encoding="utf-8"))
    parts.pop(DECIDES_NOTHING, None)
    if origin := evidence_of(notebook):  # its tables, not when and where they were made
        parts[f"results/pages/{origin['page']}"] = json.dumps(origin["tables"], sort_keys=True)
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}


def why_stale(notebook: nbformat.NotebookNode) -> str | None:
    """None for a fresh notebook, else the reason in words."""
    stamp = notebook.metadata.get("gence")
    if stamp is None:
        return "it was never executed by `make refresh`"
    now = code_hashes(notebook)
    changed = [name for name in now if stamp["code"].get(name) != now[name]]
    changed += [name for name in stamp["code"] if name not in now and name != DECIDES_NOTHING]
    more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
    if changed:
        return f"changed since its run: {', '.join(changed[:4])}{more}"
    return None if stamp.get("outputs") == outputs_hash(notebook) else "its outputs are not those of its run"


def outputs_hash(notebook: nbformat.NotebookNode) -> str:
    """A hash of all outputs as they stand in the file: text, tables and images."""
    written = nbformat.reads(nbformat.writes(notebook), as_version=4)
    outputs = [cell.outputs for cell in code_cells(written)]
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:16]


# --- execution -------------------------------------------------------------------------------------------------


def run(source: Path, target: Path) -> None:
    """Execute a notebook with papermill and write it, normalised and stamped; nothing is written on failure."""
    import papermill

    from gence.lab import runs

    notebook = read(source)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GENCE_RUNS"] = scratch  # a fresh execution must not find records of earlier ones
        raw = Path(scratch) / "executed.ipynb"
        papermill.execute_notebook(str(source), str(raw), cwd=str(source.parent), progress_bar={"desc": source.stem})
        executed = read(raw)
    duration = time.perf_counter() - start
    take_outputs(notebook, executed)
    parameters = runs.Parameters.of(**_common_parameters(notebook))
    origin = runs.provenance()
    notebook.metadata["gence"] = {
        "code": code_hashes(notebook),
        "tier": parameters.tier,
        "outputs": outputs_hash(notebook),
        "n_seeds": len(parameters.effective().seeds),
        "duration_s": round(duration),
        **{key: origin[key] for key in ("commit", "dirty", "date", "device", "python", "torch", "gence")},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    runs.write_atomically(target, nbformat.writes(notebook) + "\n")


def _common_parameters(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """Seeds and tier, as the cell tagged "parameters" sets them."""
    for cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            body = ast.parse(cell.source).body
            values = {node.targets[0].id: ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign)}
            return {name: values[name] for name in ("seeds", "tier") if name in values}
    raise SystemExit("the notebook has no cell tagged 'parameters'")


def take_outputs(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> None:
    """Put the outputs of an execution into a notebook with the same code cells, without what changes by itself."""
    mine, theirs = code_cells(notebook), code_cells(executed)
    if sources_of(notebook) != sources_of(executed):
        raise SystemExit("the execution has other code cells than the notebook: run `make clean`, then `make book`")
    for count, (cell, done) in enumerate(zip(mine, theirs, strict=True), start=1):
        cell.outputs = [output for output in done.outputs if not _is_progress(output)]
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
    notebook.metadata = {
        key: value for key, value in executed.metadata.items() if key in ("kernelspec", "language_info", "gence")
    }
    notebook.metadata.get("language_info", {}).pop("version", None)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Progress bars go to stderr; anything else there is a warning that must not be published unseen."""
    if output.get("name") != "stderr":
        return False
    if "warning" in output.text.lower() or "error" in output.text.lower():
        raise SystemExit(f"a cell wrote a warning, which no page may carry:\n{output.text}")
    return True


def accept(executed: list[Path]) -> None:
    """Take the outputs of fresh executions of the present code over into the committed notebooks."""
    for path in executed:
        source = NOTEBOOKS / path.relative_to(_executed_root(path))
        done, notebook = read(path), read(source)
        stamp = done.metadata["gence"]
        if stamp["dirty"]:
            raise SystemExit(f"{source.name} was run on changed, uncommitted files: commit the code, then run again")
        take_outputs(notebook, done)
        if why_stale(notebook):
            raise SystemExit(f"{source.name}: {why_stale(notebook)}. Run again.")
        pin(notebook)
        source.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(f"accepted {source.relative_to(ROOT)}")


def _executed_root(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "executed")


# --- what a page shows -----------------------------------------------------------------------------------------

# Calls that arrange records or write tables.
ARRANGES = re.compile(
    r"^(evidence|sources|tables|predictions|pd)\.|(^|\.)[mM]arkdown$|^display$"
    r"|\.(groupby|pivot|pivot_table|set_index|reset_index|assign|iterrows|to_dict|to_markdown)$"
)


def why_folded(cell: nbformat.NotebookNode) -> str | None:
    """Why the code of a cell is folded on its page; None where it is shown.

    Folded is what carries no idea: parameters, imports, evidence, figures, tables, records, checks of claims, cells
    that only check or print.
    The tag ``idea`` keeps a cell open all the same. Code of solutions is folded with its solution.
    """
    tags = cell.metadata.get("tags", [])
    if "solution" in tags or "idea" in tags:
        return None
    if "parameters" in tags:
        return "sets parameters"
    if "evidence" in tags:
        return "makes evidence"
    if any(tag.startswith("claim:") for tag in tags):
        return "checks a claim"
    if "figure" in cell.metadata.get("mystnb", {}):
        return "draws a figure"
    tree = ast.parse(without_magics(cell.source))
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        return "imports"
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if any(map(ARRANGES.search, calls)):
        return "arranges records or makes a table"
    return "only checks and prints" if all(map(_checks_or_prints, _leaves(tree.body))) else None


def _leaves(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements inside loops and branches."""
    for node in body:
        if isinstance(node, ast.For | ast.If | ast.With):
            yield from _leaves([*node.body, *getattr(node, "orelse", [])])
        else:
            yield node


def _checks_or_prints(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(node, ast.Assert) or (isinstance(call, ast.Call) and ast.unparse(call.func) == "print")


def fold(notebook: nbformat.NotebookNode) -> None:
    """Give the tag ``hide-input`` to the cells that :func:`why_folded` names, and to no other."""
    for cell in code_cells(notebook):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "hide-input"]
        tags += ["hide-input"] if why_folded(cell) else []
        if tags:
            cell.metadata["tags"] = tags
        else:
            cell.metadata.pop("tags", None)


# A paragraph that opens an exercise, or its solution.
OPENING = re.compile(r"^(?=\*\*\d+\.\*\* |\*Solution\.\* )", re.MULTILINE)


def fold_solutions(notebook: nbformat.NotebookNode) -> None:
    """Put each solution into one fold: its code cells, tagged ``solution``, their outputs, and the text that explains.

    In a notebook the code of a solution stands before its text, which begins with *Solution.*; the next exercise, which
    begins with its number in bold, or a heading ends it.
    """
    cells: list[nbformat.NotebookNode] = []
    number, is_open = "", False

    def turn(opened: bool) -> None:
        nonlocal is_open
        if opened != is_open:
            start = f'<details class="toggle-details solution"><summary>Solution to exercise {number}</summary>'
            cells.append(nbformat.v4.new_markdown_cell(start if opened else "</details>"))
        is_open = opened

    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            turn("solution" in cell.metadata.get("tags", []))
            cells.append(cell)
            continue
        for part in filter(str.strip, OPENING.split(cell.source)):
            if part.startswith("*Solution.*"):
                turn(True)
            elif found := re.match(r"\*\*(\d+)\.\*\* ", part):
                turn(False)
                number = found[1]
            elif part.startswith("#"):
                turn(False)
            text = part.removeprefix("*Solution.* ").strip()
            cells.append(nbformat.v4.new_markdown_cell(text, metadata=cell.metadata))
    turn(False)
    notebook.cells = cells


# --- the book's sources ----------------------------------------------------------------------------------------


def stage(target: Path, executed: Path | None) -> None:
    """Lay out the book's sources: prose from the working tree, outputs from `executed` or as committed."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "book", target / "book", ignore=shutil.ignore_patterns("__pycache__"))
    with (target / "book" / "claims.md").open("a", encoding="utf-8") as page:
        page.write(ledger())
    shutil.copy2(ROOT / "_toc.yml", target)
    shutil.copy2(ROOT / "CITATION.cff", target)
    (target / "_config.yml").write_text(yaml.safe_dump(published(configuration()), sort_keys=False), encoding="utf-8")
    for source in all_notebooks():
        inside = source.relative_to(NOTEBOOKS)
        notebook = read(source)
        if executed is not None:
            take_outputs(notebook, read(executed / inside))
        fold_solutions(notebook)
        if picture := picture_of(notebook, HERO):
            (target / "book" / "hero.png").write_bytes(picture)
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(freshness_line(notebook)))
        path = target / "notebooks" / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(notebook), encoding="utf-8")


# The figure that the first page shows, too.
HERO = "fig-found-hero"


def picture_of(notebook: nbformat.NotebookNode, name: str) -> bytes | None:
    """The picture of the figure of this name, as the notebook has drawn it; None where it has no such figure."""
    for cell in code_cells(notebook):
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            for output in cell.outputs:
                if png := output.get("data", {}).get("image/png"):
                    return base64.b64decode(png)
    return None


# Names the tag or commit that is being published; not set in a build that stays on this machine.
REF = "GENCE_REF"


def published(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the version that the pages name; published ones launch, and link to, just that version."""
    ref = os.environ.get(REF)
    here = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    name = ref or here or "unknown"
    shown = f"commit {name[:12]}" if re.fullmatch("[0-9a-f]{40}", name) else name
    config["sphinx"]["config"] |= {"release": shown, "book_is_published": bool(ref)}
    if ref:
        config["repository"]["branch"] = ref
    return config


def freshness_line(notebook: nbformat.NotebookNode) -> str:
    """One line for the top of the page: where its numbers come from and whether they are up to date."""
    stamp, stale = notebook.metadata.get("gence"), why_stale(notebook)
    if stamp is None:
        return '<p class="freshness stale">Not run.</p>'
    commit = f"commit {stamp['commit'] or 'unknown'}" + (" with uncommitted changes" if stamp["dirty"] else "")
    parts = [
        f"{stamp['tier']} tier",
        f"{stamp['n_seeds']} seeds",
        stamp["device"],
        f"torch {stamp['torch']}",
        commit,
        stamp["date"][:10],
        f"{stamp['duration_s']} s",
        f"stale: {stale}" if stale else "fresh",
    ]
    text = f"This page was run: {' · '.join(parts)}{trained_line(notebook)}"
    return f'<p class="freshness {"stale" if stale else "fresh"}">{text}</p>'


def trained_line(notebook: nbformat.NotebookNode) -> str:
    """Where the networks were trained whose numbers a page reads; empty for a page that reads none."""
    if (origin := evidence_of(notebook)) is None:
        return ""
    made = origin["provenance"]
    parts = [
        f"{origin['networks']} networks, {len(origin['seeds'])} seeds",
        made["device"],
        f"torch {made['torch']}",
        f"commit {made['commit'] or 'unknown'}",
        made["date"][:10],
        f"{made['duration_s']:.0f} s",
    ]
    return f"<br>Its numbers were recorded: {' · '.join(parts)}"


@lru_cache
def _claims() -> tuple[dict[str, str], ...]:
    written = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))
    return (*written, *prediction_claims(prediction_verdicts()))


def claims() -> list[dict[str, str]]:
    """The claim ledger's data: what book/claims.yml holds, and a row for each prediction, computed from the records."""
    return [dict(claim) for claim in _claims()]


# The files of the predictions, and where a notebook shows their verdicts.
PREDICTIONS = {
    "predictions.yml": "notebooks/batch/predictions.ipynb#The verdicts",
    "predictions_follow_up.yml": "notebooks/batch/predictions.ipynb#A second round",
    "predictions_photographs.yml": "notebooks/experiments/photographs.ipynb#The verdicts",
    "predictions_features.yml": "notebooks/experiments/frozen_features.ipynb#The verdicts",
    "predictions_fresh_seeds.yml": "notebooks/experiments/fresh_seeds.ipynb#The verdicts",
    "predictions_pixels.yml": "notebooks/experiments/pixels.ipynb#The verdicts",
    "predictions_capstone.yml": "notebooks/experiments/trial.ipynb#The verdicts",
    "predictions_learning_curves.yml": "notebooks/experiments/learning_curves.ipynb#The verdicts",
    "predictions_gentle_tail.yml": "notebooks/experiments/pixels.ipynb#A gentle tail",
    "predictions_after_training.yml": "notebooks/experiments/after_training.ipynb#The verdicts",
    "predictions_pixels_more.yml": "notebooks/experiments/pixels.ipynb#All losses of the paper",
}
PREDICTIONS_TEST = "tests/lab/results/test_predictions.py::test_the_ledger_says_of_each_prediction_what_the_records_say"
STATUS_OF_VERDICT = {"met": "holds", "refuted": "fails", "open": "open", "not run": "open"}
NETWORK_OF_GRID = {
    "minibatch": "one small perceptron on digits",
    "minibatch_cifar": "a small CNN on a part of CIFAR",
    "minibatch_longer": "a small CNN on a part of CIFAR",
    "photographs_gpu": "a ResNet-18 on CIFAR-10 with a long tail",
    "experiments/frozen_features": "perceptrons on frozen features of CIFAR-100",
    "experiments/fresh_seeds": "perceptrons on frozen features of CIFAR-100",
    "experiments/learning_curves": "perceptrons on frozen features of CIFAR-100",
    "experiments/after_training": "perceptrons on frozen features of CIFAR-100",
    "pixels": "a small CNN on a few images of CIFAR",
    "pixels_control": "a small CNN on 500 images of CIFAR-10",
    "pixels_gentle": "a small CNN on a gentle tail of CIFAR-10",
    "pixels_resnet": "a ResNet-20 on a few images of CIFAR-10",
    "capstone": "one small perceptron on digits",
    "capstone_noise": "one small perceptron on digits with wrong training labels",
    "capstone_rate": "one small perceptron on digits with wrong training labels",
    "capstone_attack": "a perceptron on frozen features of CIFAR-100",
}


def prediction_verdicts() -> pd.DataFrame:
    """One row for each test of a prediction, judged from results/; `derivation` says where a page shows it."""
    import pandas as pd

    from gence.lab.results import predictions

    judged = {file: predictions.judge(predictions.load_predictions(ROOT / "book" / file)) for file in PREDICTIONS}
    return pd.concat([table.assign(derivation=PREDICTIONS[file]) for file, table in judged.items()], ignore_index=True)


def prediction_claims(verdicts: pd.DataFrame) -> list[dict[str, str]]:
    """A ledger row for each prediction: it fails if one of its tests is refuted, holds if all are met, else is open."""
    rows = []
    for name, tests in verdicts.groupby("id", sort=False):
        counts = tests["verdict"].value_counts()
        verdict = "refuted" if "refuted" in counts else "met" if set(counts.index) == {"met"} else "open"
        shown = tests["derivation"].iloc[0]
        found = ", ".join(f"{counts[kind]} {kind}" for kind in STATUS_OF_VERDICT if kind in counts)
        seeds = tests.loc[tests["verdict"] != "not run", "n"]
        rows.append(
            {
                "id": f"prediction-{name[1:]}",
                "statement": f"Prediction {name}. {tests['says'].iloc[0]}",
                "source": "ours",
                "derivation": shown,
                "check": shown.split("#")[0],
                "test": PREDICTIONS_TEST,
                "status": STATUS_OF_VERDICT[verdict],
                "note": f"{len(tests)} {'test' if len(tests) == 1 else 'tests'} with "
                f"{seeds.min() if len(seeds) else 0} paired seeds: "
                f"{found}. Runs: {NETWORK_OF_GRID[tests['grid'].iloc[0]]}.",
            }
        )
    return rows


def ledger() -> str:
    """The claim ledger as a Markdown page body: one section for each status, one block for each claim."""
    headings = {"fails": "Does not hold", "holds": "Holds", "open": "Open"}
    printed = "*As printed*: the verdict is arithmetic on the cells that the paper prints; no run of ours is behind it."
    lines = ["", printed]
    for status, heading in headings.items():
        chosen = [claim for claim in claims() if claim["status"] == status]
        if chosen:
            lines += ["", f"## {heading} ({len(chosen)})", "", *map(_ledger_entry, chosen)]
    return "\n".join(lines) + "\n"


def _ledger_entry(claim: dict[str, str]) -> str:
    evidence = [f"[{kind}](../{claim[kind].split('#')[0]})" for kind in ("derivation", "check") if claim.get(kind)]
    if claim.get("test"):
        evidence.append(f"`{claim['test'].removeprefix('tests/')}`")
    # What is counted in the printed cells says nothing about new runs.
    as_printed = ", *as printed*" if claim.get("basis") == "printed" else ""
    return (
        f"**{claim['id']}**{as_printed} ({claim['source']}). {claim['statement']}\n\n"
        f"> {claim['note']} *Evidence:* {', '.join(evidence)}\n"
    )


def pages_of_toc() -> list[str]:
    """The documents that _toc.yml names, without extension."""
    found: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.extend(str(value) for key, value in node.items() if key in ("root", "file"))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    return found


def redirects() -> dict[str, str]:
    """Old address to new one, as _config.yml has them."""
    return configuration()["sphinx"]["config"]["redirects"]


def check_pages(html: Path) -> list[str]:
    """What is wrong with a build: pages of the contents that are missing or empty, pages nobody can reach."""
    wanted = {f"{page}.html" for page in pages_of_toc()}
    moved = {f"{old}.html": (Path(old).parent / new.partition("#")[0]).as_posix() for old, new in redirects().items()}
    extra = {"index.html", "genindex.html", "search.html", "py-modindex.html", "prf-prf.html", *moved}
    built = {str(p.relative_to(html)) for p in html.rglob("*.html") if "_static" not in p.parts}
    wrong = [f"{page} is missing" for page in sorted(wanted - built)]
    wrong += [f"{page} is not in _toc.yml" for page in sorted(built - wanted - extra)]
    wrong += [
        f"{old} leads to {new}, which is no page" for old, new in moved.items() if os.path.normpath(new) not in wanted
    ]
    for page in sorted(wanted & built):
        size = (html / page).stat().st_size
        if size < MIN_PAGE_BYTES:
            wrong.append(f"{page} holds only {size} bytes")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "run": ("source", "target"),
        "status": (),
        "accept": ("executed+",),
        "fold": (),
        "pin": (),
        "stage": ("target", "executed?"),
        "check-pages": ("html",),
    }.items():
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument.rstrip("+?"), type=Path, nargs=argument[-1] if argument[-1] in "+?" else None)
    given = parser.parse_args()
    if given.command == "run":
        run(given.source.resolve(), given.target)
    elif given.command == "accept":
        accept([path.resolve() for path in given.executed])
    elif given.command in ("fold", "pin"):
        for path in all_notebooks():
            notebook = read(path)
            {"fold": fold, "pin": pin}[given.command](notebook)
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    elif given.command == "stage":
        stage(given.target, given.executed)
    elif given.command == "check-pages":
        wrong = check_pages(given.html)
        print("\n".join(wrong) if wrong else f"{len(pages_of_toc())} pages of _toc.yml are built")
        return 1 if wrong else 0
    else:
        import evidence

        reasons = {path.relative_to(ROOT).as_posix(): why_stale(read(path)) for path in all_notebooks()}
        reasons |= {f"results/pages/{page}": reason for page, reason in evidence.status().items()}
        for name, reason in reasons.items():
            print(f"{name}: {f'stale, {reason}' if reason else 'fresh'}")
        return 1 if any(reasons.values()) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
