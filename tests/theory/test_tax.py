"""What is left of GenCE in a mini-batch: the sandwich, the tax, the late limit, the implicit logit adjustment."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from evidence_of import table_of, trained
from scipy import optimize, special, stats

from gence.lab.data import long_tail_counts
from gence.losses import TrackedGenCELoss, generative_cross_entropy, make_loss, present_class_cross_entropy

SEEDS = range(5)


def random_batch(seed: int, n: int, k: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels whose class frequencies are very unequal, so that small batches lack classes."""
    rng = np.random.default_rng([seed, n, k])
    labels = rng.choice(k, n, p=rng.dirichlet(np.ones(k)))
    return torch.tensor(rng.normal(0, spread, (n, k))), torch.tensor(labels)


def plain_present_ce(z: np.ndarray, y: np.ndarray) -> float:
    """Sample by sample, in float64."""
    present = sorted(set(y.tolist()))
    terms = [special.logsumexp([z[i, k] for k in present]) - z[i, y[i]] for i in range(len(y))]
    return sum(terms) / len(y)


def exact_gence(z: torch.Tensor, y: torch.Tensor) -> float:
    return references.generative_cross_entropy(z, y).reduced("mean").item()


def gradients(z: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    z = z.clone().requires_grad_()
    losses = generative_cross_entropy, present_class_cross_entropy, F.cross_entropy
    return [torch.autograd.grad(loss(z, y), z)[0] for loss in losses]


# --- The sandwich -------------------------------------------------------------------------------------------------


@pytest.mark.claim("batch-sandwich")
@pytest.mark.parametrize(("n", "k"), [(2, 2), (3, 6), (6, 4), (10, 8), (20, 5)])
def test_gence_lies_between_the_two_cross_entropies(n, k):
    """2,200 batches of each shape; the bias of the lower bound by a plain fixed-point iteration (Sinkhorn)."""
    draws = 2200
    z, y = (torch.stack(values) for values in zip(*(random_batch(seed, n, k) for seed in range(draws)), strict=True))
    pi = F.one_hot(y, k).double().mean(1)
    middle = torch.vmap(generative_cross_entropy)(z, y) - math.log(n) + torch.special.entr(pi).sum(1)
    assert (middle <= torch.vmap(F.cross_entropy)(z, y) + 1e-10).all()

    bias = torch.where(pi > 0, 0.0, -torch.inf)
    for _ in range(150):
        mean = (z + bias[:, None]).softmax(2).mean(1)
        bias = torch.where(pi > 0, bias + (pi / mean).log(), -torch.inf)
    shifted = z + bias[:, None]
    low = (shifted.logsumexp(2) - shifted.gather(2, y[..., None])[..., 0]).mean(1)
    # A bias that is not quite the best gives a bound that is too high; count only those that are found.
    found = ((shifted.softmax(2).mean(1) - pi).abs().amax(1) < 1e-9) & (pi > 0).any(1)
    assert found.double().mean() > 0.8
    assert (low[found] <= middle[found] + 1e-9).all()
    assert (pi == 0).any(1).sum() > draws / 4


@pytest.mark.claim("batch-sandwich")
def test_the_lower_bound_is_found_by_scipy_too():
    for seed in SEEDS:
        z, y = (value.numpy() for value in random_batch(seed, 12, 6))
        present = np.unique(y)
        pi = np.bincount(y, minlength=6) / 12
        least = optimize.minimize(with_bias, np.zeros(len(present)), args=(z, y, present)).fun
        middle = exact_gence(torch.tensor(z), torch.tensor(y)) - math.log(12) + special.entr(pi).sum()
        assert least <= middle + 1e-7
        assert middle <= -special.log_softmax(z, 1)[np.arange(12), y].mean() + 1e-12


def with_bias(bias: np.ndarray, z: np.ndarray, y: np.ndarray, present: np.ndarray) -> float:
    z = z.copy()
    z[:, present] += bias
    return plain_present_ce(z, y)


# --- The tax ------------------------------------------------------------------------------------------------------


@pytest.mark.claim("linear-tax")
@pytest.mark.parametrize(("n", "k"), [(1, 3), (8, 4), (16, 30), (64, 10)])
def test_the_class_term_is_a_linear_tax_of_observed_over_predicted(n, k):
    for seed in SEEDS:
        z, y = random_batch(seed, n, k)
        p = z.softmax(1)
        rate = torch.bincount(y, minlength=k) / p.sum(0)
        by_tax = z.clone().requires_grad_()
        taxed = F.cross_entropy(by_tax, y) + (rate * by_tax.softmax(1)).sum() / n
        (wanted,) = torch.autograd.grad(taxed, by_tax)
        gence = gradients(z, y)[0]
        assert torch.allclose(gence, wanted, atol=1e-12)
        factor = 1 + rate - (p * rate).sum(1, keepdim=True)
        assert torch.allclose(gence, (p * factor - F.one_hot(y, k)) / n, atol=1e-12)
        assert (rate[torch.bincount(y, minlength=k) == 0] == 0).all()


@pytest.mark.claim("late-limit")
@pytest.mark.parametrize("spread_of_margins", [0.0, 1.0])
@pytest.mark.parametrize(("n", "k"), [(32, 50), (16, 10), (64, 100)])
def test_late_in_training_gence_is_present_class_ce_at_rate_one(n, k, spread_of_margins):
    """At least two classes are present; each sample has a margin of its own, and all margins grow alike."""
    for seed in SEEDS:
        z, y = random_batch(seed, n, k, spread=1.0)
        assert len(y.unique()) > 1
        own = torch.tensor(np.random.default_rng(seed).normal(0, spread_of_margins, (n, 1)))
        gaps, distance = [], []
        for margin in (11.0, 13.0, 15.0, 17.0):
            late = z + (margin + own) * F.one_hot(y, k)
            gence, present, ce = gradients(late, y)
            eps = (1 - late.softmax(1).gather(1, y[:, None])).max()
            gaps.append((eps.log().item(), ((gence - present).norm() / present.norm()).log().item()))
            distance.append(((gence - ce).norm() / gence.norm()).item())
        assert 0.9 < stats.linregress(*np.array(gaps).T).slope < 1.1
        assert min(distance) > 0.1  # these batches lack classes, and the distance to CE does not shrink


@pytest.mark.claim("late-limit")
def test_without_its_conditions_the_late_limit_fails():
    """A batch of one class, and one whose samples doubt an absent class only: closed forms of both gaps."""
    one = torch.zeros(8, dtype=torch.int64)
    z, _ = random_batch(3, 8, 5, spread=1.0)
    for margin in (4.0, 10.0, 18.0):
        gence, present, _ = gradients(z + margin * F.one_hot(one, 5), one)
        assert present.abs().max() == 0 and gence.norm() > 0  # the gap is all of GenCE's gradient
    y, ratios = torch.tensor([0, 0, 1, 1]), []
    for eps in (0.1, 0.01, 0.001):
        p = np.zeros((4, 3))
        p[:, 2] = eps * np.array([0.5, 1.5, 0.5, 1.5])
        p[range(4), 1 - y] = eps**3
        p[range(4), y] = 1 - p.sum(1)
        gence, present, _ = gradients(torch.tensor(p).log(), y)
        w = 1 / p[:2, 0].sum() * 2, 2 / p[2:, 1].sum()  # observed over predicted, up to eps^3
        pushed = p[:, 2] * (1 - np.array([w[0], w[0], w[1], w[1]]) * (1 - p[:, 2])) / 4  # on the absent class
        assert np.allclose(gence[:, 2], pushed, atol=2 * eps**3)
        ratios.append(((gence - present).norm() / present.norm()).item())
        bound = eps**2 / eps**3  # of the proposition, up to a constant
        assert 0.1 * bound < ratios[-1] < 10 * bound
    assert ratios[0] < ratios[1] / 5 < ratios[2] / 25


@pytest.mark.claim("late-limit")
def test_with_all_classes_present_the_limit_is_cross_entropy():
    z, _ = random_batch(0, 30, 6, spread=1.0)
    y = torch.arange(30) % 6
    gence, present, ce = gradients(z + 18 * F.one_hot(y, 6), y)
    assert torch.allclose(present, ce, atol=1e-15)
    assert (gence - ce).norm() < 1e-4 * gence.norm()


@pytest.mark.claim("share-left-out")
@pytest.mark.parametrize(("k", "rho", "size"), [(3, 1, 2), (4, 20, 3), (3, 5, 5)])
def test_the_share_of_pushes_left_out_by_counting_all_batches(k, rho, size):
    pi = rho ** (-np.arange(k) / (k - 1.0))
    pi /= pi.sum()
    left_out = pushes = 0.0
    for labels in itertools.product(range(k), repeat=size):
        chance = math.prod(pi[y] for y in labels)
        for y in labels:
            pushes += chance * (k - 1)
            left_out += chance * sum(m not in labels for m in range(k) if m != y)
    assert math.isclose(left_out / pushes, ((1 - pi) ** size).sum() / (k - 1), rel_tol=1e-12)


# --- The implicit logit adjustment --------------------------------------------------------------------------------


def expected_present_ce(z: np.ndarray, q: np.ndarray, s: np.ndarray) -> float:
    """Exact: over the label of one input and over which classes the rest of its batch holds."""
    total = 0.0
    for others in itertools.product((0, 1), repeat=len(q)):
        chance = np.where(others, s, 1 - s).prod()
        for label, share in enumerate(q):
            here = [k for k in range(len(q)) if others[k] or k == label]
            total += chance * share * (special.logsumexp(z[here]) - z[label])
    return total


@pytest.mark.claim("implicit-adjustment")
@pytest.mark.parametrize("k", [2, 3, 4])
def test_present_class_ce_shifts_the_logits_by_minus_log_of_being_there(k):
    for seed in range(2):
        rng = np.random.default_rng([seed, k, 7])
        q, s = rng.dirichlet(np.ones(k)), rng.uniform(0.05, 0.95, k)
        found = optimize.minimize(expected_present_ce, np.zeros(k), args=(q, s), method="BFGS", options={"gtol": 1e-9})
        shift = found.x - np.log(q)
        assert np.allclose(shift - shift[0], -np.log(s) + np.log(s[0]), atol=1e-4)


@pytest.mark.claim("implicit-adjustment")
def test_gence_has_no_such_shift_where_classes_overlap():
    """All batches of three from two inputs and three classes: the slope at the posterior vanishes, elsewhere not."""
    q = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])

    def slope(loss, table: np.ndarray) -> torch.Tensor:
        z = torch.tensor(table).requires_grad_()
        total = 0.0
        for xs in itertools.product(range(2), repeat=3):
            for ys in itertools.product(range(3), repeat=3):
                chance = math.prod(0.5 * q[x, y] for x, y in zip(xs, ys, strict=True))
                total = total + chance * loss(z[list(xs)], torch.tensor(ys))
        return torch.autograd.grad(total, z)[0]

    shifted = np.log(q) - np.log(1 - (1 - q.mean(0)) ** 2)
    assert slope(generative_cross_entropy, np.log(q)).abs().max() < 1e-12
    assert slope(generative_cross_entropy, shifted).abs().max() > 1e-3
    assert slope(present_class_cross_entropy, np.log(q)).abs().max() > 1e-2
    # For batches of fixed size the classes are not quite independent: nearly, not exactly, at rest.
    assert slope(present_class_cross_entropy, shifted).abs().max() < 1e-2


