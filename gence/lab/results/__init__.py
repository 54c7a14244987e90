"""From records to a page: statistics, verdicts in words, tables, predictions, figures. Import the room you need.

- ``names``: the words for losses, metrics and calibrators. ``statistics``: paired tests, one correction, equivalence.
- ``wording``: verdicts and p-values in words. ``sources``: where numbers come from. ``tables``: how they are shown.
- ``tuning``: the same search for each loss. ``evidence``: what a page reads of networks, or trains anew.
- ``predictions``: what was written down before the runs. ``plots``: figures in one style.
"""
