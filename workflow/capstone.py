"""The capstone: the points of a handed-in repository that a machine can check.

    python workflow/capstone.py check FOLDER      print a table of points, with what is missing and how to fix it
    python workflow/capstone.py verdicts FOLDER   write the table of verdicts that `capstone.yml` names

FOLDER is a copy of this repository with a loss of its own; its file `capstone.yml` says what is where (see
book/course/capstone.md). What was handed in is read as data; its code runs only in `mutants.tried`, behind walls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mutants
import pandas as pd
import yaml
from capstone_folder import MANIFEST, Work, read, runs_of

from gence.lab.results.predictions import judge, load_predictions, variants

SEEDS = 20
TEMPERATURE = "temperature"  # a rival without runs of its own: predictions name its columns, ts_nll and others
# Of an entry, what decides its verdict; the words around it may be mended later.
DECIDES = ("grid", "family", "metric", "checkpoint", "expect", "over")
# What a grid varies between losses that are compared, and what is no setting of a run.
OF_A_LOSS, NO_SETTING = ("loss", "loss_options", "recipe_options", "lr", "epochs", "weight_decay"), ("seeds", "out")


# --- the points ------------------------------------------------------------------------------------------------


def can_be_read(work: Work) -> Iterator[str]:
    """Three predictions or more, in the schema, each of a grid that was handed in."""
    found = load_predictions(work.path(work.says.predictions))
    if len({item["id"] for item in found}) < 3:
        yield "fewer than three predictions: write one more"
    grids = {Path(name).stem for name in work.says.grids}
    for name in sorted({item["grid"] for item in found} - grids):
        yield f"a prediction is about {name}, which is no grid in {MANIFEST}: add it there"
    for name in sorted({item["id"] for item in found if item["pilot_seen"] is None}):
        yield f'{name} does not say whether a pilot was seen: add pilot_seen: "yes", "near" or "no"'


def come_first(work: Work) -> Iterator[str]:
    """Each prediction stands, as it is now, in a commit before the first with records of its grid."""
    now = _statements(work.path(work.says.predictions).read_text(encoding="utf-8"))
    for grid in sorted({entry["grid"] for entry in now.values()}):
        path = f"results/{grid}.csv"
        added = work.git("log", "--diff-filter=A", "--format=%H", "--reverse", "--", path).split()
        if not added:
            yield f"{path} is in no commit: commit it, after the predictions"
            continue
        parents = work.git("rev-list", "--parents", "-n", "1", added[0]).split()[1:]
        before = _statements_at(work, parents[0]) if parents else {}
        for name, entry in now.items():
            if entry["grid"] == grid and before.get(name) != entry:
                what = "was changed after" if name in before else "is not older than"
                yield f"{name} {what} the records ({path}, commit {added[0][:8]}): say so, and predict for new seeds"


def _statements(text: str) -> dict[str, dict[str, Any]]:
    """Name of a prediction to what decides its verdict."""
    entries = yaml.safe_load(text)["predictions"]
    return {entry["id"]: {name: entry.get(name) for name in DECIDES} for entry in entries}


def _statements_at(work: Work, commit: str) -> dict[str, dict[str, Any]]:
    name = work.says.predictions
    there = work.git("ls-tree", "--name-only", commit, "--", name).strip()
    return _statements(work.git("cat-file", "blob", f"{commit}:{name}")) if there else {}


def _grids(work: Work) -> dict[str, list[dict[str, Any]]]:
    paths = [work.path(name) for name in work.says.grids]
    return {path.stem: runs_of(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths}


def has_seeds_and_rivals(work: Work) -> Iterator[str]:
    """Twenty paired seeds; cross-entropy wherever the loss is, a rival somewhere; two ratios and two batch sizes."""
    says, every, rivals = work.says, [], set()
    for name, planned in _grids(work).items():
        settings: dict[str, dict[str, list[int]]] = {}
        for one, variant in zip(planned, _variants(planned), strict=True):
            alike = {k: v for k, v in one.items() if k not in (*OF_A_LOSS, *NO_SETTING)}
            settings.setdefault(json.dumps(alike, sort_keys=True), {})[variant] = one["seeds"]
        for setting, found in settings.items():
            if (fewest := min(map(len, found.values()))) < SEEDS:
                yield f"{name}, {setting}: {fewest} seeds; run at least {SEEDS}"
            if len(set(map(tuple, found.values()))) > 1:
                yield f"{name}, {setting}: the losses have different seeds; give all the same"
            if not {says.variant, "ce"} <= set(found):
                yield f"{name}, {setting}: holds {', '.join(found)}; add {says.variant} and ce"
            rivals |= set(found) & set(says.rivals)
        every += planned
    asked = load_predictions(work.path(says.predictions))
    tempered = TEMPERATURE in says.rivals and any(item["metric"].startswith("ts_") for item in asked)
    if not rivals and not tempered:
        yield f"no rival ({', '.join(says.rivals)}) stands beside ce: add it to a grid"
    for key, what in (("rho", "ratio"), ("batch_size", "batch size")):
        if len({str(one.get(key, 1 if key == "rho" else None)) for one in every}) < 2:
            yield f"one {what} only ({key}): vary it"


def _variants(planned: list[dict[str, Any]]) -> list[str]:
    nested = {name: [one.get(name) or {} for one in planned] for name in ("loss_options", "recipe_options")}
    return variants(pd.DataFrame({"loss": [one.get("loss") for one in planned]} | nested)).tolist()


def are_complete(work: Work) -> Iterator[str]:
    """One record of the last epoch for each run and seed of the grids, made from committed code."""
    for name, planned in _grids(work).items():
        table = work.records(name)
        if not len(table):
            yield f"results/{name}.csv is not there: make sweep, make collect"
            continue
        last = table[table["checkpoint"] == "last"]
        keys = [key for key in dict.fromkeys(key for one in planned for key in one) if key in last]
        have = [({key: _plain(row[key]) for key in keys}, row["seed"]) for row in last.to_dict("records")]
        lacking = 0
        for one in planned:
            wanted = {key: _plain(one[key]) for key in keys if key in one}
            seeds = {seed for row, seed in have if all(row[key] == value for key, value in wanted.items())}
            lacking += len(set(one["seeds"]) - seeds)
        if lacking:
            yield f"results/{name}.csv lacks {lacking} records of its grid: make sweep, make collect"
        if last.duplicated(["identity", "seed"]).any():
            yield f"results/{name}.csv holds a record twice: collect again"
        if "dirty" in last and last["dirty"].astype(str).eq("True").any():
            yield f"results/{name}.csv has records of uncommitted code: commit, and run them again"


def _plain(value: Any) -> Any:
    """A setting as the grid or the table writes it, so that both can be compared."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    try:
        return None if value is None or value != value else float(value)
    except ValueError:
        return str(value)