def mean_logits_anew(tmp_path: Path, losses: list[str]) -> dict[str, np.ndarray]:
    """Loss to the mean logit of each class; other seeds and another batch size than in the chapter."""
    fixed = {"rho": 50.0, "n_per_class": 96, "batch_size": 12, "epochs": 80, "lr": 0.08}
    last = trained(tmp_path, losses, "700-707", **fixed)
    assert last.train_error.mean() < 0.01
    logits = {path: np.load(Path(path).with_suffix(".npz"))["last_test"] for path in last.path}
    level = last.path.map(lambda path: (logits[path] - logits[path].mean(1, keepdims=True)).mean(0))
    return {loss: np.mean(level[last.loss == loss].tolist(), axis=0) for loss in losses}


@pytest.mark.claim("shift-in-networks")
@pytest.mark.parametrize(
    # The drawn batches of 269 samples hold 11 or 12: on average 10.7 others; those of the chapter 7 or 8.
    ("source", "others"),
    [("page", 6.92), pytest.param("anew", 10.7, marks=pytest.mark.thorough)],
)
def test_the_logits_of_trained_networks_shift_by_about_minus_log_of_being_there(source, others, tmp_path):
    counts, losses = long_tail_counts(96, 50, 10), ["ce", "gence", "present_class"]
    if source == "page":
        table = table_of("batch/mini_batches", batch_size=8)
        level = {loss: np.mean(table[table.loss == loss].level.tolist(), axis=0) for loss in losses}
    else:
        level = mean_logits_anew(tmp_path, losses)
    due = -np.log(1 - (1 - counts / counts.sum()) ** others)
    due -= due[0]
    for loss in losses[1:]:
        shift = level[loss] - level["ce"]
        shift -= shift[0]
        assert np.corrcoef(due, shift)[0, 1] > 0.9
        assert 0.5 < due @ shift / (due @ due) < 2


