"""The laboratory: what the chapters and the engine need beyond the library. Install it with ``pip install gence[lab]``.

- ``gence.lab.data``: data sets, regimes, splits. ``gence.lab.networks``: the networks by name.
- ``gence.lab.training``: the one loop. ``gence.lab.runs``: parameters, records, grids.
- ``gence.lab.results``: statistics, tables, predictions, figures.
"""
