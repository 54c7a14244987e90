"""The benchmark of the losses at tiny sizes: its record, its memory counts, what it refuses."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gence.lab import runs

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "results" / "benchmarks").glob("losses-*.json"))


def load():
    """The script as a module; by its path, because it is no part of the package."""
    spec = importlib.util.spec_from_file_location("benchmark_of_losses", ROOT / "benchmarks" / "losses.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench = load()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of all losses at two tiny sizes, and where it was written."""
    out = tmp_path_factory.mktemp("bench") / "deep" / "losses-cpu.json"
    settings = bench.settings_of(
        ["--sizes", "16x5,8x4", "--mode", "eager", "--repeats", "2", "--cnn-repeats", "0", "--out", str(out)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "MIN_TICK", 1e-3)  # the numbers are not looked at: short timings will do
        record = bench.measure(settings, progress=False)
    record["cnn"] = bench.measure_cnn(bench.replace(settings, cnn_repeats=2), size=8, progress=False)
    runs.write_atomically(out, json.dumps(record))
    return json.loads(out.read_text()), out


def check_record(record):
    assert record["schema"] == bench.SCHEMA
    assert set(record) == {"schema", "provenance", "settings", "machine", "requirements", "rows", "cnn"}
    for key in ("commit", "date", "device", "torch", "threads", "duration_s"):
        assert key in record["provenance"]
    assert record["machine"]["copy_gb_per_s"] > 0
    for row in record["rows"]:
        assert {"loss", "mode", "n", "k", "dtype", "note", "floor_ms"} <= set(row)
        if row["note"] is not None:
            continue
        for key in ("median_ms", "ratio", "peak_buffers", "n_rounds"):
            assert row[key] > 0, (row["loss"], key)
        assert row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"]
        assert row["iqr_ms"] >= 0
        if (row["loss"], row["mode"]) == (bench.BASELINE, "eager"):
            assert row["ratio"] == 1
            assert row["extra_us"] == 0
    for row in record["cnn"]:
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_the_record_is_whole_and_holds_every_loss(tiny):
    record, _ = tiny
    check_record(record)
    assert [row["note"] for row in record["rows"]] == [None] * len(record["rows"])
    for size in ((8, 4), (16, 5)):
        found = [row["loss"] for row in record["rows"] if (row["n"], row["k"]) == size]
        assert found == list(bench.NAMES)
    assert [row["n"] for row in record["rows"]] == sorted(row["n"] for row in record["rows"]), "small sizes first"
    assert [row["loss"] for row in record["cnn"]] == [bench.BASELINE, "gence"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_whole_and_has_its_device_in_its_name(path):
    record = json.loads(path.read_text())
    check_record(record)
    assert path.stem == f"losses-{record['settings']['device']}"
    assert record["requirements"] == json.loads(json.dumps(bench.REQUIREMENTS)), "measure again"
    eager = {row["loss"] for row in record["rows"] if row["mode"] == "eager"}
    # A GPU is lent by the minute: its record may hold some of the losses, and says which.
    assert eager == set(bench.NAMES if path.stem == "losses-cpu" else record["settings"]["losses"])
    assert {bench.BASELINE, "gence"} <= eager <= set(bench.NAMES)


def test_the_memory_count_is_exact_on_a_known_example():
    x = torch.zeros(1000)
    buffer = x.nbytes
    assert bench.peak_bytes(lambda: (x.clone(), x.clone()), "cpu") == 2 * buffer
    # x.exp() is released while its square exists: two at a time, never three.
    assert bench.peak_bytes(lambda: x.exp().square().sqrt(), "cpu") == 2 * buffer


def test_gence_needs_at_most_one_buffer_more_than_cross_entropy():
    z, y = bench.batch(1024, 1000, "cpu")
    peak, kept = {}, {}
    for name in (bench.BASELINE, "gence"):
        step = bench.make_step(name, "eager", z, y)
        peak[name] = bench.peak_bytes(step, "cpu") / z.nbytes
        kept[name] = bench.saved_bytes(step) / z.nbytes
    assert peak[bench.BASELINE] == pytest.approx(3, abs=0.02), "log-softmax, the gradient of the NLL, the gradient"
    assert peak["gence"] <= peak[bench.BASELINE] + 1
    assert kept[bench.BASELINE] == pytest.approx(1, abs=0.02)
    assert kept["gence"] <= kept[bench.BASELINE] + 0.02


def test_every_loss_has_its_turn_in_each_round_and_gence_stands_next_to_the_baseline():
    names = list(bench.NAMES)
    steps = [bench.Step(name, mode, lambda: None, []) for mode in bench.MODES for name in names]
    orders = [bench.order_of_round(steps, i) for i in range(20)]
    first = names.index("gence")
    for order in orders:
        assert sorted(order) == list(range(len(steps)))
        assert abs(order.index(0) - order.index(first)) == 1
    assert len({tuple(order) for order in orders}) == 20
    assert len({order.index(0) < order.index(first) for order in orders}) == 2, "either may come first"


def test_a_drift_of_the_machine_cancels_in_the_ratio():
    drift = np.linspace(1, 3, 31)
    summary = bench.summarise(1.1 * drift, drift)
    assert summary["ratio"] == pytest.approx(1.1)
    assert summary["ratio_q3"] - summary["ratio_q1"] == pytest.approx(0, abs=1e-9)


def test_without_a_compiler_or_with_one_that_fails_the_record_says_so(monkeypatch):
    z, y = bench.batch(8, 4, "cpu")
    monkeypatch.setattr(bench, "has_compiler", lambda: False)
    assert bench.make_step("gence", "compiled", z, y).note == "not run: no compiler"

    def broken(*_):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(bench, "has_compiler", lambda: True)
    monkeypatch.setattr(bench, "compiled", lambda loss, name: broken)
    step = bench.make_step("gence", "compiled", z, y)
    assert step.note == "failed: RuntimeError: first line"
    row = bench.row_of(step, z, "cpu")
    assert row["note"] == step.note
    assert "peak_bytes" not in row


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--losses", "genc"], "unknown loss 'genc'; nearest valid: 'gence'"),
        (["--sizes", "128*10"], "'128*10' is no size: write NxK"),
        (["--sizes", "128x1"], "'128x1' is no size"),
        (["--mode", "eagre"], "unknown mode 'eagre'; nearest valid: 'eager'"),
        (["--repeats", "0"], "must be a number >= 1, but is '0'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_nearest_valid_one(capsys, arguments, needed):
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments)
    assert stopped.value.code == 2
    assert needed in capsys.readouterr().err


def test_the_record_of_another_device_is_not_overwritten(tiny, tmp_path):
    record, _ = tiny
    other = tmp_path / "losses.json"
    other.write_text(json.dumps(record | {"settings": record["settings"] | {"device": "cuda"}}))
    before = other.read_text()
    with pytest.raises(SystemExit, match="holds measurements on 'cuda', not 'cpu'"):
        bench.main(["--sizes", "8x4", "--losses", "gence", "--mode", "eager", "--out", str(other)])
    assert other.read_text() == before
    other.write_text("{}")
    with pytest.raises(SystemExit, match="is no record"):
        bench.check_target(other, "cpu")


def test_the_command_writes_the_record_whole_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "losses-cpu.json"
    arguments = ["--sizes", "8x4", "--losses", "gence", "--mode", "eager", "--repeats", "1", "--cnn-repeats", "0"]
    assert bench.main([*arguments, "--out", str(out)]) == 0
    check_record(json.loads(out.read_text()))
    before = out.read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.main([*arguments, "--out", str(out)])
    assert out.read_text() == before
    assert list(tmp_path.iterdir()) == [out], "no half-written file is left"


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(bench).failed == 0


def test_gence_does_not_import_its_benchmarks():
    """It may read their records."""
    for path in (ROOT / "gence").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "benchmarks" not in {name.split(".")[0] for name in names}, path.name