def _verdicts(work: Work) -> pd.DataFrame:
    found = judge(load_predictions(work.path(work.says.predictions)), work.records)
    return found.sort_values("id", kind="stable")[["id", "rho", "terms", "difference", "low", "high", "verdict"]]


def agree_with_the_rule(work: Work) -> Iterator[str]:
    """The table of verdicts is what `predictions.judge` says, row by row, and no row is left out."""

    def rows(table: pd.DataFrame) -> Counter:
        return Counter(zip(table["id"], table["rho"].astype(float), table["terms"], table["verdict"], strict=True))

    ours, theirs = rows(_verdicts(work)), rows(pd.read_csv(work.path(work.says.verdicts)))
    for (name, rho, terms, verdict), _ in (ours - theirs).items():
        yield f"{name} ({terms}, rho {rho:g}) is {verdict}, and {work.says.verdicts} does not say so"
    for name, rho, terms, _ in theirs - ours:
        if not any(row[:3] == (name, rho, terms) for row in ours):
            yield f"{work.says.verdicts} has {name} ({terms}, rho {rho:g}), which nobody predicted"


def kill_mutants(work: Work) -> Iterator[str]:
    """The tests pass, and fail on each planted mutant of the loss."""
    names = [work.path(name.partition("::")[0]) and name for name in work.says.tests]
    for mutant in (mutants.NONE, *mutants.MUTANTS):
        found = mutants.tried(work.folder, work.says.loss, names, mutant)
        if "error" in found:
            yield f"the tests do not run ({found['error']})"
            return
        if mutant == mutants.NONE and (found["code"] or not found["passed"]):
            yield f"of the tests of the loss {found['passed']} pass and {found['failed']} fail: all should pass"
            return
        if mutant != mutants.NONE and not found["failed"]:
            yield f"no test fails for the loss with {mutant}: compare its values with a reference written by hand"


