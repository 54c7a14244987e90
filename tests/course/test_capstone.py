"""The capstone's script: a made-up hand-in has all points, and each planted fault costs its own row and no other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import capstone  # noqa: E402
import mutants  # noqa: E402
import notebook_tools as nb  # noqa: E402

LOSS = "def mine(p, y, q=0.5, *, scale=1.0):\n    return scale * (1 - p[y] ** q) / q\n"
TESTS = """import pytest
from my_loss import mine


@pytest.mark.parametrize(("p", "wanted"), [(1.0, 0.0), (0.25, 1.0), (0.0, 2.0)])
def test_values(p, wanted):
    assert mine([p, 1 - p], 0) == wanted
"""
LOSSES = ("ce", "mine", "logit_adjustment")
TERMS = "mine @ 16 - ce @ 16"
SAYS = {
    "loss": "my_loss:mine",
    "variant": "mine",
    "rivals": ["logit_adjustment"],
    "tests": ["test_my_loss.py"],
    "predictions": "book/mine.yml",
    "grids": ["workflow/grids/mine.yaml"],
    "verdicts": "results/verdicts.csv",
    "page": "notebooks/trial.ipynb",
}
CODE, VERDICT = "tests kill two mutants", "verdicts follow the rule"
READ, FIRST, SEEDS = "predictions can be read", "predictions come first", "seeds and rivals"
RECORDS, FRESH = "records are complete", "page is fresh"


def predictions() -> list[dict]:
    one = {"says": "s", "why": "w", "grid": "mine", "over": [{"rho": 1, "pilot_seen": "no", "terms": TERMS}]}
    asked = (("M1", "error", "< 0"), ("M2", "nll", "> 0"), ("M3", "ece", "0 +- 0.5"))
    return [one | {"id": name, "metric": metric, "expect": expect} for name, metric, expect in asked]


def grid(seeds: int = 20, losses: tuple[str, ...] = LOSSES) -> dict:
    vary = {"loss": list(losses), "rho": [1, 50], "batch_size": [16, 64]}
    return {"fixed": {"dataset": "digits", "seeds": seeds}, "vary": vary}


def records(planned: dict) -> pd.DataFrame:
    """The loss is better than all in error and in NLL: M1 is met, M2 refuted."""
    rng, rows = np.random.default_rng(0), []
    for one in capstone.runs_of(planned):
        identity = f"{one['loss']}-{one['rho']}-{one['batch_size']}"
        for seed in one["seeds"]:
            better = 0.1 * (one["loss"] == "mine") + rng.normal(0, 0.001)
            measured = {"error": 0.3 - better, "nll": 0.9 - better, "ece": 0.1 + rng.normal(0, 0.001)}
            rows.append(
                {k: v for k, v in one.items() if k != "seeds"} | {"identity": identity, "seed": seed} | measured
            )
    fixed = {"checkpoint": "last", "loss_options": "{}", "recipe_options": "{}", "class_error": json.dumps([0.1] * 10)}
    return pd.DataFrame(rows).assign(dirty=False, **fixed)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a step")


def put(folder: Path, planned: dict) -> None:
    (folder / "workflow/grids/mine.yaml").write_text(yaml.safe_dump(planned))
    records(planned).to_csv(folder / "results/mine.csv", index=False)


def judged(folder: Path) -> None:
    capstone._verdicts(capstone.read(folder)).to_csv(folder / "results/verdicts.csv", index=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A hand-in with nothing wrong: predictions in its first commit, records in the second."""
    folder = tmp_path_factory.mktemp("handed") / "in"
    for name in ("book", "workflow/grids", "results", "notebooks"):
        (folder / name).mkdir(parents=True)
    (folder / "_config.yml").write_text("repository: {url: somewhere}\n")
    (folder / "capstone.yml").write_text(yaml.safe_dump(SAYS))
    (folder / "my_loss.py").write_text(LOSS)
    (folder / "test_my_loss.py").write_text(TESTS)
    (folder / "book/mine.yml").write_text(yaml.safe_dump({"predictions": predictions()}))
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    page.metadata["gence"] = {"code": nb.code_hashes(page), "outputs": nb.outputs_hash(page)}
    nbformat.write(page, folder / "notebooks/trial.ipynb")
    git(folder.parent, "init", "-q", str(folder))
    commit(folder)
    put(folder, grid())
    judged(folder)
    commit(folder)
    return folder


