from __future__ import annotations

import io
import itertools
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from gence import propriety
from gence.losses import make_loss
from gence.propriety import verdict as search

L_Q = 0.7
EPS = 0.1


def l_q(logits, labels):
    """Generalized cross-entropy of Zhang and Sabuncu (2018): (1 - p_y^q) / q."""
    return (1 - logits.softmax(1).gather(1, labels[:, None])[:, 0] ** L_Q) / L_Q


def min_ent(logits, labels):
    """Cross-entropy plus the entropy of the prediction."""
    log_p = logits.log_softmax(1)
    return F.nll_loss(log_p, labels, reduction="none") - (log_p.exp() * log_p).sum(1)


def label_smoothing(logits, labels):
    return F.cross_entropy(logits, labels, label_smoothing=EPS, reduction="none")


PROPER = {"ce": make_loss("ce"), "brier": make_loss("brier")}
IMPROPER = {
    **{f"focal-{g}": make_loss("focal", gamma=float(g)) for g in (1, 2, 5)},
    "label-smoothing": label_smoothing,
    "l_q": l_q,
    "min-ent": min_ent,
}


def tables(n, k, seed, sharp=1.0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, sharp), n) * 0.99 + 0.01 / k


def twins(n, k, seed):
    q = tables(n, k - 1, seed)
    return np.column_stack([q[:, :-1], 0.6 * q[:, -1], 0.4 * q[:, -1]])


@pytest.mark.claim("propriety-lab")
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("name", PROPER)
def test_proper_losses_are_found_strictly_proper(name, n_classes):
    verdict = propriety.is_strictly_proper(PROPER[name], n_classes)
    assert verdict.proper and verdict.strictly and verdict.converged
    assert verdict.distance < 1e-6 and abs(verdict.gap) < 1e-12
    assert verdict.belief is None
    assert str(verdict).startswith("strictly proper")


@pytest.mark.claim("propriety-lab")
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("name", IMPROPER)
def test_improper_losses_come_with_a_belief_they_distort(name, n_classes):
    verdict = propriety.is_strictly_proper(IMPROPER[name], n_classes)
    assert not verdict.proper and not verdict.strictly
    assert verdict.gap > 1e-3 and verdict.distance > 0.02
    # The counterexample stands without the search: a lower risk than telling the truth.
    risks = [propriety.conditional_risk(IMPROPER[name], p, verdict.belief) for p in (verdict.minimiser, verdict.belief)]
    assert risks[0] < risks[1] - 1e-3
    assert np.isclose(risks[1] - risks[0], verdict.gap, rtol=0, atol=1e-12)
    assert str(verdict).startswith("not proper")


@pytest.mark.claim("propriety-lab")
def test_the_verdict_on_gence_depends_on_completeness_and_on_the_strength():
    gence, half = make_loss("gence"), make_loss("gence", strength=0.5)
    everywhere = propriety.is_strictly_proper(gence, 3)
    assert everywhere.proper and not everywhere.strictly and everywhere.distance > 0.05
    q, p = torch.from_numpy(everywhere.belief), torch.from_numpy(everywhere.minimiser)
    assert np.linalg.matrix_rank(q.numpy()) < 3
    assert abs(gence(p.log(), q) - gence(q.log(), q)) < 1e-12
    assert propriety.is_strictly_proper(gence, 3, complete_only=True).strictly
    assert propriety.is_strictly_proper(half, 3).strictly
    assert propriety.is_strictly_proper(make_loss("gence", strength=0.0), 3).strictly


def test_ten_classes_end_in_time():
    """The tables that are not complete come first, and one of them is enough for the verdict."""
    started = time.monotonic()
    verdict = propriety.is_strictly_proper(
        make_loss("gence"), 10, n_beliefs=8, n_starts=2, max_seconds=60, progress=False
    )
    assert time.monotonic() - started < 75
    assert verdict.strictly is False and verdict.proper is not False and verdict.distance > 0.05
    q, p = torch.from_numpy(verdict.belief), torch.from_numpy(verdict.minimiser)
    assert np.linalg.matrix_rank(q.numpy()) < 10
    assert abs(make_loss("gence")(p.log(), q) - make_loss("gence")(q.log(), q)) < 1e-9


def ticking(monkeypatch, ticks):
    """A clock that says after so many looks at it that the time is up."""
    clock = itertools.count()
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: 0.0 if next(clock) < ticks else 1e9))


@pytest.mark.parametrize("ticks", [3, 10, 60])
def test_a_search_without_time_does_not_call_a_loss_proper(monkeypatch, ticks):
    ticking(monkeypatch, ticks)
    verdict = propriety.is_strictly_proper(make_loss("gence"), 3, complete_only=True, n_starts=2, max_seconds=1)
    assert verdict.proper is None and verdict.strictly is None and verdict.belief is None
    assert 1 <= verdict.searched <= verdict.planned == 10
    assert str(verdict).startswith("undecided: no counterexample so far") and "time was up" in str(verdict)
    assert ticks > 10 or (not verdict.converged and f"{verdict.searched} of 10 beliefs" in str(verdict))


