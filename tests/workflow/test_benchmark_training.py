"""The benchmark of the training loop at a tiny size: its record, and that both scripts train."""

from __future__ import annotations

import doctest
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "results" / "benchmarks").glob("throughput-*.json"))
NEEDS_TORCHVISION = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="the plain script needs torchvision"
)


def load() -> ModuleType:
    """The script as a module, with its folder in the path, as when it is run."""
    folder = ROOT / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_of_training", folder / "training.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(folder))


bench = load()
TINY = ["--images", "12", "--batch-size", "8", "--rounds", "2"]


def check_record(record: dict) -> None:
    assert record["schema"] == bench.SCHEMA
    assert set(record) == {"schema", "provenance", "settings", "machine", "rows"}
    for key in ("commit", "date", "device", "torch", "threads", "duration_s"):
        assert key in record["provenance"]
    plain, *loops = record["rows"]
    assert plain["script"] == bench.PLAIN
    assert plain["speedup"] == 1
    precisions = record["settings"]["precisions"]
    assert [(r["precision"], r["loss"]) for r in loops] == [(p, loss) for p in precisions for loss in ("ce", "gence")]
    for row in record["rows"]:
        for what in ("images_per_s", "speedup"):
            assert 0 < row[f"{what}_q1"] <= row[what] <= row[f"{what}_q3"]


@NEEDS_TORCHVISION
def test_the_command_writes_a_whole_record(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "training-cpu.json"
    assert bench.main([*TINY, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    check_record(record)
    assert record["settings"]["images"] == 12
    assert [row["n_rounds"] for row in record["rows"]] == [2, 2, 2]
    out.write_text(json.dumps(record | {"settings": record["settings"] | {"device": "cuda"}}))
    with pytest.raises(SystemExit, match="holds measurements on 'cuda', not 'cpu'"):
        bench.main([*TINY, "--out", str(out)])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_whole_and_has_its_device_in_its_name(path: Path) -> None:
    record = json.loads(path.read_text())
    check_record(record)
    assert path.stem == "throughput-{device}-{model}".format(**record["settings"])


@pytest.mark.parametrize("kind", [pytest.param("plain", marks=NEEDS_TORCHVISION), "loop"])
def test_an_epoch_takes_one_step_for_each_batch_and_leaves_the_network(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bench.settings_of(TINY)
    network = bench.make_network("small_cnn")
    before = [p.clone() for p in network.parameters()]
    x, y = bench.random_images(12), np.arange(12)
    script = (
        bench.plain_script(settings, network, x, y)
        if kind == "plain"
        else bench.loop_script(settings, network, x, y, "gence", "float32")
    )
    steps: list[int] = []
    really = bench.torch.optim.SGD.step
    monkeypatch.setattr(bench.torch.optim.SGD, "step", lambda self: (steps.append(1), really(self))[1])
    for epochs in (1, 2):
        script.epoch()
        assert len(steps) == 2 * epochs
    assert all(p.equal(q) for p, q in zip(network.parameters(), before, strict=True))


def test_every_script_has_its_turn_in_each_round() -> None:
    found = list(bench.orders(4, 30))
    assert all(sorted(order) == [0, 1, 2, 3] for order in found)
    assert {order[0] for order in found} == {0, 1, 2, 3}


def test_a_drift_of_the_machine_cancels_in_the_speedup() -> None:
    drift = np.linspace(1, 3, 31)
    row = bench.row_of(bench.Script("gence.lab.training", "ce", "float32", lambda: None), drift, 1.5 * drift, 100)
    assert row["speedup"] == row["speedup_q1"] == row["speedup_q3"] == 1.5
    assert row["images_per_s"] == 50


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--model", "small_cn"], "unknown model 'small_cn'; nearest valid: 'small_cnn'"),
        (["--rounds", "0"], "must be a number >= 1, but is '0'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_a_wrong_argument_is_refused(capsys: pytest.CaptureFixture, arguments: list[str], needed: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments)
    assert stopped.value.code == 2
    assert needed in capsys.readouterr().err


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(bench).failed == 0