# --- The losses of the argument -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 2), (5, 3), (16, 40), (7, 1)])
def test_present_class_ce_is_its_plain_loop(n, k):
    for seed in SEEDS:
        z, y = random_batch(seed, n, k)
        assert math.isclose(
            present_class_cross_entropy(z, y).item(), plain_present_ce(z.numpy(), y.numpy()), abs_tol=1e-12
        )
        slope = gradients(z, y)[1]
        assert (slope[:, torch.bincount(y, minlength=k) == 0] == 0).all()
        terms = present_class_cross_entropy(z, y, reduction="none")
        assert torch.isclose(terms.mean(), present_class_cross_entropy(z, y)) and terms.shape == y.shape
        assert torch.isclose(terms.sum(), present_class_cross_entropy(z, y, reduction="sum"))


def test_present_class_ce_over_positions_is_one_batch():
    z, y = random_batch(0, 24, 6)
    spatial = z.reshape(4, 6, 6).permute(0, 2, 1)  # (N, K, d)
    assert torch.isclose(present_class_cross_entropy(spatial, y.reshape(4, 6)), present_class_cross_entropy(z, y))


@pytest.mark.claim("tracked-is-gence")
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_tracked_gence_without_a_past_has_the_gradient_and_the_value_of_gence(strength):
    for seed in SEEDS:
        z, y = random_batch(seed, 40, 4)
        y[:4] = torch.arange(4)  # all classes present
        criterion = TrackedGenCELoss(torch.bincount(y), memory=0, strength=strength)
        by_class = [x.clone().requires_grad_() for x in (z, z)]
        values = criterion(by_class[0], y), generative_cross_entropy(by_class[1], y, strength=strength)
        assert torch.isclose(*values)
        a, b = (torch.autograd.grad(value, x)[0] for value, x in zip(values, by_class, strict=True))
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.claim("tracked-is-gence")
def test_tracked_gence_remembers_the_mean_prediction_of_about_that_many_samples():
    criterion = TrackedGenCELoss([3.0, 2.0, 1.0], memory=50)
    total, mass, old = np.zeros(3), 0.0, math.exp(-10 / 50)
    for seed in range(12):
        z, y = random_batch(seed, 10, 3)
        mean = special.softmax(z.numpy(), axis=1).mean(0)
        total, mass = old * total + (1 - old) * mean, old * mass + (1 - old)
        z.requires_grad_()
        value = criterion(z, y)
        (slope,) = torch.autograd.grad(value, z)
        log_p = special.log_softmax(z.detach().numpy(), axis=1)
        m = total / mass
        assert math.isclose(value.item(), np.mean([-log_p[i, y[i]] + math.log(10 * m[y[i]]) for i in range(10)]))
        p, w = np.exp(log_p), np.array([3, 2, 1]) / 6 / m
        by_hand = (p * (1 + w - (p * w).sum(1, keepdims=True)) - np.eye(3)[y.numpy()]) / 10
        assert np.allclose(slope.numpy(), by_hand, atol=1e-12)
    frozen = criterion.mean_prediction.clone()
    criterion.eval()
    criterion(z, y)
    assert torch.equal(criterion.mean_prediction, frozen)
    again = TrackedGenCELoss([3.0, 2.0, 1.0], memory=50)
    again.load_state_dict(criterion.state_dict())
    assert torch.equal(again.eval()(z, y), criterion(z, y))


