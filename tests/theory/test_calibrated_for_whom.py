"""The claims of the chapter "Calibrated for whom?", each tested without the chapter's own code."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

F = Fraction


def gaps(world, sees, event):
    """For each thing that is seen, the mass times (share of the event - what is said), in fractions."""
    found: dict[object, Fraction] = {}
    for mass, says, truth in world:
        k = event(says)
        found[sees(says)] = found.get(sees(says), F(0)) + mass * (truth[k] - says[k])
    return found


def holds(world) -> dict[str, bool]:
    def top(p):
        return p.index(max(p))

    classes = range(3)
    return {
        "confidence": not any(gaps(world, max, top).values()),
        "top-label": not any(gaps(world, lambda p: (top(p), max(p)), top).values()),
        "classwise": not any(v for k in classes for v in gaps(world, lambda p: p[k], lambda p: k).values()),  # noqa: B023
        "canonical": not any(v for k in classes for v in gaps(world, tuple, lambda p: k).values()),  # noqa: B023
    }


def six_forecasts():
    """The permutations of (1/2, 3/10, 1/5), the even ones and the odd ones moved in opposite ways."""
    moves = {F(1, 2): F(-1, 2), F(3, 10): F(1), F(1, 5): F(-1, 2)}
    world = []
    for order in itertools.permutations(range(3)):
        says = tuple((F(1, 2), F(3, 10), F(1, 5))[i] for i in order)
        inversions = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
        world.append((F(1, 6), says, tuple(p + (-1) ** inversions * F(9, 100) * moves[p] for p in says)))
    return world


@pytest.mark.claim("whom-ladder")
def test_each_notion_has_a_forecaster_who_has_it_and_not_the_next():
    tenth = F(1, 10)
    first = [
        (F(1, 2), (6 * tenth, 2 * tenth, 2 * tenth), (7 * tenth, F(3, 20), F(3, 20))),
        (F(1, 2), (2 * tenth, 6 * tenth, 2 * tenth), (F(1, 4), F(1, 2), F(1, 4))),
    ]
    second = [(F(1), (6 * tenth, 3 * tenth, tenth), (6 * tenth, tenth, 3 * tenth))]
    third = six_forecasts()
    for world in (first, second, third):
        for mass, says, truth in world:
            assert sum(says) == sum(truth) == 1 and mass > 0 and min(truth) > 0
    assert list(holds(first).values()) == [True, False, False, False]
    assert list(holds(second).values()) == [True, True, False, False]
    assert list(holds(third).values()) == [True, True, True, False]
    honest = [(mass, says, says) for mass, says, _ in third]
    assert all(holds(honest).values())


@pytest.mark.claim("whom-binary")
def test_two_actions_on_one_number_see_exactly_what_calibration_is():
    """Decision makers by their four costs, who choose by comparing them, in fractions."""
    costs = [F(i) for i in (-2, 0, 1, 3)]
    says = (F(1, 5), F(1, 2), F(4, 5))

    def worst(happens):
        largest = F(0)
        for act in itertools.product(costs, repeat=2):
            for wait in itertools.product(costs, repeat=2):
                off = F(0)
                for s, h in zip(says, happens, strict=True):
                    choice = min((act, wait), key=lambda c, s=s: (1 - s) * c[0] + s * c[1])
                    off += (1 - h) * choice[0] + h * choice[1] - (1 - s) * choice[0] - s * choice[1]
                largest = max(largest, abs(off))
        return largest

    assert worst(says) == 0
    assert worst((F(3, 10), F(1, 2), F(7, 10))) > 0  # right on average only
    assert worst((F(1, 5), F(6, 10), F(4, 5))) > 0


def beyond(says, truth, mass, losses):
    acts = [min(range(len(losses)), key=lambda a, p=p: float(np.dot(losses[a], p))) for p in says]
    return sum(m * float(np.dot(losses[a], t - p)) for m, p, t, a in zip(mass, says, truth, acts, strict=True))


@pytest.mark.claim("whom-two")
def test_some_decision_maker_with_two_actions_is_cheated_by_any_finite_miscalibration():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        says = rng.dirichlet(np.ones(3), 5)
        move = 0.05 * rng.normal(size=(5, 3)) * (rng.random((5, 1)) < 0.5)
        move[0] = (0.03, -0.03, 0)
        move -= move.mean(1, keepdims=True)
        mass = np.full(5, 0.2)

        def worst(truth, says=says, mass=mass, rng=rng):
            largest = 0.0
            for _ in range(400):
                v = rng.normal(size=3)
                for at in says:  # the threshold beside each forecast
                    wait = np.full(3, v @ at + 1e-9) - v
                    largest = max(largest, abs(beyond(says, truth, mass, [np.zeros(3), wait])))
            return largest

        assert worst(says) == 0
        assert worst(says + move) > 1e-3
    world = six_forecasts()
    says, truth = (np.array([[float(x) for x in row[i]] for row in world]) for i in (1, 2))
    bet = np.array([40.0, -50.0, 0.0]) - 3
    taken = says @ bet > 0
    assert math.isclose((truth[taken] @ bet).sum() / (says[taken] @ bet).sum(), 0.25)


@pytest.mark.claim("whom-ring")
def test_a_slow_clock_cheats_nobody_and_could_be_put_right():
    """On finer and finer rings the cheating vanishes, the miscalibration and its price do not."""
    rng = np.random.default_rng(7)
    people = [rng.normal(size=(n, 3)) for n in (2, 3, 4) for _ in range(4)]
    people = [p - (p.mean(1, keepdims=True)) for p in people]
    worst, saved = [], []
    for steps in (60, 6000):
        angle = 2 * np.pi * (np.arange(steps) + 0.37) / steps
        around = np.stack([np.cos(angle + 2 * np.pi * k / 3) for k in range(3)], 1)
        tangent = np.stack([-np.sin(angle + 2 * np.pi * k / 3) for k in range(3)], 1)
        says, truth = 1 / 3 + 0.12 * around, 1 / 3 + 0.12 * around + 0.03 * tangent
        assert np.allclose(truth.sum(1), 1) and truth.min() > 0
        off, gain = [], []
        for losses in people:
            trusted, known = (p @ losses.T for p in (says, truth))
            act, better = trusted.argmin(1), known.argmin(1)
            row = np.arange(steps)
            off.append(abs((known[row, act] - trusted[row, act]).mean()))
            gain.append((known[row, act] - known[row, better]).mean())
        worst.append(max(off))
        saved.append(max(gain))
        assert np.abs(truth - says).max(1).min() > 0.02
    assert worst[1] < worst[0] / 20 and worst[1] < 1e-4
    assert min(saved) > 1e-3


def regret(p, y, threshold):
    def cost(says):
        acts = says > threshold
        return np.where(acts, threshold * (y == 0), (1 - threshold) * (y == 1)).mean()

    return cost(p) - cost(np.full(len(y), y.mean()))


@pytest.mark.claim("whom-v")
def test_thresholds_bound_the_regret_under_every_bounded_proper_loss():
    """Losses as random sums of decisions, the largest of which costs 1."""
    rng = np.random.default_rng(8)
    reached = 0.0
    for _ in range(30):
        p, y = rng.beta(2, 2, 30), rng.integers(0, 2, 30)
        at = np.unique(np.concatenate([p - 1e-9, p, p + 1e-9, y.mean() + np.array([-1e-9, 0, 1e-9])]))
        v = max(0.0, *(regret(p, y, c) / max(c, 1 - c) for c in at))
        for _ in range(20):
            thresholds, weights = rng.uniform(0.02, 0.98, 4), rng.dirichlet(np.ones(4))
            dearest = max((weights * thresholds).sum(), (weights * (1 - thresholds)).sum())
            total = sum(w * regret(p, y, c) for w, c in zip(weights, thresholds, strict=True)) / dearest
            assert total <= 2 * v + 1e-9
            reached = max(reached, total / (2 * v) if v else 0.0)
    assert reached > 0.3
    group = rng.integers(0, 4, 400)
    y = (rng.random(400) < np.array([0.1, 0.3, 0.6, 0.9])[group]) * 1
    calibrated = np.array([y[group == g].mean() for g in range(4)])[group]
    assert max(regret(calibrated, y, c) for c in np.linspace(0.01, 0.99, 99)) < 1e-12
