"""The statements of the chapter on cross-entropy, checked without the chapter's own code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import logsumexp, rel_entr
from scipy.stats import entropy
from statsmodels.discrete.discrete_model import MNLogit

from gence.losses import make_loss


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(q: np.ndarray, z: np.ndarray) -> np.ndarray:
    """-sum_k q_k log softmax(z)_k, row by row."""
    return -(q * (z - logsumexp(z, axis=-1, keepdims=True))).sum(-1)


@pytest.mark.claim("mle-is-ce")
@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_the_most_likely_distribution_is_the_label_frequencies(n_classes):
    rng = np.random.default_rng(n_classes)
    for _ in range(5):
        cells = [rng.integers(1, 30, size=n_classes).astype(float) for _ in range(3)]
        frequencies = np.concatenate([c / c.sum() for c in cells])

        def minus_log_likelihood(z, cells=cells):
            p = softmax(z.reshape(3, n_classes))
            return -sum((c * np.log(row)).sum() for c, row in zip(cells, p, strict=True))

        best = minimize(minus_log_likelihood, rng.standard_normal(3 * n_classes), method="BFGS", options={"gtol": 1e-7})
        fitted = softmax(best.x.reshape(3, n_classes)).ravel()
        assert np.abs(fitted - frequencies).max() < 1e-5
        # No other distribution has a higher likelihood.
        other = rng.standard_normal((200, 3 * n_classes))
        assert min(map(minus_log_likelihood, other)) > minus_log_likelihood(np.log(frequencies))


@pytest.mark.claim("mle-is-ce")
def test_cross_entropy_is_minus_the_mean_log_likelihood():
    rng = np.random.default_rng(0)
    for n, k in ((1, 2), (17, 5), (40, 3)):
        z, y = rng.standard_normal((n, k)), rng.integers(k, size=n)
        likelihood = np.prod(softmax(z)[np.arange(n), y])
        ce = F.cross_entropy(torch.as_tensor(z), torch.as_tensor(y)).item()
        assert likelihood == pytest.approx(np.exp(-n * ce), rel=1e-10)


@pytest.mark.claim("ce-is-entropy-plus-kl")
@pytest.mark.parametrize("n_classes", [2, 4, 30])
def test_cross_entropy_is_entropy_plus_divergence_and_least_at_the_truth(n_classes):
    rng = np.random.default_rng(n_classes)
    for _ in range(50):
        q, p = rng.dirichlet(np.full(n_classes, 0.7), size=2)
        q[rng.random(n_classes) < 0.2] = 0
        q = q / q.sum() if q.sum() > 0 else np.eye(n_classes)[0]
        ce, kl = cross_entropy(q, np.log(p)), rel_entr(q, p).sum()
        assert abs(ce - entropy(q) - kl) < 1e-12
        assert kl > 0
        nearby = 0.999 * q + 0.001 * p
        assert cross_entropy(q, np.log(nearby)) > entropy(q)


@pytest.mark.claim("log-sum-exp")
def test_log_sum_exp_bounds_shift_and_overflow():
    rng = np.random.default_rng(0)
    for k, scale in ((2, 1.0), (9, 1e3), (1000, 1e5)):
        z = scale * rng.standard_normal((40, k))
        lse = torch.logsumexp(torch.as_tensor(z), 1).numpy()
        top = z.max(1)
        slack = 1e-14 * np.abs(z).max()
        assert (top - slack <= lse).all()
        assert (lse <= top + np.log(k) + slack).all()
        assert np.allclose(torch.logsumexp(torch.as_tensor(z + 77.0), 1).numpy(), lse + 77.0, rtol=1e-13, atol=1e-13)
        if scale == 1.0:
            assert np.allclose(lse, np.log(np.exp(z).sum(1)), rtol=1e-14)
    # Both bounds are reached: one dominating logit, and all logits equal.
    assert logsumexp([1e4, 0.0]) == 1e4
    assert logsumexp(np.full(8, 3.0)) == pytest.approx(3.0 + np.log(8), abs=1e-14)
    naive = torch.log(torch.tensor([800.0, 799.0], dtype=torch.float64).exp().sum())
    assert naive.item() == np.inf


@pytest.mark.claim("ce-gradient")
@pytest.mark.parametrize("n_classes", [2, 5, 20])
def test_gradient_is_prediction_minus_target_and_the_hessian_a_covariance(n_classes):
    rng = np.random.default_rng(n_classes)
    step = 1e-5
    for one_hot in (True, False):
        z = 2 * rng.standard_normal(n_classes)
        q = np.eye(n_classes)[rng.integers(n_classes)] if one_hot else rng.dirichlet(np.ones(n_classes))
        moves = step * np.eye(n_classes)
        numeric = (cross_entropy(q, z + moves) - cross_entropy(q, z - moves)) / (2 * step)
        assert np.abs(numeric - (softmax(z) - q)).max() < 1e-8
        leaf = torch.tensor(z, requires_grad=True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(leaf, torch.as_tensor(q)), leaf)
        assert np.abs(gradient.numpy() - (softmax(z) - q)).max() < 1e-14
        columns = (softmax(z + moves) - softmax(z - moves)) / (2 * step)
        p = softmax(z)
        assert np.abs(columns - (np.diag(p) - np.outer(p, p))).max() < 1e-8
        assert np.linalg.eigvalsh(np.diag(p) - np.outer(p, p)).min() > -1e-15


@pytest.mark.claim("scale-pull")
def test_scaling_the_logits_falls_to_zero_only_when_all_is_correct():
    rng = np.random.default_rng(0)
    rows = np.arange(100)
    for k in (2, 5, 12):
        z = rng.standard_normal((100, k))
        right = z.argmax(1)
        wrong = right.copy()
        wrong[0] = (right[0] + 1) % k

        def ce(s, y, z=z):
            return cross_entropy(np.eye(z.shape[1])[y], s * z).mean()

        for y in (right, wrong):
            s, step = 1.3, 1e-5
            slope = ((softmax(s * z) * z).sum(1) - z[rows, y]).mean()
            assert abs((ce(s + step, y) - ce(s - step, y)) / (2 * step) - slope) < 1e-8
        scales = np.geomspace(0.1, 50, 40)
        values = np.array([ce(s, right) for s in scales])
        assert (np.diff(values) < 0).all()
        gap = np.sort(z, axis=1)
        far = 60 / (gap[:, -1] - gap[:, -2]).min()
        assert ce(far, right) < 1e-12
        margin = (z.max(1) - z[rows, wrong]).mean()
        assert margin > 0
        assert ce(1e8, wrong) / 1e8 == pytest.approx(margin, rel=1e-6)
        assert ce(1e8, wrong) > ce(1.0, wrong)


def test_the_gradient_of_bounded_losses_fades_where_the_prediction_is_confidently_wrong_and_that_of_ce_does_not():
    from gence.losses import make_loss

    z = torch.tensor([[0.0, 12.0]], dtype=torch.float64, requires_grad=True)  # the label is class 0
    size = {}
    for name in ("ce", "focal", "inverse_focal", "brier", "lq", "l1"):
        loss = make_loss("lq", q=1.0) if name == "l1" else make_loss(name)
        (gradient,) = torch.autograd.grad(loss(z, torch.tensor([0])), z)
        size[name] = gradient.abs().max().item()
    assert size["ce"] == pytest.approx(1, abs=1e-4)
    assert min(size["focal"], size["inverse_focal"]) > 0.99  # not bounded: they do not fade
    assert max(size["brier"], size["lq"], size["l1"]) < 1e-3


@pytest.mark.claim("sparse-targets")
@pytest.mark.parametrize("n_classes", [2, 7, 300])
def test_an_index_and_a_one_hot_row_have_the_same_loss_and_gradient_and_the_row_keeps_more(n_classes):
    rng = np.random.default_rng(n_classes)
    z = torch.tensor(rng.normal(0, 3, (16, n_classes)), requires_grad=True)
    y = rng.integers(n_classes, size=16)
    row = torch.tensor(np.eye(n_classes)[y])
    by_hand = np.mean([logsumexp(a) - a[k] for a, k in zip(z.detach().numpy(), y, strict=True)])
    kept = []
    for target in (torch.tensor(y), row):
        held = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, held=held: held.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
        ):
            value = F.cross_entropy(z, target)
        kept.append(sum(t.untyped_storage().nbytes() for t in held.values()))
        (slope,) = torch.autograd.grad(value, z)
        assert abs(value.item() - by_hand) < 1e-12
        assert np.abs(slope.numpy() * 16 - (softmax(z.detach().numpy()) - np.eye(n_classes)[y])).max() < 1e-12
    logits = z.untyped_storage().nbytes()
    assert kept[1] - kept[0] > logits - 1000  # the rows are kept beside the softmax
    assert kept[0] < logits + 1000 and kept[1] < 2 * logits + 1000  # no more than that


@pytest.mark.claim("squared-error-saturates")
@pytest.mark.parametrize("a", [0.5, 3.0, 10.0])
def test_the_time_out_of_a_mistake_is_linear_for_ce_and_exponential_for_squared_error(a):
    """The push by central differences of the losses written out, and the time by quadrature."""

    def ce(d):
        return np.logaddexp(0, -d)

    def brier(d):
        p = 1 / (1 + np.exp(-d))
        return (1 - p) ** 2 + (1 - p) ** 2  # two classes, one-hot target

    times = [quad(lambda d, f=f: 2e-4 / (f(d - 1e-4) - f(d + 1e-4)), -a, 0)[0] for f in (ce, brier)]
    assert times[0] == pytest.approx(a + 1 - np.exp(-a), rel=1e-5)
    expanded = np.exp(a) - 1 + 3 * a + 3 * (1 - np.exp(-a)) + (1 - np.exp(-2 * a)) / 2
    assert times[1] == pytest.approx(expanded / 4, rel=1e-5)
    z = torch.tensor([[-a, 0.0]], dtype=torch.float64)
    for name, f in (("ce", ce), ("brier", brier)):
        assert make_loss(name)(z, torch.tensor([0])).item() == pytest.approx(f(-a), rel=1e-12)


@pytest.mark.claim("fisher-is-curvature")
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_curvature_of_ce_is_the_covariance_of_the_score_and_gives_standard_errors(n_classes):
    rng = np.random.default_rng([n_classes, 3])
    z, q, h = rng.normal(0, 2, n_classes), rng.dirichlet(np.ones(n_classes)), 1e-3
    p = softmax(z)
    scores = [np.eye(n_classes)[y] - p for y in range(n_classes)]
    information = sum(p[y] * np.outer(s, s) for y, s in enumerate(scores))
    steps = h * np.eye(n_classes)
    for a, b in itertools.product(range(n_classes), repeat=2):
        corners = [z + i * steps[a] + j * steps[b] for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
        high, mixed, mixed_too, low = (cross_entropy(q, corner) for corner in corners)
        assert abs((high - mixed - mixed_too + low) / (4 * h * h) - information[a, b]) < 1e-5
    # statsmodels, with a constant alone, has the last class as its base once the labels run the other way.
    counts = rng.integers(20, 200, n_classes)
    labels = np.repeat(np.arange(n_classes)[::-1], counts)
    fitted = MNLogit(labels, np.ones(len(labels))).fit(disp=0, method="newton")
    o = counts / counts.sum()
    ours = np.linalg.inv((np.diag(o) - np.outer(o, o))[:-1, :-1]) / counts.sum()
    assert np.abs(fitted.cov_params()[::-1, ::-1] / ours - 1).max() < 1e-6
