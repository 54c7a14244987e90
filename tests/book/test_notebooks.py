"""Guards over the notebooks: fresh outputs, readable cells, described figures, parameters that are checked."""

from __future__ import annotations

import ast
import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import notebook_tools as nb  # noqa: E402

from gence.lab import runs  # noqa: E402
from gence.lab.results import evidence, names  # noqa: E402

ALL = nb.all_notebooks()
TRAIN = nb.NOTEBOOKS / "experiments" / "train.ipynb"
CHAPTERS = [path for path in ALL if path != TRAIN]
MAX_LINES = 40


def ids(path: Path) -> str:
    return path.stem


def markdown(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_committed_outputs_are_fresh(path):
    reason = nb.why_stale(nb.read(path))
    assert reason is None, (
        f"{path.relative_to(ROOT)}: {reason}. Commit the code, run `make refresh`, commit the outputs."
    )


def test_the_freshness_gate_sees_code_and_forgives_prose():
    notebook = nb.read(ALL[0])
    assert nb.why_stale(notebook) is None
    prose, code, module = copy.deepcopy(notebook), copy.deepcopy(notebook), copy.deepcopy(notebook)
    next(c for c in prose.cells if c.cell_type == "markdown").source += "\n\nA new sentence."
    nb.code_cells(code)[-1].source += "\nprint(1)"
    module.metadata["gence"]["code"]["gence/losses/generative.py"] = "another hash"
    assert nb.why_stale(prose) is None
    assert nb.why_stale(code) == "changed since its run: cells"
    assert nb.why_stale(module) == "changed since its run: gence/losses/generative.py"
    printed = copy.deepcopy(notebook)
    output = next(out for cell in nb.code_cells(printed) for out in cell.outputs if out.output_type == "stream")
    output.text = output.text.replace("1", "2", 1) + "more\n"
    assert nb.why_stale(printed) == "its outputs are not those of its run"


def test_the_freshness_gate_follows_imports_and_ignores_comments_and_docstrings():
    used = {path.name for path in nb.gence_modules(["from gence.lab import runs\n%pip install x"])}
    assert {"record.py", "trainers.py", "generative.py", "scores.py", "regimes.py", "__init__.py"} <= used
    assert {"storage.py", "words.py"} <= used, "also through the rooms between"
    assert "plots.py" not in used
    plain = 'def f(x):\n    return "# no comment"\n'
    noisy = (
        '"""Module."""\n\n\ndef f(x):\n    """Say what.\n\n    More."""\n    # why\n    return "# no comment"  # here\n'
    )
    assert nb.code_of(noisy) == nb.code_of(plain)
    assert nb.code_of(plain.replace("no", "a")) != nb.code_of(plain)


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_cells_are_short_executed_in_order_and_without_errors(path):
    cells = nb.code_cells(nb.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert len(cell.source.splitlines()) <= MAX_LINES, cell.source[:80]
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_every_figure_is_there_and_has_a_caption_a_name_and_an_alternative_text(path):
    names = []
    for cell in nb.code_cells(nb.read(path)):
        drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
        described = cell.metadata.get("mystnb", {})
        assert drawn == ("figure" in described), (
            "a cell that draws, and no other, has `mystnb` in its metadata, with figure (caption, name) and image "
            f"(alt):\n{cell.source[:80]}"
        )
        if drawn:
            names.append(described["figure"]["name"])
            assert len(described["figure"]["caption"]) > 30
            assert len(described["image"]["alt"]) > 30
            assert described["image"]["alt"] != described["figure"]["caption"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_every_notebook_opens_with_what_it_is_for_and_ends_with_what_was_seen(path):
    text = markdown(nb.read(path))
    for part in ("# ", "**You will be able to**", "**You need**", "**Time:**"):
        assert part in text[0], f"the first cell of {path.name} lacks {part!r}"
    headings = [line for source in text for line in source.splitlines() if line.startswith("## ")]
    assert headings[-2:] == ["## What we saw", "## Exercises"], f"the last two sections of {path.name}"


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_notebook_prose_is_plain_markdown_and_types_no_results(path):
    for source in markdown(nb.read(path)):
        assert "```{" not in source, "write a directive as :::{name}, which plain Jupyter shows as text"
        assert not re.search(r"\{\w+\}`", source), "of the roles, only {cite:...} and {prf:...} stand in notebooks"
        prose = re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|^ {4}.*$", "", source, flags=re.DOTALL | re.MULTILINE)
        assert not re.findall(r"\d+\.\d+", prose), f"a typed decimal in prose: compute it instead: {prose[:200]}"


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_every_parameter_is_checked_and_used(path):
    cells = nb.code_cells(nb.read(path))
    (at,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert all(isinstance(node, ast.Assign) for node in ast.parse(cells[at].source).body)
    assert ".from_notebook(globals())" in cells[at + 1].source, "the first cell after the parameters checks them"


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_code_without_an_idea_is_folded_and_no_other(path):
    for cell in nb.code_cells(nb.read(path)):
        reason, tags = nb.why_folded(cell), cell.metadata.get("tags", [])
        assert ("hide-input" in tags) == (reason is not None), (
            f"this cell {reason or 'carries an idea'}: run `python workflow/notebook_tools.py fold`, "
            f"or give it the tag `idea`:\n{cell.source[:200]}"
        )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import torch\nx = 1", "imports"),
        ("rows = pd.DataFrame(found)", "arranges records or makes a table"),
        ("Markdown(text)", "arranges records or makes a table"),
        ("for loss in found:\n    assert found[loss] < 1\nprint('checked')", "only checks and prints"),
        ("p = logits.softmax(1)\nprint(p.sum(0))", None),
        ("def gence(z, y):\n    return z[y]", None),
    ],
)
def test_the_rule_for_folding(source, reason):
    cell = nbformat.v4.new_code_cell(source)
    assert nb.why_folded(cell) == reason
    cell.metadata["tags"] = ["claim:G5"]
    assert nb.why_folded(cell) == "checks a claim"
    cell.metadata["tags"] += ["idea"]
    assert nb.why_folded(cell) is None


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_every_solution_is_staged_inside_one_fold(path):
    notebook = nb.read(path)
    has_solutions = any("solution" in cell.metadata.get("tags", []) for cell in notebook.cells)
    before = [cell.source for cell in nb.code_cells(notebook)]
    nb.fold_solutions(notebook)
    assert [cell.source for cell in nb.code_cells(notebook)] == before
    depth, numbers = 0, []
    for cell in notebook.cells:
        opened = re.fullmatch(r"<details.*<summary>Solution to exercise (\d+)</summary>", cell.source)
        numbers += [int(opened[1])] if opened else []
        depth += bool(opened) - (cell.source == "</details>")
        assert depth in (0, 1)
        assert ("solution" in cell.metadata.get("tags", [])) <= (depth == 1)
        if cell.cell_type == "markdown":
            assert "*Solution.*" not in cell.source, "a solution's text begins a paragraph"
            assert depth == 0 or not re.search(r"^#", cell.source, re.MULTILINE), "a heading inside a solution"
            assert depth == 0 or not re.match(r"\*\*\d+\.\*\*", cell.source)
    assert depth == 0
    assert numbers == sorted(set(numbers))
    assert numbers or not has_solutions  # a solution of words alone has no cell of its own


def test_a_solution_of_words_alone_folds_too():
    text = "**1.** Why?\n\n*Solution.* Because.\n\n**2.** And how?\n\n*Solution.* So."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nb.fold_solutions(notebook)
    shown = [re.sub(r"<details.*<summary>(.*)</summary>", r"[\1", cell.source) for cell in notebook.cells]
    first, second = ("[Solution to exercise 1", "[Solution to exercise 2")
    assert shown == ["**1.** Why?", first, "Because.", "</details>", "**2.** And how?", second, "So.", "</details>"]


def shown_outputs(path: Path) -> list[str]:
    """What the cells of a page show as text: printed lines, tables and values."""
    found = []
    for cell in nb.code_cells(nb.read(path)):
        for output in [] if "hide-output" in cell.metadata.get("tags", []) else cell.outputs:
            data = output.get("data", {})
            text = data.get("text/markdown") or data.get("text/html") or data.get("text/plain")
            found += [output.text if output.output_type == "stream" else text] if "image/png" not in data else []
    return [text for text in found if text]


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables in a text: rows of cells, the head first."""
    blocks = re.findall(r"(?:^ *\|.*\|[ ]*$\n?)+", text, re.MULTILINE)
    rows = [[re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in block.splitlines()] for block in blocks]
    return [[[cell.strip() for cell in row] for row in block] for block in rows]


KNOWN = names.LOSS_NAMES | names.METRIC_NAMES
# Words in their own right are no raw identifiers, nor are the paper's names of its metrics.
RAW = {key for key, name in KNOWN.items() if key != name and key.islower()} - {"head", "middle", "tail"}


def faults_of_form(text: str) -> list[str]:
    """What no page may show: p-values of nothing, Python's way to write data, identifiers as heads, walls of gaps."""
    found = re.findall(r"(?<![\d.])[+-]?0\.0000(?!\d)", text)
    found += re.findall(r"\{'|\['|\('|\w+\(\[|np\.\w+\(", text)
    for table in tables(text):
        found += [head for head in table[0] if head in RAW or re.search(r"(?<![`\w])[a-z]\w*_\w+(?!\w*`)", head)]
        gaps = sum(cell == "not run" for row in table for cell in row)
        found += [f"{gaps} times 'not run'"] if gaps > 1 else []
    return found


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_outputs_are_written_for_readers(path):
    notebook_faults = [fault for text in shown_outputs(path) for fault in faults_of_form(text)]
    assert notebook_faults == []
    assert not [source for source in markdown(nb.read(path)) if "0.0000" in source]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("| a | p |\n| - | - |\n| x | 0.0000 |\n", "0.0000"),
        ("{'error': '7 of 8'}", "{'"),
        ("['ce', 'gence']", "['"),
        ("np.float64(0.1)", "np.float64("),
        ("| loss | classwise_ece |\n| - | - |\n", "classwise_ece"),
        ("| loss | ece |\n| - | - |\n", "ece"),
        ("| a | b |\n| - | - |\n| not run | not run |\n", "2 times 'not run'"),
    ],
)
def test_a_fault_of_form_is_seen(text, fault):
    assert faults_of_form(text) == [fault]


