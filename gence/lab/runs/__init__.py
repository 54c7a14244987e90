"""A run: its parameters, its identity, its provenance, its record; reading records.

*Identity* is what decides the numbers (data, model, loss, regime, recipe, seed): it names the record, and a run whose
record exists is not repeated. *Provenance* is where the numbers came from (commit, versions, device, time): it is
stored in the record and never decides anything.

- ``parameters``: what a run is told. ``grid``: many runs. ``record``: executed, written, read.
- ``provenance``: from which code and machine.
- ``_text``, ``_messages``, ``_checks``: values from text, what is said of a wrong one, checks before training.
"""

from __future__ import annotations

from gence.lab.runs._messages import ParameterError
from gence.lab.runs.grid import expand_grid, grid_settings
from gence.lab.runs.parameters import ALGORITHM, OPTIONAL, SMOKE_EPOCHS, Parameters, RunParameters
from gence.lab.runs.provenance import provenance, write_atomically
from gence.lab.runs.record import Prepared, execute, prepare, read_records

__all__ = [
    "ALGORITHM",
    "OPTIONAL",
    "SMOKE_EPOCHS",
    "ParameterError",
    "Parameters",
    "Prepared",
    "RunParameters",
    "execute",
    "expand_grid",
    "grid_settings",
    "prepare",
    "provenance",
    "read_records",
    "write_atomically",
]