def test_tracked_gence_survives_extreme_logits_and_refuses_what_does_not_fit():
    criterion = TrackedGenCELoss([1.0, 1.0], memory=10)
    z = torch.tensor([[1e4, -1e4], [1e4, -1e4]], dtype=torch.float32, requires_grad=True)
    value = criterion(z, torch.tensor([1, 0]))
    (slope,) = torch.autograd.grad(value, z)
    assert value.isfinite() and slope.isfinite().all()
    with pytest.raises(ValueError, match="class_counts has 2 classes, but the logits have 3"):
        criterion(torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="memory must be a number of samples >= 0, but got -1"):
        TrackedGenCELoss([1.0, 1.0], memory=-1)
    with pytest.raises(ValueError, match="class_counts must hold a positive number"):
        TrackedGenCELoss([1.0, 0.0])


def test_gence_with_logit_adjustment_is_gence_of_the_adjusted_logits():
    z, y = random_batch(1, 20, 4)
    counts = torch.tensor([40.0, 20.0, 10.0, 5.0], dtype=torch.float64)
    adjusted = z + (counts / 75).log()
    criterion = make_loss("gence_logit_adjustment", class_counts=counts)
    assert math.isclose(criterion(z, y).item(), exact_gence(adjusted, y), abs_tol=1e-12)
    assert torch.isclose(make_loss("logit_adjustment", class_counts=counts)(z, y), F.cross_entropy(adjusted, y))


