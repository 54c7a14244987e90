"""Evidence of the pages on results: read as it was trained, refused where it is not what a page asks for, true."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import UNSTEADY, drawn

from gence.lab import runs
from gence.lab.results import evidence, sources, tuning

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import evidence as made  # noqa: E402
import notebook_tools as nb  # noqa: E402

PAGE = "experiments/tiny"
COLUMNS = ["error", "nll", "class_error"]
FIXED = {"n_per_class": 5, "epochs": 2}
GRIDS = [
    ({"setting": "few", "rho": 1}, {"fixed": FIXED, "vary": {"loss": ["ce", "gence"]}}),
    ({"setting": "strong", "rho": 1}, {"fixed": FIXED | {"loss": "gence", "loss_options": {"strength": 0.5}}}),
]


def measure(records):
    return {"judged": sources.recalibrate(records, ["none", "temperature"])}


def page(source: str, seeds=(3, 4)) -> evidence.PageParameters:
    return evidence.PageParameters.of(seeds=list(seeds), source=source).effective()


def tables(run: evidence.PageParameters, grids=GRIDS):
    return evidence.of_grids(PAGE, grids, run, measure, columns=COLUMNS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, pd.DataFrame]]:
    """A folder of evidence, and the tables of the training that wrote it."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(evidence.WRITE_TO, str(folder))
        return folder, tables(page("train"))


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, in the place of results/pages."""
    for path in trained[0].rglob("*.*"):
        runs.write_atomically(tmp_path / path.relative_to(trained[0]), path.read_text())
    monkeypatch.setattr(evidence, "pages_folder", lambda: tmp_path)
    return tmp_path


def test_records_are_what_the_training_gave_to_the_last_digit(trained, folder):
    read = tables(page("records"))
    assert list(read) == ["records", "judged"]
    for name, table in trained[1].items():
        pd.testing.assert_frame_equal(read[name], table, check_exact=True)
    assert read["records"].groupby(["setting", "loss"]).size().to_dict() == {
        ("few", "ce"): 2,
        ("few", "gence"): 2,
        ("strong", "gence"): 2,
    }
    assert len(read["judged"]) == 2 * len(read["records"])
    assert len(read["records"]["class_error"][0]) == 10
    assert read["records"]["rho"].tolist() == [1] * 6


def test_a_table_becomes_text_and_comes_back():
    """Also words that look like numbers, gaps, and the smallest digits."""
    rows = [
        {"kind": "a", "seed": 0, "bins": "5", "value": 0.1 + 0.2, "whole": 3.0, "on": True, "list": [None, 1 / 3]},
        {"kind": "a", "seed": 1, "bins": "none", "value": float("nan"), "whole": 1e-300, "on": False, "list": []},
    ]
    table = pd.DataFrame(rows)
    found = evidence.of_trainings(PAGE, [{"kind": "a"}], page("train", seeds=[0, 1]), lambda: {"mine": table})["mine"]
    pd.testing.assert_frame_equal(found, table, check_exact=True)


def test_the_table_is_that_of_the_records_themselves(trained, tmp_path):
    direct = sources.train_grid({**GRIDS[0][1], "fixed": FIXED | {"seeds": [3, 4]}}, tmp_path, progress=False).query(
        "checkpoint == 'last'"
    )
    for name in ("identity", "seed", "error", "nll", "class_error"):
        assert trained[1]["records"][name].tolist()[:4] == direct[name].tolist()


def test_a_part_of_the_seeds_can_be_asked_for(folder):
    read = tables(page("records", seeds=[4]))
    assert set(read["records"]["seed"]) == set(read["judged"]["seed"]) == {4}


def change(folder: Path, **values) -> None:
    path = folder / PAGE / evidence.ORIGIN
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_not_there_is_said_with_the_fix(folder):
    other = [({}, {"fixed": FIXED | {"epochs": 3}})]
    fix = "Make it: `make evidence PAGE=experiments/tiny`; or train now: source = 'train'"
    for grids, seeds, said in (
        (GRIDS, [3, 5], r"lacks seeds: digits-mlp-.*, 5; digits-mlp-"),
        (GRIDS + other, [3], r"lacks digits-mlp-gence-n5-rho1-b32-\w+\. "),
        (GRIDS[:1], [3], r"has, beside what the page asks for, digits-mlp-gence-n5-rho1-b32-\w+\. "),
    ):
        with pytest.raises(ValueError, match=f"the evidence of experiments/tiny {said}") as error:
            tables(page("records", seeds), grids)
        assert fix in str(error.value)
    with pytest.raises(ValueError, match=r"there is no evidence of experiments/none in results/pages. Make it"):
        evidence.of_grids("experiments/none", GRIDS, page("records"))


def test_damaged_files_are_refused(folder):
    table = folder / PAGE / "judged.csv"
    whole = table.read_text()
    table.write_text(whole.replace("0.", "1.", 1))
    with pytest.raises(ValueError, match=r"experiments/tiny/judged.csv is not the table that was written. Restore it"):
        tables(page("records"))
    table.unlink()
    with pytest.raises(ValueError, match=r"judged.csv is missing"):
        tables(page("records"))
    table.write_text(whole)
    assert tables(page("records"))
    for values, said in (({"schema": 0}, "has schema 0, expected 1"), ({"schema": 1, "tables": {}}, "holds no table")):
        change(folder, **values)
        with pytest.raises(ValueError, match=said):
            tables(page("records"))
    for text, said in (
        ("{", "is no JSON"),
        ("[]", "lacks everything"),
        ('{"page": "x"}', "lacks networks, provenance"),
    ):
        (folder / PAGE / evidence.ORIGIN).write_text(text)
        with pytest.raises(ValueError, match=f"origin.json {said}"):
            tables(page("records"))


def test_without_the_repository_it_says_so(monkeypatch):
    monkeypatch.setattr(evidence, "pages_folder", lambda: None)
    with pytest.raises(ValueError, match="is part of the repository: clone it, or train with source = 'train'"):
        tables(page("records"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("recrods", "; nearest valid: 'records'"), ("Train", "; nearest valid: 'train'"), (3, ""), (None, "")],
)
def test_a_wrong_source_is_refused(wrong, said):
    with pytest.raises(runs.ParameterError) as error:
        evidence.PageParameters.of(source=wrong)
    assert str(error.value) == f"source = {wrong!r} is not allowed{said}. Allowed: records, train."


def test_the_smoke_tier_trains_and_chapters_have_no_source():
    assert evidence.PageParameters.of(tier="smoke").effective().source == "train"
    with pytest.raises(runs.ParameterError, match="unknown run parameter 'source'"):
        runs.Parameters.of(source="train")


def test_a_measure_keeps_the_rows_of_the_records():
    def anonymous(records):
        return {"mine": records.drop(columns="seed")}

    def renaming(records):
        return {"mine": records.assign(loss="other")}

    run = evidence.PageParameters.of(tier="smoke", seeds=1).effective()
    for wrong, said in ((anonymous, "'mine' lacks seed"), (renaming, "'mine' changes 'loss'")):
        with pytest.raises(ValueError, match=said):
            evidence.of_grids(PAGE, GRIDS[:1], run, wrong)


# --- fresh or stale --------------------------------------------------------------------------------------------

EXAMPLE = made.pages()["experiments/tabular"]


def hash_of_cells(notebook) -> str:
    return made.code(notebook)[made.CELLS]


def with_change(old: str, new: str):
    notebook = copy.deepcopy(nb.read(EXAMPLE))
    (cell,) = (cell for cell in nb.code_cells(notebook) if old in cell.source)
    cell.source = cell.source.replace(old, new)
    return notebook


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"epochs": 20', '"epochs": 21', False),
        ("BINS, SCANS = 20, 108", "BINS, SCANS = 15, 108", False),  # in another cell, which the measure leans on
        ('    return {"after":', '    # a comment\n    return {"after":', True),
        ('MARGINS = {"error": 1 / SCANS', 'MARGINS = {"error": 2 / SCANS', True),  # what only reads the tables
    ],
)
def test_what_decides_the_numbers_counts_and_nothing_else(old, new, same):
    assert (hash_of_cells(with_change(old, new)) == hash_of_cells(nb.read(EXAMPLE))) == same


def test_the_library_counts_where_the_tagged_cells_use_it():
    used = set(made.code(nb.read(EXAMPLE)))
    assert {"gence/losses/generative.py", "gence/lab/training/_loop.py", "gence/lab/results/sources.py"} <= used
    assert not used & {"gence/lab/results/plots.py", "gence/lab/results/wording.py", made.ONLY_CARRIES}


def test_changed_cells_and_changed_code_are_told_apart(tmp_path):
    notebook = nb.read(EXAMPLE)
    assert made.why_stale("some/page", notebook, above=tmp_path) == "it was never made"
    for code, said in (
        (made.code(notebook), None),
        (made.code(notebook) | {made.CELLS: "other"}, "the page's cells tagged evidence, or what they use, changed"),
        (made.code(notebook) | {"gence/losses/gone.py": "x"}, "code changed since it was made: gence/losses/gone.py"),
    ):
        runs.write_atomically(tmp_path / "some" / "page" / nb.ORIGIN, json.dumps({"code": code}))
        reason = made.why_stale("some/page", notebook, above=tmp_path)
        assert reason is None if said is None else reason.startswith(said)


def test_a_page_is_stale_when_the_tables_it_reads_are_others(tmp_path, monkeypatch):
    notebook = nb.read(EXAMPLE)
    before = nb.code_hashes(notebook)
    assert "results/pages/experiments/tabular" in before
    origin = nb.evidence_of(notebook)
    monkeypatch.setattr(nb, "EVIDENCE", tmp_path)
    for new, same in (({"provenance": {}}, True), ({"tables": {}}, False)):
        runs.write_atomically(tmp_path / "experiments" / "tabular" / nb.ORIGIN, json.dumps(origin | new))
        assert (nb.code_hashes(notebook) == before) == same


@pytest.mark.parametrize("changes", [False, True], ids=["a page is written meanwhile", "the code changes meanwhile"])
def test_what_ran_is_the_code_of_the_start(changes, tmp_path, monkeypatch):
    """Whoever writes a page while evidence trains for an hour must not lose it; whoever changes the code must."""
    import papermill

    state = iter([{"commit": "start", "dirty": False}, {"commit": "end", "dirty": True}])
    codes = iter([{"cells": "then"}, {"cells": "now" if changes else "then"}])
    monkeypatch.setattr(runs, "provenance", lambda *_: next(state))
    monkeypatch.setattr(made, "code", lambda _: next(codes))
    monkeypatch.setattr(made, "MADE", tmp_path / "made")

    def train(_, part, **__):
        folder = Path(part).parent / FRESH
        folder.mkdir(parents=True)
        (folder / nb.ORIGIN).write_text(json.dumps({"provenance": runs.provenance()}))

    monkeypatch.setattr(papermill, "execute_notebook", train)
    if changes:
        with pytest.raises(SystemExit, match="changed while it trained: make it again"):
            made.make(FRESH)
        assert not (tmp_path / "made").exists()
    else:
        made.make(FRESH)
        assert made.origin_of(tmp_path / "made" / FRESH) == {
            "provenance": {"commit": "start", "dirty": False},
            "code": {"cells": "then"},
        }


def test_a_page_that_does_not_exist_is_named():
    with pytest.raises(SystemExit, match="PAGE=experiments/benchmrk is no page with evidence; did you mean"):
        made.to_make("experiments/benchmrk")


# --- the committed evidence ------------------------------------------------------------------------------------


def origin_of(name: str) -> dict:
    origin = evidence.read_origin(made.KEPT / name)
    assert origin is not None, f"{name} has no evidence: run `make evidence PAGE={name}`, and commit results/pages"
    return origin


@pytest.mark.parametrize("name", made.pages())
def test_the_committed_evidence_is_that_of_the_pages_cells(name):
    names = made.changed(name, nb.read(made.pages()[name]))
    fix = f"run `make evidence PAGE={name}`, commit results/pages, then `make refresh`"
    assert names is not None, f"notebooks/{name}.ipynb has no evidence: {fix}"
    assert made.CELLS not in names, f"the cells of notebooks/{name}.ipynb that make its evidence changed: {fix}"


@pytest.mark.parametrize("name", made.pages())
def test_the_committed_evidence_says_where_it_comes_from(name):
    origin = origin_of(name)
    assert nb.ORIGIN == evidence.ORIGIN
    assert origin["page"] == name
    assert origin["provenance"]["dirty"] is False
    assert {"commit", "device", "torch", "threads", "date", "duration_s", "tier"} <= set(origin["provenance"])
    files = {path.name for path in (made.KEPT / name).iterdir()}
    assert files == {nb.ORIGIN, *(f"{table}.csv" for table in origin["tables"])}
    for identity, parameters in origin["runs"].items():
        assert runs.RunParameters.of(**parameters).identity == identity, "the name of a run changed: make it anew"


def test_no_evidence_is_left_of_pages_that_are_gone():
    assert {path.parent.relative_to(made.KEPT).as_posix() for path in made.KEPT.rglob(nb.ORIGIN)} == set(made.pages())


# --- trained anew ----------------------------------------------------------------------------------------------

# A seed alone and in a stack of twenty, on two kinds of processor.
ALIKE = 1e-6
SMALL = 12  # runs of a page that is trained anew whole, with one seed
FOREIGN = "experiments/ood"
FEATURES = "experiments/frozen_features"
FRESH = "experiments/fresh_seeds"
CURVES = "experiments/generative_or_not"
WEIGHTS = "experiments/entropy_weights"


def candidates() -> list[tuple[str, str, int]]:
    """Page, run and seed of all records of steady losses."""
    steady = [
        (page, identity)
        for page in made.pages()
        for identity, told in origin_of(page)["runs"].items()
        if told["loss"] not in UNSTEADY
    ]
    return [(page, identity, seed) for page, identity in steady for seed in origin_of(page)["seeds"]]


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(n, marks=pytest.mark.thorough) for n in (2, 3))])
def test_a_drawn_record_is_what_its_training_gives(number, tmp_path):
    name, identity, seed = drawn(candidates(), 4)[number]
    parameters = origin_of(name)["runs"][identity] | {"seeds": [seed], "out": str(tmp_path)}
    run = runs.RunParameters.of(**parameters)
    assert run.identity == identity
    runs.execute(run, progress=False)
    again = runs.read_records(tmp_path).set_index("checkpoint")
    rows = evidence.recorded(name)["records"]
    rows = rows[(rows["identity"] == identity) & (rows["seed"] == seed)]
    assert len(rows)
    for row in rows.to_dict("records"):
        for column in row.keys() & {*COLUMNS, "ece", "brier", "adaece", "classwise_ece", "train_error"}:
            assert row[column] == pytest.approx(again[column][row["checkpoint"]], abs=ALIKE), (name, identity, seed)


def page_again(name: str, seed: int) -> dict:
    """What a page's cells define, executed for one seed, training."""
    notebook = nb.read(made.pages()[name])
    space: dict = {}
    exec("\n".join(made.imports(notebook).values()), space)
    space["run"] = run = evidence.PageParameters.of(seeds=[seed], source="train")
    before = torch.get_default_dtype()  # a page may change it
    with pytest.MonkeyPatch.context() as patch:
        # Networks of a page that have seeds of their own are trained for this one, too.
        patch.setattr(evidence.PageParameters, "of", lambda **_: run)
        try:
            for piece in made.decides(notebook):
                if not piece.startswith("run = "):
                    exec(piece, space)
        finally:
            torch.set_default_dtype(before)
    return space