def test_a_counterexample_stands_when_time_is_up(monkeypatch):
    ticking(monkeypatch, 12)
    verdict = propriety.is_strictly_proper(make_loss("focal"), 3, max_seconds=1)
    assert verdict.proper is False and str(verdict).startswith("not proper")
    risks = [
        propriety.conditional_risk(make_loss("focal"), p, verdict.belief) for p in (verdict.minimiser, verdict.belief)
    ]
    assert risks[0] < risks[1] - 1e-4


def test_tables_of_one_shape_are_searched_together_as_each_alone():
    """Shapes of 3 tables of 6 rows, 2 of 9, in the order of their first."""
    loss, beliefs = make_loss("gence"), [tables(n, 3, i) for i, n in enumerate((6, 9, 6, 9, 6))]
    found, finished = search._search(loss, beliefs, 2, 0, 1e9, False)
    assert finished and [len(f.belief) for f in found] == [6, 6, 6, 9, 9]
    for one in found:
        alone = propriety.find_minimisers(loss, one.belief, n_starts=2)
        assert one.converged.all() and alone.converged.all()
        assert np.abs(one.points - alone.points).max() < 1e-6 and np.abs(one.risks - alone.risks).max() < 1e-12


def test_the_bar_shows_all_starts_and_only_after_five_seconds(monkeypatch):
    bars = []

    class Bar(search.tqdm):
        def __init__(self, **options):
            bars.append((self, options))
            super().__init__(**options | {"file": io.StringIO()})

    monkeypatch.setattr(search, "tqdm", Bar)
    for progress in (True, False):
        propriety.is_strictly_proper(make_loss("gence"), 2, n_starts=2, n_beliefs=8, progress=progress)
    (shown, options), (_, silent) = bars
    assert options["delay"] == 5 and not options["disable"] and silent["disable"]
    assert shown.n == shown.total == 2 * 4  # two random tables, twins and an absent class


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_minimisers_with_a_closed_form(n_classes, seed):
    q = tables(1, n_classes, seed)[0]
    power = q ** (1 / (1 - L_Q))
    for loss, expected in [
        (make_loss("ce"), q),
        (make_loss("brier"), q),
        (torch.nn.CrossEntropyLoss(label_smoothing=EPS), (1 - EPS) * q + EPS / n_classes),
        (label_smoothing, (1 - EPS) * q + EPS / n_classes),
        (l_q, power / power.sum()),
    ]:
        found = propriety.find_minimisers(loss, q, n_starts=4, seed=seed)
        assert found.converged.any()
        assert np.abs(found.best - expected).max() < 1e-5


def line_search(risk) -> float:
    """The minimum between 0 and 1: the best of a coarse grid, and then between its neighbours."""
    grid = np.linspace(1e-4, 1 - 1e-4, 101)
    at = int(np.argmin([risk(p) for p in grid]))
    around = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    return minimize_scalar(risk, bounds=around, method="bounded", options={"xatol": 1e-6}).x


@pytest.mark.parametrize("loss", [make_loss("focal", gamma=2.0), min_ent], ids=["focal", "min-ent"])
def test_minimisers_without_a_closed_form_agree_with_a_line_search(loss):
    for q in (0.55, 0.7, 0.9):
        belief = np.array([q, 1 - q])
        found = line_search(lambda p, belief=belief: propriety.conditional_risk(loss, [p, 1 - p], belief))
        best = propriety.find_minimisers(loss, belief, n_starts=8).best
        assert abs(best[0] - found) < 1e-4


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_search_on_tables_agrees_with_scipy(strength):
    q = torch.from_numpy(tables(7, 3, 1))
    loss = make_loss("gence", strength=strength)

    def value_and_gradient(flat):
        z = torch.tensor(flat.reshape(q.shape), requires_grad=True)
        value = loss(z, q)
        return value.item(), torch.autograd.grad(value, z)[0].numpy().ravel()

    other = minimize(
        value_and_gradient, np.zeros(q.numel()), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0}
    )
    found = propriety.find_minimisers(loss, q, n_starts=5)
    assert found.converged.all()
    assert abs(found.risks.min() - other.fun) < 1e-11
    assert np.ptp(found.risks) < 1e-12


def test_a_search_that_is_cut_short_says_so():
    found = propriety.find_minimisers(make_loss("gence"), tables(8, 3, 0), n_starts=3, max_iter=2)
    assert not found.converged.any() and found.spread == 0.0


def test_the_conditional_risk_is_the_expected_loss():
    p, q = tables(1, 4, 0)[0], tables(1, 4, 1)[0]
    z = torch.from_numpy(p).log()[None]
    for loss in (*PROPER.values(), *IMPROPER.values()):
        by_hand = sum(q[k] * float(loss(z, torch.tensor([k]))) for k in range(4))
        assert np.isclose(propriety.conditional_risk(loss, p, q), by_hand, rtol=0, atol=1e-12)
    many_p, many_q = tables(5, 4, 2), tables(5, 4, 3)
    by_rows = np.mean([propriety.conditional_risk(make_loss("ce"), a, b) for a, b in zip(many_p, many_q, strict=True)])
    assert np.isclose(propriety.conditional_risk(make_loss("ce"), many_p, many_q), by_rows, rtol=0, atol=1e-12)


