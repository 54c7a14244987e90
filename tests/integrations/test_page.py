"""The code of book/training_code.md runs as it stands, each block after the first two."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training_code import free_port

PAGE = Path(__file__).resolve().parents[2] / "book" / "training_code.md"
FIRST, LOOP, *BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FRAMEWORKS = {"pytorch_lightning", "transformers", "accelerate", "timm", "skorch"}


def imports(block: str) -> set[str]:
    """The top-level packages that a block imports."""
    nodes = list(ast.walk(ast.parse(block)))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return {name.split(".")[0] for name in plain | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}}


def run(*blocks: str) -> dict:
    """The names that the blocks leave, each block compiled with the page as its file."""
    torch.manual_seed(0)
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.fixture(autouse=True)
def aside(tmp_path, monkeypatch):
    """Frameworks write into the working directory, and keep processes and state."""
    monkeypatch.chdir(tmp_path)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    if importlib.util.find_spec("accelerate"):
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def name_of(block: str) -> str:
    return "+".join(sorted(imports(block) & FRAMEWORKS)) or block.split("\n", 1)[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_runs(block: str, monkeypatch) -> None:
    for package in sorted(imports(block) & FRAMEWORKS):
        pytest.importorskip(package, reason=f"{package} is missing: pip install 'gence[integrations]'")
    address = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in address.items() if "init_process_group" in block else ():
        monkeypatch.setenv(name, value)
    before = run(FIRST, LOOP)["network"].state_dict()
    names = run(FIRST, LOOP, block)
    after = names["network"].state_dict()
    if re.search(r"optimiser\.step|scaler\.step|\.fit\(", block):
        assert any((before[name] != after[name]).any() for name in before), "nothing was trained"
    for name in {"loss", "nll", "floor", "excess"} & names.keys():
        assert torch.isfinite(torch.as_tensor(names[name])), name


def test_the_page_shows_every_framework() -> None:
    shown = set().union(*map(imports, BLOCKS))
    assert shown >= FRAMEWORKS
    assert imports(FIRST) | imports(LOOP) <= {"torch", "gence"}, "the stand-in needs nothing else"


def test_the_floor_is_what_a_perfect_classifier_reaches() -> None:
    (block,) = (block for block in BLOCKS if "floor" in block)
    names = run(FIRST, LOOP, block)
    perfect = 100.0 * torch.nn.functional.one_hot(names["y"], 3).double()
    assert names["criterion"](perfect, names["y"]).item() == pytest.approx(names["floor"].item(), abs=1e-12)
    assert names["excess"] > 0


def test_skorch_on_the_page_gives_probabilities() -> None:
    pytest.importorskip("skorch", reason="skorch is missing: pip install 'gence[integrations]'")
    (block,) = (block for block in BLOCKS if "skorch" in imports(block))
    names = run(FIRST, LOOP, block)
    assert len(names["scores"]) == 5 and (names["scores"] < 0).all()


def test_the_trainer_on_the_page_takes_its_micro_batches() -> None:
    """The class of the page in a Trainer with the model and the texts of the page."""
    pytest.importorskip("transformers", reason="transformers is missing: pip install 'gence[integrations]'")
    blocks = [block for block in BLOCKS if "transformers" in imports(block)]
    names = run(FIRST, LOOP, *blocks)
    names["options"].dataloader_pin_memory = False
    trainer = names["InMicroBatches"](names["model"], names["options"], train_dataset=names["texts"])
    assert trainer.train().global_step == 4


def test_lines_fit_the_page() -> None:
    assert max(len(line) for block in (FIRST, LOOP, *BLOCKS) for line in block.splitlines()) <= 84
