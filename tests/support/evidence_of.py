"""The evidence of a page, as a test reads it or trains its like anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gence.lab.results import evidence, sources

# What a statement is held against: the evidence of its page, and in `make test-thorough` other seeds, trained anew.
SOURCES = ["page", pytest.param("anew", marks=pytest.mark.thorough)]


def table_of(page: str, table: str = "records", **settings: Any) -> pd.DataFrame:
    """The rows of a page's table whose runs have these settings, with what the page says of loss and regime."""
    runs = evidence.read_origin(evidence.pages_folder() / page)["runs"]
    rows = evidence.recorded(page)[table]
    told = rows["identity"].map(runs)
    of = [all(run[name] == value for name, value in settings.items()) for run in told]
    assert any(of), f"{page} has no run with {settings}"
    rows = rows.assign(**{name: [run[name] for run in told] for name in ("loss", "loss_options", "n_per_class")})
    return rows[of].reset_index(drop=True)


def trained(out: Path, losses: Sequence[str], seeds: str, **settings: Any) -> pd.DataFrame:
    """The records of perceptrons on the digits, at the end of training."""
    grid = {"fixed": {"dataset": "digits", "model": "mlp", "seeds": seeds, **settings}, "vary": {"loss": list(losses)}}
    records = sources.train_grid(grid, out, progress=False)
    return records[records["checkpoint"] == "last"].reset_index(drop=True)