@pytest.fixture
def handed(whole, tmp_path, monkeypatch) -> Path:
    """A copy to spoil; what the same tests say of the same loss is asked once."""
    monkeypatch.setattr(mutants, "tried", lambda folder, loss, tests, mutant: dict(_tried(*_code(folder), mutant)))
    return shutil.copytree(whole, tmp_path / "in")


def _code(folder: Path) -> tuple[str, str]:
    return (folder / "my_loss.py").read_text(), (folder / "test_my_loss.py").read_text()


REALLY_TRIED = mutants.tried


@cache
def _tried(loss: str, tests: str, mutant: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "my_loss.py").write_text(loss)
        Path(folder, "test_my_loss.py").write_text(tests)
        limits = mutants.walls.Limits(total=2) if "while True" in loss else mutants.LIMITS
        return REALLY_TRIED(Path(folder), SAYS["loss"], SAYS["tests"], mutant, limits)


def lost(folder: Path) -> dict[str, str]:
    """The rows without points, and why."""
    return {name: " ".join(wrong) for name, wrong in capstone.checked(capstone.read(folder)).items() if wrong}


def test_a_whole_hand_in_has_all_points(handed):
    found = capstone.checked(capstone.read(handed))
    assert not any(found.values()), found
    said = capstone.table_of(found)
    total = sum(row.points for row in capstone.ROWS.values())
    assert total == 42 and f"{total} of {total} points" in said and said.count("|\n") == len(capstone.ROWS) + 2


