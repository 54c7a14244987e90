from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Samplers that shuffle draw from torch's own generator."""
    torch.manual_seed(0)


@pytest.fixture
def accelerate_forgets() -> Iterator[None]:
    """Accelerate keeps its state between trainings; no test is to see another's."""
    from accelerate.state import AcceleratorState, GradientState

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    forget()
    yield
    forget()