def is_fresh(work: Work) -> Iterator[str]:
    """The page's outputs are those of its code. Its code is parsed, not run."""
    work.path(work.says.page)
    ours = "import sys; import notebook_tools as nb; from pathlib import Path; nb.ROOT = Path(sys.argv[1])\n"
    ours += "nb.EVIDENCE = nb.ROOT / 'results' / 'pages'; print(nb.why_stale(nb.read(nb.ROOT / sys.argv[2])) or '')"
    command, here = [sys.executable, "-c", ours, str(work.folder), work.says.page], Path(__file__).resolve().parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    if done.returncode:
        yield f"its freshness cannot be read ({done.stderr.strip().splitlines()[-1]})"
    elif reason := done.stdout.strip():
        yield f"{reason}: make refresh, and commit the outputs"


class Row(NamedTuple):
    """A row of the table: its points, of which row of the rubric, what is checked."""

    points: int
    of: str
    check: Callable[[Work], Iterator[str]]


ROWS = {
    "predictions can be read": Row(4, "Claim and predictions", can_be_read),
    "predictions come first": Row(6, "Claim and predictions", come_first),
    "tests kill two mutants": Row(8, "Code", kill_mutants),
    "seeds and rivals": Row(6, "Trial", has_seeds_and_rivals),
    "records are complete": Row(6, "Trial", are_complete),
    "verdicts follow the rule": Row(7, "Verdict", agree_with_the_rule),
    "page is fresh": Row(5, "Re-execution by others", is_fresh),
}


def checked(work: Work) -> dict[str, list[str]]:
    """Name of a row to what is wrong; an empty list where its points are given."""

    def problems(check: Callable[[Work], Iterator[str]]) -> list[str]:
        try:
            return list(check(work))
        except Exception as error:  # whatever was handed in, the other rows are checked
            return [f"{type(error).__name__}: {error}".splitlines()[0]]

    return {name: problems(row.check) for name, row in ROWS.items()}


def table_of(found: dict[str, list[str]]) -> str:
    """The points with their reasons, in Markdown."""
    lines = ["| Row | Points | Row of the rubric | What was found |", "| --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        first, *more = found[name] or [" ".join((row.check.__doc__ or "").split())]
        said = first + (f" (and {len(more)} more)" if more else "")
        got = 0 if found[name] else row.points
        lines.append(f"| {name} | {got} of {row.points} | {row.of} | {said.replace('|', '/')} |")
    total = sum(row.points for name, row in ROWS.items() if not found[name])
    return "\n".join(
        [*lines, "", f"{total} of {sum(row.points for row in ROWS.values())} points. A person marks the rest."]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("check", "verdicts"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    work = read(given.folder)
    if given.command == "verdicts":
        _verdicts(work).to_csv(work.folder / work.says.verdicts, index=False, lineterminator="\n")
        return 0
    found = checked(work)
    print(table_of(found))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