def small_pages() -> list[str]:
    """Pages that are trained anew whole, those first whose evidence was made in the shortest time."""
    found = [page for page in made.pages() if 0 < len(origin_of(page)["runs"]) < SMALL]
    return sorted(found, key=lambda page: origin_of(page)["provenance"]["duration_s"])


def cheap_pages() -> list[str]:
    pages = small_pages()
    return pages[: len(pages) // 2 + 1]


@pytest.mark.parametrize("pages", [cheap_pages, pytest.param(small_pages, marks=pytest.mark.thorough)])
def test_a_drawn_page_measures_the_same_on_networks_trained_anew(pages):
    ((name, seed),) = drawn([(page, seed) for page in pages() for seed in origin_of(page)["seeds"]], 1)
    again = page_again(name, seed)
    tables = again["kept"] if "kept" in again else {"records": again["last"]}
    for table, rows in evidence.recorded(name).items():
        rows = rows[rows["seed"] == seed].reset_index(drop=True)
        assert len(rows) == len(tables[table]) > 0
        steady = ~tables[table]["loss"].isin(UNSTEADY)
        measured = [column for column in rows if pd.api.types.is_float_dtype(rows[column])]
        pd.testing.assert_frame_equal(
            rows.loc[steady, measured], tables[table].loc[steady, measured], rtol=0, atol=ALIKE, obj=f"{name}, {table}"
        )
        for column in (c for c in rows if rows[c].map(lambda cell: isinstance(cell, list)).all()):
            old, new = (np.array(of.loc[steady, column].tolist(), dtype=float) for of in (rows, tables[table]))
            np.testing.assert_allclose(new, old, rtol=0, atol=ALIKE, err_msg=f"{name}, {table}, {column}")


def test_a_drawn_network_scores_foreign_images_alike(monkeypatch):
    """The page on foreign images trains by a function of its own: one drawn loss, setting and seed."""
    tables = evidence.recorded(FOREIGN)
    keys = ["setting", "loss", "seed"]
    ((setting, loss, seed),) = drawn(
        [
            key
            for key in tables["scores"][keys].drop_duplicates().itertuples(index=False, name=None)
            if key[1] not in UNSTEADY
        ],
        1,
    )
    monkeypatch.setattr(evidence, "of_trainings", lambda *_: {})
    again = page_again(FOREIGN, seed)["measured"](setting, loss)
    for name, rows in again.items():
        table = tables[name]
        table = table[(table["setting"] == setting) & (table["loss"] == loss) & (table["seed"] == seed)]
        assert len(table) == len(rows)
        if rows:
            new = pd.DataFrame(rows)
            measured = [column for column in new if pd.api.types.is_float_dtype(new[column])]
            old = table[measured].reset_index(drop=True)
            pd.testing.assert_frame_equal(
                old, new[measured], rtol=0, atol=ALIKE, obj=f"{name}: {setting}, {loss}, {seed}"
            )


def test_a_drawn_head_on_frozen_features_is_what_its_training_gives(monkeypatch):
    """A page that tunes and trains by a function of its own: one drawn network, at the rate that was chosen for it."""
    tables = evidence.recorded(FEATURES)
    records = tables["records"]
    records = records[(records["checkpoint"] == "last") & ~records["loss"].isin(UNSTEADY)]
    keys = records[["rho", "batch_size", "variant", "seed"]].itertuples(index=False, name=None)
    ((rho, batch_size, variant, seed),) = drawn(keys, 1)
    row = records[records[["rho", "batch_size", "variant", "seed"]].eq((rho, batch_size, variant, seed)).all(axis=1)]
    monkeypatch.setattr(evidence, "of_trainings", lambda *_: {"records": [], "tuning": []})
    page = page_again(FEATURES, seed)
    key = {"rho": int(rho), "batch_size": int(batch_size), "variant": variant}
    again = page["trained"](key, row["lr"].item(), int(row["epochs"].item()), [seed], page["on_test"])
    again = again[again["checkpoint"] == "last"]
    for column in ("error", "nll", "ece", "train_error", "floor", "never", "ts_nll"):
        assert again[column].item() == pytest.approx(row[column].item(), abs=1e-4), (key, seed, column)


def test_a_drawn_head_of_the_fresh_seeds_is_what_its_training_gives(monkeypatch):
    """Noise and foreign images included: one drawn network, at the rate that was chosen for it."""
    records = evidence.recorded(FRESH)["records"]
    ((rho, variant, seed),) = drawn(records[["rho", "variant", "seed"]].itertuples(index=False, name=None), 1)
    row = records[records[["rho", "variant", "seed"]].eq((rho, variant, seed)).all(axis=1)]
    monkeypatch.setattr(evidence, "of_trainings", lambda *_: {"records": [], "tuning": []})
    page = page_again(FRESH, seed)
    key = {"rho": int(rho), "variant": variant}
    settings = page["settings"](key, row["lr"].item(), int(row["epochs"].item()))
    more = {name: part.x for name, part in page["CHANGED"].items()}
    (network,) = tuning.trained_on_more(settings, [seed], more)
    again, *_ = page["measure"](key, settings, seed, *network)
    for column in (
        "error",
        "nll",
        "ts_nll",
        "ats_ece",
        "raw_ece_noise_3",
        "auroc_cifar10",
        "auroc_emnist_letters_energy",
    ):
        assert again[column] == pytest.approx(row[column].item(), abs=1e-4), (key, seed, column)


def test_a_drawn_classifier_on_a_learning_curve_is_what_its_training_gives(monkeypatch):
    """Naive Bayes to GenCE: one drawn split, sample size and method, at the settings that were chosen."""
    records = evidence.recorded(CURVES)["records"]
    keys = ["dataset", "samples", "method", "seed"]
    ((dataset, samples, method, seed),) = drawn(records[keys].itertuples(index=False, name=None), 1)
    (row,) = records[records[keys].eq((dataset, samples, method, seed)).all(axis=1)].to_dict("records")
    monkeypatch.setattr(evidence, "of_trainings", lambda *_: {"records": []})
    page = page_again(CURVES, seed)
    settings = page["CLASSICAL"][method][1] if method in page["CLASSICAL"] else page["HEADS"]
    chosen = [settings[row["setting_error"]], settings[row["setting_nll"]]]
    again = page["measured"](dataset, samples, method, chosen, [seed])
    assert again[0, 0, 0] == pytest.approx(row["error"], abs=1e-4), (dataset, samples, method, seed)
    assert again[1, 0, 1] == pytest.approx(row["nll"], abs=1e-4), (dataset, samples, method, seed)


def test_drawn_networks_with_an_entropy_in_the_loss_are_what_their_training_gives(monkeypatch):
    """One whose loss is fixed, at the rate that was chosen for it, and one whose loss learns; digits, since the letters
    are no part of the repository."""
    kept = evidence.recorded(WEIGHTS)
    digits = kept["records"][kept["records"]["dataset"] == "digits"]
    learns = digits["family"].str.endswith("_learned")
    none = {"records": [], "curves": []}
    monkeypatch.setattr(evidence, "of_trainings", lambda *_: none)
    for rows in (digits[~learns], digits[learns]):
        ((family, strength, lr, seed),) = drawn(
            rows[["family", "strength", "lr", "seed"]].itertuples(index=False, name=None), 1
        )
        (row,) = rows[rows[["family", "strength", "seed"]].eq((family, strength, seed)).all(axis=1)].to_dict("records")
        page = page_again(WEIGHTS, seed)
        if family.endswith("_learned"):
            splits, done, curves = page["learned"]("digits", family.removesuffix("_learned"), strength, [seed])
            of = kept["curves"][
                kept["curves"][["dataset", "family", "strength", "seed"]]
                .eq(("digits", family, strength, seed))
                .all(axis=1)
            ]
            for i, name in enumerate(page["STATE"], 1):
                assert [stop[i][0] for stop in curves] == pytest.approx(of[name].tolist(), abs=1e-4), (row, name)
        else:
            splits, done = page["fixed"]("digits", family, strength, lr, [seed])
        again = page["row"]({}, seed, splits[0], *done[0], lr)
        for column in ("error", "nll", "ece", "confidence", "tempered_nll", "train_error"):
            assert again[column] == pytest.approx(row[column], abs=1e-4), (row, column)