def test_the_conditional_risk_at_the_edge_of_the_simplex():
    certain = [1.0, 0.0, 0.0]
    assert propriety.conditional_risk(make_loss("ce"), certain, certain) == 0
    assert propriety.conditional_risk(make_loss("ce"), certain, [0.5, 0.5, 0.0]) == np.inf
    assert np.isclose(propriety.conditional_risk(make_loss("brier"), certain, [0.0, 1.0, 0.0]), 2)


def test_losses_that_couple_samples_are_recognised():
    for loss in (*PROPER.values(), *IMPROPER.values(), make_loss("gence", strength=0.0)):
        assert not propriety.couples_samples(loss, 4)
    assert propriety.couples_samples(make_loss("gence", strength=0.01), 4)


def test_one_row_of_a_table_and_a_sample_judged_alone_are_no_batch_of_one():
    gence = make_loss("gence")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert propriety.couples_samples(gence, 3)
        propriety.regret(tables(1, 3, 0), tables(1, 3, 1))
        with pytest.warns(UserWarning, match="GenCE got a batch of one"):  # whoever trains is still told
            gence(torch.zeros(1, 3), torch.tensor([0]))


def test_a_module_is_left_as_it_is():
    loss = make_loss("ce")
    propriety.is_strictly_proper(loss, 2, n_beliefs=1)
    assert loss.reduction == "mean"


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 10_000), st.floats(0, 1))
def test_regret_identities(n, k, seed, strength):
    r = propriety.regret(tables(n, k, seed), tables(n, k, seed + 1), strength=strength)
    assert abs(r.gence - (r.ce - strength * r.marginal)) < 1e-12
    assert abs(r.gence - ((1 - strength) * r.ce + strength * r.columns)) < 1e-12


def test_regret_where_the_truth_has_zeros():
    q = np.eye(3)[[0, 0, 1]]  # class 2 is absent
    r = propriety.regret(tables(3, 3, 0), q)
    assert abs(r.gence - (r.ce - r.marginal)) < 1e-12 and abs(r.gence - r.columns) < 1e-12


@pytest.mark.parametrize(
    ("q", "rank"),
    [(tables(8, 3, 0), 3), (twins(8, 3, 0), 2), (tables(3, 5, 0), 3), (np.eye(3)[[0, 0, 1]], 2), (np.eye(3), 3)],
    ids=["random", "twins", "few samples", "absent class", "one-hot"],
)
def test_completeness_and_other_minimisers(q, rank):
    found = propriety.completeness(q)
    assert found.rank == rank
    assert found.complete == (rank == q.shape[1]) == np.isfinite(found.condition)
    flat = propriety.flat_directions(q)
    assert flat.shape == (q.shape[1], q.shape[1] - rank)
    assert np.abs(q @ flat).max(initial=0) < 1e-12
    if found.complete:
        with pytest.raises(ValueError, match="Q itself is the only minimiser"):
            propriety.other_minimiser(q)
        return
    p = propriety.other_minimiser(q)
    assert p.min() >= 0 and np.allclose(p.sum(1), 1, rtol=0, atol=1e-12)
    assert np.abs(p - q).max() > 0.05
    loss, target = make_loss("gence"), torch.from_numpy(q)
    assert abs(loss(torch.from_numpy(p).log(), target) - loss(target.log(), target)) < 1e-12


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: propriety.conditional_risk(make_loss("ce"), [0.5, 0.6], [0.5, 0.5]),
            r"p must hold .* rows sum to 1.1",
        ),
        (lambda: propriety.conditional_risk(make_loss("ce"), [0.5, 0.5], [1, -0.0, 0.0]), "the same shape"),
        (lambda: propriety.conditional_risk(make_loss("ce"), [0.5, 0.5], [1.5, -0.5]), "smallest entry is -0.5"),
        (lambda: propriety.conditional_risk(make_loss("gence"), [0.5, 0.5], [0.5, 0.5]), "One row|one row"),
        (lambda: propriety.find_minimisers(make_loss("ce"), [0.5, 0.5], n_starts=0), "n_starts must be at least 1"),
        (lambda: propriety.find_minimisers(lambda z, y: F.cross_entropy(z, y), [0.5, 0.5]), "reduction='none'"),
        (lambda: propriety.is_strictly_proper(make_loss("ce"), 1), "n_classes must be at least 2, but got 1"),
        (lambda: propriety.is_strictly_proper(make_loss("ce"), 2, max_seconds=0), "max_seconds must be > 0, but got 0"),
        (lambda: propriety.completeness([0.5, 0.5]), "must be a table"),
        (lambda: propriety.regret(GOOD, GOOD, strength=2), r"strength must lie in \[0, 1\]"),
        (lambda: propriety.other_minimiser([[0.5, 0.5]], reach=1.0), "strictly between 0 and 1"),
        (lambda: propriety.completeness(np.zeros((0, 2))), "must have shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
