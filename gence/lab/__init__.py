"""The laboratory: what the chapters and the engine need beyond the library. Install it with ``pip install gence[lab]``.

- ``gence.lab.data``: data sets, regimes, splits. ``gence.lab.networks``: the networks by name.
- ``gence.lab.training``: the one loop. ``gence.lab.runs``: parameters, records, grids.
- ``gence.lab.results``: statistics, tables, predictions, figures.
"""

from importlib.util import find_spec

_NEEDED = ("torchvision", "PIL", "pandas", "pydantic", "yaml", "filelock", "tqdm", "matplotlib", "tabulate")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise ImportError(f"gence.lab needs {', '.join(_missing)}, which are not installed: pip install 'gence[lab]'")