@pytest.mark.claim("lost-class-price")
@pytest.mark.parametrize(("k", "n"), [(2, 3), (10, 5), (40, 2)])
@pytest.mark.parametrize("delta", [0.3, 1e-3, 1e-9])
def test_a_lost_class_costs_gence_a_kth_of_a_nat_at_most_and_cross_entropy_without_bound(k, n, delta):
    """All samples are predicted perfectly but those of one class, which keep delta for it."""
    y = np.repeat(np.arange(k), n)
    p = np.full((k * n, k), 1e-200)
    p[np.arange(k * n), y] = 1.0
    p[:n] = (1 - delta) / (k - 1)
    p[:n, 0] = delta
    z, labels = torch.tensor(np.log(p)), torch.tensor(y)
    price = (1 - 1 / k) * math.log(1 + (1 - delta) / (k - 1))
    assert exact_gence(z, labels) - math.log(n) == pytest.approx(price, rel=1e-9)
    assert price <= (1 - delta) / k
    for strength in (0.0, 0.5, 1.0):
        bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
        loss = generative_cross_entropy(z + bias, labels, strength=strength)
        paid = -(1 - strength) * math.log(delta) / k + strength * price
        assert loss.item() - strength * math.log(n) == pytest.approx(paid, rel=1e-9)
        pull = torch.autograd.grad(loss, bias)[0][0].item()
        assert pull == pytest.approx(-(1 - strength) * (1 - delta) / k, abs=delta)
