"""Is a loss proper? Conditional risks, their minimisers, regret identities, completeness and counterexamples.

A *belief* says how probable each class is. For a loss that judges every sample alone (cross-entropy, Brier, focal) it
is a vector q of shape (K,). GenCE couples the samples of a batch, so its belief is a table Q of shape (N, K): a row
for each sample, a column for each class. All numbers are float64. Searches are honest numerics: they find
counterexamples, and where they find none they say how hard they looked; proofs stand in the book.

- ``risk``: conditional risks. ``minimisers``: where they are least. ``verdict``: is a loss proper, by a search.
- ``completeness``: regret identities, completeness, the other minimisers.
"""

from __future__ import annotations

from gence.propriety.completeness import Completeness, Regret, completeness, flat_directions, other_minimiser, regret
from gence.propriety.minimisers import Minimisers, find_minimisers
from gence.propriety.risk import conditional_risk, couples_samples
from gence.propriety.verdict import Verdict, is_strictly_proper

__all__ = [
    "Completeness",
    "Minimisers",
    "Regret",
    "Verdict",
    "completeness",
    "conditional_risk",
    "couples_samples",
    "find_minimisers",
    "flat_directions",
    "is_strictly_proper",
    "other_minimiser",
    "regret",
]
