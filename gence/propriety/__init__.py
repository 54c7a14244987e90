"""Is a loss proper? Conditional risks, their minimisers, regret identities, completeness and counterexamples.

A *belief* says how probable each class is. For a loss that judges every sample alone (cross-entropy, Brier, focal) it
is a vector q of shape (K,). GenCE couples the samples of a batch, so its belief is a table Q of shape (N, K): a row
for each sample, a column for each class. All numbers are float64. Searches are honest numerics: they find
counterexamples, and where they find none they say how hard they looked; proofs stand in the book.

- ``risk``: conditional risks. ``minimisers``: where they are least. ``verdict``: is a loss proper, by a search.
- ``completeness``: regret identities, completeness, the other minimisers.

The classical theory of losses that judge each sample alone. These functions take a module of logits, as
:func:`gence.losses.make_loss` builds it, or a loss written by hand as a function of (p, label).

- ``by_hand``: reading such a function, and making a module of it. ``weights``: two classes, weights and decisions.
- ``entropy``: a loss from its entropy. ``links``: canonical links, curvature behind a link.
- ``murphy``: forecasts for all decision makers. ``divergence``: what an experiment is worth. ``mixability``: pooling.
- ``elicitation``: what a loss of reports on the line asks for.
"""

from __future__ import annotations

from gence.propriety.by_hand import on_logits
from gence.propriety.completeness import Completeness, Regret, completeness, flat_directions, other_minimiser, regret
from gence.propriety.divergence import induced_divergence
from gence.propriety.elicitation import Elicitation, elicits
from gence.propriety.entropy import loss_from_entropy
from gence.propriety.links import Link, canonical_link, composite_curvature
from gence.propriety.minimisers import Minimisers, find_minimisers
from gence.propriety.mixability import mixability_constant
from gence.propriety.murphy import MurphyDiagram, murphy_diagram
from gence.propriety.risk import conditional_risk, couples_samples
from gence.propriety.verdict import Verdict, is_strictly_proper
from gence.propriety.weights import binary_regret, elementary_loss, loss_from_weight, weight_function

__all__ = [
    "Completeness",
    "Elicitation",
    "Link",
    "Minimisers",
    "MurphyDiagram",
    "Regret",
    "Verdict",
    "binary_regret",
    "canonical_link",
    "completeness",
    "composite_curvature",
    "conditional_risk",
    "couples_samples",
    "elementary_loss",
    "elicits",
    "find_minimisers",
    "flat_directions",
    "induced_divergence",
    "is_strictly_proper",
    "loss_from_entropy",
    "loss_from_weight",
    "mixability_constant",
    "murphy_diagram",
    "on_logits",
    "other_minimiser",
    "regret",
    "weight_function",
]
