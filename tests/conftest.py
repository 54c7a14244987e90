from __future__ import annotations

import sys
from pathlib import Path

import torch

# pytest's importlib mode leaves this folder out of the path, and the tests share references.py.
sys.path.insert(0, str(Path(__file__).parent))
# The tensors of the tests are tiny: a second thread makes them no faster, and on a busy machine ten times slower.
torch.set_num_threads(1)
