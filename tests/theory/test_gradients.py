"""The chapter "Gradients": closed forms against autograd and finite differences, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gence import generative_cross_entropy

SHAPES = [(1, 2), (2, 5), (7, 3), (32, 10), (20, 60)]
CASES = [(seed, n, k) for seed in range(5) for n, k in SHAPES]


@pytest.fixture(params=CASES, ids=str)
def batch(request):
    """Logits, labels, soft targets, class weights."""
    seed, n, k = request.param
    rng = np.random.default_rng([seed, n, k, 77])
    z = torch.as_tensor(2 * rng.normal(size=(n, k))).requires_grad_()
    q = torch.as_tensor(rng.dirichlet(np.ones(k), size=n))
    return z, torch.as_tensor(rng.integers(k, size=n)), q, torch.as_tensor(rng.uniform(0.2, 3, k))


def gradient(value: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, at)[0]


def table(target: torch.Tensor, k: int, weight: torch.Tensor | None, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """a_ik and W by loops over the definition."""
    hard = target.dim() == 1
    q = F.one_hot(target, k).double() if hard else target
    a = torch.stack([(1 - eps) * q[:, c] + eps / k for c in range(k)], dim=1)
    if weight is not None:
        a = a * weight
    total = torch.tensor(float(len(q))) if weight is None or not hard else weight[target].sum()
    return a, total.double()


def options():
    return [
        (hard, weighted, eps, s) for hard in (0, 1) for weighted in (0, 1) for eps in (0.0, 0.2) for s in (1.0, 0.3)
    ]


@pytest.mark.claim("grad-p")
@pytest.mark.parametrize(("hard", "weighted", "eps", "s"), options())
def test_gradient_in_p(batch, hard, weighted, eps, s):
    z, labels, q, weight = batch
    n, k = z.shape
    p = z.detach().softmax(1).requires_grad_()
    a, total = table(labels if hard else q, k, weight if weighted else None, eps)
    value = torch.zeros((), dtype=torch.float64)
    for c in range(k):
        column_sum = sum(a[j].sum() * p[j, c] for j in range(n)) if n < 8 else (a.sum(1) * p[:, c]).sum()
        value = value - (a[:, c] * p[:, c].log()).sum() + s * a[:, c].sum() * column_sum.log()
    auto = gradient(value / total, p)
    with torch.no_grad():
        closed = (-a / p + s * a.sum(1, keepdim=True) * a.sum(0) / (a.sum(1, keepdim=True) * p).sum(0)) / total
    torch.testing.assert_close(auto, closed, rtol=1e-11, atol=1e-12)


@pytest.mark.claim("grad-z")
@pytest.mark.parametrize(("hard", "weighted", "eps", "s"), options())
def test_gradient_in_z_against_autograd_and_finite_differences(batch, hard, weighted, eps, s):
    z, labels, q, weight = batch
    k = z.shape[1]
    target, w = labels if hard else q, weight if weighted else None

    def loss(x: torch.Tensor) -> torch.Tensor:
        return generative_cross_entropy(x, target, w, label_smoothing=eps, strength=s)

    auto = gradient(loss(z), z)
    a, total = table(target, k, w, eps)
    p = z.detach().softmax(1)
    m, n_k = a.sum(1, keepdim=True), a.sum(0)
    r = m * p / (m * p).sum(0)
    closed = ((m * p - a) + s * (n_k * r - p * (n_k * r).sum(1, keepdim=True))) / total
    assert (auto - closed).abs().max() < 1e-12
    assert closed.sum(1).abs().max() < 1e-12
    direction = torch.as_tensor(np.random.default_rng(0).normal(size=z.shape))
    h = 1e-5
    with torch.no_grad():
        slope = (loss(z + h * direction) - loss(z - h * direction)) / (2 * h)
    assert slope.item() == pytest.approx((closed * direction).sum().item(), abs=1e-7)


def hard_case(batch):
    z, labels, *_ = batch
    p = z.detach().softmax(1)
    a = F.one_hot(labels, z.shape[1]).double()
    return z, labels, p, a, a.sum(0) / p.sum(0)


@pytest.mark.refutes("G7")
def test_equation_8_lacks_the_factor_and_the_cross_terms(batch):
    _, labels, p, a, w = hard_case(batch)
    n = len(labels)
    free = p.clone().requires_grad_()
    value = -(a * (free / free.sum(0)).log()).sum() / n  # the paper's equation (4)
    auto = gradient(value, free)
    rows = torch.arange(n)
    printed = -1 / p[rows, labels] + w[labels]
    torch.testing.assert_close(auto[rows, labels], printed / n, rtol=1e-10, atol=1e-11)
    cross = auto.masked_fill(a.bool(), 0)
    torch.testing.assert_close(cross, (w / n).expand_as(p).masked_fill(a.bool(), 0), rtol=1e-10, atol=1e-12)
    present_elsewhere = (a.sum(0) > 0).expand_as(p) & ~a.bool()
    assert (cross[present_elsewhere] > 0).all()
    assert (cross[(a.sum(0) == 0).expand_as(p)] == 0).all()


@pytest.mark.claim("eq8-alone")
def test_equation_8_alone_would_be_a_reweighting_of_cross_entropy(batch):
    z, labels, p, a, w = hard_case(batch)
    n = len(labels)
    g = a * (-1 / p + w) / n
    alone = torch.einsum("ik,ikm->im", g, torch.diag_embed(p) - p[:, :, None] * p[:, None, :])  # softmax Jacobian
    share = (a * p / p.sum(0)).sum(1) * a.sum(0)[labels]
    ce = gradient(F.cross_entropy(z, labels), z)
    assert (alone - (1 - share)[:, None] * ce).abs().max() < 1e-12
    if n >= 7:
        full = gradient(generative_cross_entropy(z, labels), z)
        assert (full - alone).norm() > 0.1 * full.norm()


@pytest.mark.claim("frozen-tax")
def test_cross_entropy_plus_a_frozen_tax_has_the_gradient(batch):
    z, labels, _, _, w = hard_case(batch)
    p = z.softmax(1)
    taxed = F.cross_entropy(z, labels) + (w * p).sum() / len(labels)
    assert (gradient(taxed, z) - gradient(generative_cross_entropy(z, labels), z)).abs().max() < 1e-12


def class_term(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return generative_cross_entropy(z, labels) - F.cross_entropy(z, labels)


@pytest.mark.refutes("G6")
def test_the_class_term_has_no_gradient_where_the_totals_are_right_at_any_confidence():
    rng = np.random.default_rng(0)
    for _ in range(20):
        k = int(rng.integers(2, 6))
        each = int(rng.integers(1, 5))
        n = k * each
        labels = torch.arange(n) % k
        row = torch.as_tensor(rng.normal(size=k) * rng.choice([0.0, 1.0, 5.0]))
        # Every cyclic shift of one row occurs equally often: C_k = n_k, whatever the row and however it is assigned.
        z = torch.stack([row.roll(int(shift)) for shift in rng.permutation(n) % k]).requires_grad_()
        torch.testing.assert_close(z.softmax(1).sum(0), torch.full((k,), float(each), dtype=torch.float64))
        value = class_term(z, labels)
        assert gradient(value, z).abs().max() < 1e-12
        assert value.item() == pytest.approx(np.log(each), abs=1e-12)
        for _ in range(5):  # the maximum: any other predictions give less
            other = z.detach() + torch.as_tensor(rng.normal(size=z.shape))
            assert class_term(other, labels) <= value + 1e-12


@pytest.mark.refutes("G6")
def test_the_class_term_pushes_the_totals_away_from_the_counts(batch):
    z, labels, p, a, w = hard_case(batch)
    counts = a.sum(0)
    value = class_term(z, labels)
    push = gradient(value, z)
    closed = p * (w - (p * w).sum(1, keepdim=True)) / len(labels)
    assert (push - closed).abs().max() < 1e-12
    assert push.abs().max() > 1e-8  # here C differs from n
    assert value < torch.special.xlogy(counts, counts).sum() / len(labels)
    # Descent on the term alone lowers the bias along w: under-predicted classes lose.
    assert (push.sum(0) * w).sum() >= -1e-14


@pytest.mark.claim("push-back")
def test_when_a_true_logit_is_lowered():
    rng = np.random.default_rng(3)
    lowered = 0
    for _ in range(300):
        n, k = int(rng.integers(2, 9)), int(rng.integers(2, 5))
        z = torch.as_tensor(3 * rng.normal(size=(n, k))).requires_grad_()
        labels = torch.as_tensor(rng.integers(k, size=n))
        push = gradient(generative_cross_entropy(z, labels), z)[range(n), labels]
        p = z.detach().softmax(1)
        w = torch.bincount(labels, minlength=k) / p.sum(0)
        for i, y in enumerate(labels.tolist()):
            others = [c for c in range(k) if c != y]
            mean_rate = sum(p[i, c] * w[c] for c in others) / sum(p[i, c] for c in others)
            factor = 1 - p[i, y] * (w[y] - mean_rate)
            ce = -(1 - p[i, y]) / n
            assert push[i].item() == pytest.approx((factor * ce).item(), abs=1e-12)
            if push[i] > 1e-12:
                lowered += 1
                assert w[y] > 1
    assert lowered > 10


@pytest.mark.claim("bias-pull")
def test_the_pull_on_the_bias(batch):
    z, labels, p, _, w = hard_case(batch)
    n, k = z.shape
    ce = -gradient(F.cross_entropy(z, labels), z).sum(0)
    gence = -gradient(generative_cross_entropy(z, labels), z).sum(0)
    assert (n * ce - p.sum(0) * (w - 1)).abs().max() < 1e-11
    assert (n * gence - p.T @ p @ (w - 1)).abs().max() < 1e-11
    covariance = sum(torch.diag(row) - torch.outer(row, row) for row in p)
    assert (n * (ce - gence) - covariance @ (w - 1)).abs().max() < 1e-11
    # Certain predictions feel the same pull.
    sharp = 1e4 * F.one_hot(labels.roll(1), k).double()
    sharp.requires_grad_()
    pulls = [-gradient(f(sharp, labels), sharp).sum(0) for f in (F.cross_entropy, generative_cross_entropy)]
    assert (pulls[0] - pulls[1]).abs().max() < 1e-12


@pytest.mark.claim("bias-pull")
@pytest.mark.parametrize("seed", range(5))
def test_both_pulls_have_the_same_zero(seed):
    """Fit only a bias under each loss on the full batch: both end where predicted totals equal observed ones."""
    rng = np.random.default_rng(seed)
    z = torch.as_tensor(rng.normal(size=(60, 3)))
    labels = torch.as_tensor(rng.choice(3, 60, p=[0.6, 0.3, 0.1]))
    labels[:3] = torch.arange(3)
    found = []
    for loss in (F.cross_entropy, generative_cross_entropy):
        b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        for _ in range(100):  # damped Newton steps on the pull
            pull = gradient(loss(z + b, labels), b)
            hessian = torch.autograd.functional.hessian(lambda x, f=loss: f(z + x, labels), b.detach())
            step = torch.linalg.lstsq(hessian + 1e-9 * torch.eye(3), pull).solution
            b = (b - step.clamp(-0.5, 0.5)).detach().requires_grad_()
        totals = (z + b.detach()).softmax(1).sum(0)
        assert (totals - torch.bincount(labels, minlength=3)).abs().max() < 1e-6
        found.append(b.detach() - b.detach().mean())
    assert (found[0] - found[1]).abs().max() < 1e-6


@pytest.mark.claim("blind-predictions")
def test_blind_predictions(batch):
    z, labels, *_ = batch
    n, k = z.shape
    blind = z.detach()[:1].expand(n, k).clone().requires_grad_()
    value = generative_cross_entropy(blind, labels)
    push = gradient(value, blind)
    assert value.item() == pytest.approx(np.log(n), abs=1e-12)
    exact = (torch.bincount(labels, minlength=k).double() / n - F.one_hot(labels, k)) / n
    assert (push - exact).abs().max() < 1e-12
    assert push.sum(0).abs().max() < 1e-12


@pytest.mark.claim("three-pulls")
def test_three_pulls_on_blind_predictions(batch):
    z, labels, *_ = batch
    n, k = z.shape
    counts = torch.bincount(labels, minlength=k).double() + 1
    labels = torch.repeat_interleave(torch.arange(k), counts.long())
    n, pi = len(labels), counts / counts.sum()
    for start in (z.detach()[0], pi.log(), torch.zeros(k, dtype=torch.float64)):
        blind = start.expand(n, k).clone().requires_grad_()
        ce = -gradient(F.cross_entropy(blind, labels), blind).sum(0)
        gence = -gradient(generative_cross_entropy(blind, labels), blind).sum(0)
        adjusted = -gradient(F.cross_entropy(blind + pi.log(), labels), blind).sum(0)
        assert (ce - (pi - start.softmax(0))).abs().max() < 1e-12
        assert gence.abs().max() < 1e-12
        assert (adjusted - (pi - (start + pi.log()).softmax(0))).abs().max() < 1e-12
    assert adjusted.abs().max() < 1e-12  # at uniform predictions