def test_good_form_is_let_through():
    assert faults_of_form("| loss | `n_per_class` | ECE |\n| - | - | - |\n| CE | not run | < 0.0001 |\n") == []
    assert faults_of_form("error 0.00004, difference -0.50 [-1.00, +0.00]") == []


def papermill(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_run_notebook_works_from_another_folder(tmp_path):
    done = papermill(
        *(str(TRAIN), "out.ipynb", "-p", "loss", "gence", "-p", "dataset", "digits", "-p", "n_per_class", "10"),
        *("-p", "rho", "50", "-p", "tier", "smoke", "-p", "out", "here"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out.ipynb").exists()
    assert len(list((tmp_path / "here").glob("digits-mlp-gence-n10-rho50-b32-*/seed*.json"))) == 2


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("lss", "gence", "unknown run parameter 'lss'; nearest valid: 'loss'"),
        ("rho", "0", "rho = 0 is not allowed"),
    ],
)
@pytest.mark.thorough  # what is refused, and how, is tested without a kernel: here that it stops one
def test_a_wrong_parameter_stops_the_run_notebook_at_its_first_cell(tmp_path, name, value, needed):
    done = papermill(str(TRAIN), "out.ipynb", "-p", name, value, cwd=tmp_path)
    assert done.returncode != 0
    assert needed in done.stderr
    executed = nb.code_cells(nb.read(tmp_path / "out.ipynb"))
    guard = next(i for i, cell in enumerate(executed) if ".from_notebook(globals())" in cell.source)
    assert executed[guard].outputs[-1].output_type == "error"
    assert all(not cell.outputs for cell in executed[guard + 1 :])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", [*CHAPTERS, TRAIN], ids=ids)
def test_a_notebook_refuses_an_unknown_parameter(path):
    """What its guard says when it runs after the cell that papermill injects; a kernel for each would take minutes."""
    cells = [cell.source for cell in nb.code_cells(nb.read(path))]
    (at,) = [i for i, source in enumerate(cells) if ".from_notebook(globals())" in source]
    ((room, kind),) = re.findall(r"(runs|evidence)\.(\w+)\.from_notebook\(globals\(\)\)", cells[at])
    parameters = getattr({"runs": runs, "evidence": evidence}[room], kind)
    namespace: dict[str, object] = {"n_seeds": 3}
    exec(cells[at - 1], namespace)
    with pytest.raises(runs.ParameterError, match="unknown run parameter 'n_seeds'; nearest valid: 'seeds'"):
        parameters.from_notebook(namespace | {"In": [*cells[:at], "n_seeds = 3", cells[at]]})
    assert parameters.from_notebook(namespace | {"In": cells[: at + 1]}).seeds


@pytest.mark.thorough  # the run notebook is executed at this tier above
@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
def test_a_chapter_runs_at_the_smoke_tier(tmp_path, path):
    done = papermill(str(path), "out.ipynb", "-p", "tier", "smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_warning_in_a_cell_stops_the_stamping():
    notebook = nb.read(TRAIN)
    executed = copy.deepcopy(notebook)
    nb.code_cells(executed)[2].outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning: odd")]
    with pytest.raises(SystemExit, match="UserWarning"):
        nb.take_outputs(notebook, executed)


def test_outputs_of_other_code_are_refused():
    notebook = nb.read(TRAIN)
    executed = copy.deepcopy(notebook)
    nb.code_cells(executed)[2].source += "\n# changed"
    with pytest.raises(SystemExit, match="other code cells"):
        nb.take_outputs(notebook, executed)


def test_check_pages_finds_missing_empty_and_unlisted_pages(tmp_path):
    for page in nb.pages_of_toc():
        path = tmp_path / f"{page}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 10_000)
    assert nb.check_pages(tmp_path) == []
    (tmp_path / "book" / "loss.html").unlink()
    (tmp_path / "book" / "index.html").write_text("")
    (tmp_path / "book" / "forgotten.html").write_text("x" * 10_000)
    assert nb.check_pages(tmp_path) == [
        "book/loss.html is missing",
        "book/forgotten.html is not in _toc.yml",
        "book/index.html holds only 0 bytes",
    ]
    shutil.rmtree(tmp_path)
