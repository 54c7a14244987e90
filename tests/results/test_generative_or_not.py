"""The statements of the page on generative and discriminative classifiers, checked without its code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gence.lab.results import evidence, statistics
from gence.lab.results.predictions import judge, load_predictions

PAGE = "experiments/generative_or_not"
ENDS = {"bell curves": (2, 128), "digits": (2, 64), "photographs": (2, 64), "wine": (2, 32), "breast cancer": (4, 128)}
REAL = tuple(ENDS)[1:]


def values(metric: str = "error"):
    """Data set, samples and method to the values by seed."""
    records = evidence.recorded(PAGE)["records"]
    return records.pivot(index="seed", columns=["dataset", "samples", "method"], values=metric)


@pytest.mark.claim("generative-same-family")
@pytest.mark.parametrize("diagonal", [False, True])
def test_normal_classes_of_one_covariance_have_a_linear_softmax_posterior(diagonal):
    """Bayes' rule sample by sample with densities of scipy, against the logits of the proposition by loops."""
    rng = np.random.default_rng(8)
    for k, d in ((2, 1), (3, 4), (6, 3)):
        root = rng.normal(size=(d, d))
        sigma = root @ root.T + np.eye(d)
        if diagonal:
            sigma = np.diag(np.diag(sigma))
        mu, pi = rng.normal(size=(k, d)), rng.dirichlet(np.ones(k))
        inverse = np.linalg.inv(sigma)
        for x in 2 * rng.normal(size=(20, d)):
            joint = [pi[c] * stats.multivariate_normal.pdf(x, mu[c], sigma) for c in range(k)]
            z = [mu[c] @ inverse @ x + math.log(pi[c]) - mu[c] @ inverse @ mu[c] / 2 for c in range(k)]
            softmax = np.exp(np.array(z) - max(z))
            np.testing.assert_allclose(softmax / softmax.sum(), np.array(joint) / sum(joint), rtol=1e-8)