def swap(path: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return spoil


def rewrite_history(folder: Path) -> None:
    """Predictions and records in one commit."""
    shutil.rmtree(folder / ".git")
    git(folder.parent, "init", "-q", str(folder))
    commit(folder)


def turn_a_prediction(folder: Path) -> None:
    """After the runs, M2 says what came out; its new verdict is in the table."""
    entries = predictions()
    entries[1]["expect"] = "< 0"
    (folder / "book/mine.yml").write_text(yaml.safe_dump({"predictions": entries}))
    judged(folder)
    commit(folder)


def two_predictions(folder: Path) -> None:
    (folder / "book/mine.yml").write_text(yaml.safe_dump({"predictions": predictions()[:2]}))
    judged(folder)


def ten_seeds(folder: Path) -> None:
    put(folder, grid(seeds=10))
    judged(folder)


def no_rival(folder: Path) -> None:
    put(folder, grid(losses=LOSSES[:2]))


def one_ratio(folder: Path) -> None:
    planned = grid()
    planned["vary"]["rho"] = [1]
    put(folder, planned)


def without(path: str, keep: Callable[[pd.DataFrame], pd.Series]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        table = pd.read_csv(folder / path)
        table[keep(table)].to_csv(folder / path, index=False)

    return spoil


NOTHING = "from my_loss import mine\n\n\ndef test_nothing():\n    assert mine([0.5], 0) is not None\n"
SIGN_ONLY = "from my_loss import mine\n\n\ndef test_sign():\n    assert mine([0.5], 0) > 0\n"
FAULTS = {
    "in one commit": (rewrite_history, FIRST, "M1 is not older than the records"),
    "turned afterwards": (turn_a_prediction, FIRST, "M2 was changed after the records"),
    "ten seeds": (ten_seeds, SEEDS, "10 seeds; run at least 20"),
    "no rival": (no_rival, SEEDS, "no rival"),
    "one ratio": (one_ratio, SEEDS, "one ratio only"),
    "a record missing": (
        without("results/mine.csv", lambda t: (t.seed != 7) | (t.loss != "mine") | (t.rho != 50)),
        RECORDS,
        "lacks 2 records",
    ),
    "uncommitted code": (swap("results/mine.csv", "False", "True"), RECORDS, "uncommitted code"),
    "a refuted one hidden": (
        without("results/verdicts.csv", lambda t: t.verdict != "refuted"),
        VERDICT,
        "M2 (mine @ 16 - ce @ 16, rho 1) is refuted",
    ),
    "a kinder verdict": (swap("results/verdicts.csv", "refuted", "open"), VERDICT, "M2"),
    "one nobody predicted": (swap("results/verdicts.csv", "M3", "M4"), VERDICT, "M4"),
    "a field empty": (swap("book/mine.yml", "says: s", "says: ''"), READ, "lacks says"),
    "two predictions": (two_predictions, READ, "fewer than three"),
    "tests that kill nothing": (lambda f: (f / "test_my_loss.py").write_text(NOTHING), CODE, "its sign flipped"),
    "tests of the sign alone": (lambda f: (f / "test_my_loss.py").write_text(SIGN_ONLY), CODE, "a factor of two"),
    "tests that fail": (swap("test_my_loss.py", "(0.25, 1.0)", "(0.25, 2.0)"), CODE, "1 fail"),
    "no tests": (lambda f: (f / "test_my_loss.py").unlink(), CODE, "is not there"),
    "an endless loss": (swap("my_loss.py", "    return", "    while True: pass\n    return"), CODE, "no answer within"),
    "a changed page": (swap("notebooks/trial.ipynb", "1 + 1", "1 + 2"), FRESH, "changed since its run"),
}


@pytest.mark.parametrize(("spoil", "row", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_costs_its_row_and_no_other(handed, spoil, row, reason):
    spoil(handed)
    found = lost(handed)
    # What cannot be read cannot be judged either.
    also = {VERDICT, SEEDS} if reason == "lacks says" else set()
    assert row in found and set(found) <= {row} | also, found
    assert reason in found[row]


def test_a_second_round_for_new_runs_is_welcome(handed):
    """Predictions about a grid whose records are younger than they."""
    more = [entry | {"id": f"N{i}", "grid": "more"} for i, entry in enumerate(predictions())]
    (handed / "book/mine.yml").write_text(yaml.safe_dump({"predictions": predictions() + more}))
    (handed / "capstone.yml").write_text(yaml.safe_dump(SAYS | {"grids": [*SAYS["grids"], "workflow/grids/more.yaml"]}))
    shutil.copy(handed / "workflow/grids/mine.yaml", handed / "workflow/grids/more.yaml")
    commit(handed)
    shutil.copy(handed / "results/mine.csv", handed / "results/more.csv")
    judged(handed)
    commit(handed)
    assert lost(handed) == {}


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (None, "has no capstone.yml"),
        ({"page": "../elsewhere.ipynb"}, "must lie in the folder"),
        ({"loss": "my_loss.mine"}, "loss"),
        ({"speed": 3}, "speed"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused_in_words(handed, says, reason):
    path = handed / "capstone.yml"
    path.write_text(yaml.safe_dump(SAYS | says)) if says else path.unlink()
    with pytest.raises(SystemExit, match=re.escape(reason)):
        capstone.read(handed)


def test_what_lies_elsewhere_is_not_read(handed, tmp_path):
    (tmp_path / "secret.csv").write_text("id,rho,terms,verdict\n")
    (handed / "results/verdicts.csv").unlink()
    (handed / "results/verdicts.csv").symlink_to(tmp_path / "secret.csv")
    assert "leads out of the folder" in lost(handed)[VERDICT]


def test_the_folder_s_code_runs_in_no_process_of_ours_and_leaves_no_trace(handed, tmp_path):
    """Nor do its git settings start anything: both would write a file beside the folder."""
    trace = tmp_path / "trace"
    mark = f"import pathlib; pathlib.Path({str(trace)!r}).write_text('x')\n"
    (handed / "sitecustomize.py").write_text(mark)
    git(handed, "config", "core.fsmonitor", f"touch {trace}")
    git(handed, "config", "core.pager", f"touch {trace}")
    assert REALLY_TRIED(handed, SAYS["loss"], SAYS["tests"], mutants.NONE)["passed"] == 3
    assert lost(handed) == {}
    assert not trace.exists() and "my_loss" not in sys.modules


def test_the_page_and_the_script_share_their_points():
    """The rubric of the page adds up to 100, and names each row of the script with its points."""
    text = (ROOT / "book/course/capstone.md").read_text(encoding="utf-8")
    rubric = dict(re.findall(r"^\| ([A-Z][\w -]+) \((\d+)\) \|", text, re.MULTILINE))
    assert sum(map(int, rubric.values())) == 100
    told = dict(re.findall(r"^\| \*([\w ]+)\* \| (\d+) \|", text, re.MULTILINE))
    assert told == {name: str(row.points) for name, row in capstone.ROWS.items()}
    assert {row.of for row in capstone.ROWS.values()} <= set(rubric)
    for name, most in rubric.items():
        assert sum(row.points for row in capstone.ROWS.values() if row.of == name) <= int(most)
    briefs = text.partition("## Ten briefs")[2]
    assert (
        len(re.findall(r"^\d+\. \*\*", briefs, re.MULTILINE))
        == briefs.count("*Risky:*")
        == briefs.count("*Start:*")
        == 10
    )
