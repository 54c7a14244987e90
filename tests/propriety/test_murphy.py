from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from gence.losses import make_loss
from gence.propriety import elementary_loss, murphy_diagram, weight_function

RNG = np.random.default_rng(0)
P = np.append(RNG.beta(0.7, 1.2, 60), [0.5, 0.5, 1e-6, 0.9999])
Y = np.append(RNG.random(60) < P[:60], [0, 1, 0, 1]).astype(int)


def test_a_diagram_is_the_mean_of_elementary_losses():
    diagram = murphy_diagram(P, Y)
    assert len(diagram.thresholds) == 100 and diagram.thresholds[[0, -1]].round(9).tolist() == [0.005, 0.995]
    for thresholds in (diagram.thresholds[::7], [0.5, *P[:5]]):  # at a forecast too, where decisions change
        by_loop = [np.mean([elementary_loss(t)(p, y).item() for p, y in zip(P, Y, strict=True)]) for t in thresholds]
        assert np.allclose(diagram.at(thresholds), by_loop, rtol=0, atol=1e-12)
    assert np.allclose(murphy_diagram(np.stack([1 - P, P], 1), torch.from_numpy(Y)).scores, diagram.scores, atol=1e-12)


def test_weighted_by_the_weight_of_a_loss_the_area_is_its_mean():
    diagram = murphy_diagram(P, Y)
    assert abs(diagram.mean_score(lambda c: 1 / (c * (1 - c))) - log_loss(Y, P)) < 1e-9
    assert abs(diagram.mean_score(lambda c: 2.0) - brier_score_loss(Y, P)) < 1e-9
    right = np.where(Y == 1, P, 1 - P)
    exponential = diagram.mean_score(lambda c: (c * (1 - c)) ** -1.5 / 2)
    assert abs(exponential / np.sqrt((1 - right) / right).mean() - 1) < 1e-9
    spherical = weight_function(lambda p, label: 1 - p[label] / p.norm())
    assert abs(murphy_diagram(P[:9], Y[:9]).mean_score(spherical) - (1 - right / np.hypot(P, 1 - P))[:9].mean()) < 1e-9
    step = murphy_diagram([0.2], [1]).mean_score(lambda c: 1.0 + (c > 0.302), breaks=[0.302])
    assert abs(step - (0.8**2 + 0.698**2) / 2) < 1e-12


def test_certain_forecasts():
    right, wrong = murphy_diagram([1.0, 0.0], [1, 0]), murphy_diagram([0.0], [1])
    assert right.scores.max() == 0 and right.mean_score(lambda c: 1 / (c * (1 - c))) == 0
    assert abs(wrong.mean_score(lambda c: 2.0) - 1) < 1e-12
    with pytest.raises(ValueError, match="diverges: a certain forecast was wrong"):
        wrong.mean_score(lambda c: 1 / (c * (1 - c)))


def test_more_classes_are_one_against_the_rest_and_their_sum_is_the_brier_score():
    p, y = RNG.dirichlet(np.ones(4), 50), RNG.integers(0, 4, 50)
    each = [murphy_diagram(p, y, of=k) for k in range(4)]
    for k, one in enumerate(each):
        assert np.allclose(one.scores, murphy_diagram(p[:, k], (y == k).astype(int)).scores, rtol=0, atol=1e-12)
    together = murphy_diagram(p, y, of="all")
    assert np.allclose(together.scores, sum(one.scores for one in each), rtol=0, atol=1e-12)
    brier = make_loss("brier")(torch.from_numpy(p).log(), torch.from_numpy(y)).item()
    assert abs(together.mean_score(lambda c: 2.0) - brier) < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: murphy_diagram([[0.2, 0.3, 0.5]], [0]),
            "one class against the rest, and there are 3: give of=0 to of=2",
        ),
        (lambda: murphy_diagram([[0.2, 0.3, 0.5]], [0], of=3), "got of=3"),
        (lambda: murphy_diagram([[0.2, 0.3, 0.5]], [3], of=0), "labels must be 0 to 2, but one is 3"),
        (lambda: murphy_diagram([0.2, np.nan], [0, 1]), r"probs must lie in \[0, 1\], but got nan"),
        (lambda: murphy_diagram([1.2], [0]), r"but got 1.2"),
        (lambda: murphy_diagram([[0.2, 0.9]], [0]), "probs must hold distributions"),
        (lambda: murphy_diagram([0.2, 0.3], [0]), r"labels must have shape \(2,\)"),
        (lambda: murphy_diagram([0.2], [0.5]), "but one is 0.5"),
        (lambda: murphy_diagram([0.2], [0], thresholds=[0.0]), "thresholds must lie strictly between 0 and 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
