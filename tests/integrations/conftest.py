from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Samplers that shuffle draw from torch's own generator."""
    torch.manual_seed(0)
