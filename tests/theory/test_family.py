"""The claims of the chapter "The family of cross-entropies", each tested without the chapter's own code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, minimize

from gence.lab.data import load_splits
from gence.losses import REGISTRY, AdaFocalLoss, EntropyLoss, GenCELoss, gence_focal_loss, make_loss
from gence.propriety import completeness, conditional_risk, find_minimisers, is_strictly_proper

SHAPES = [2, 3, 5]
SEEDS = range(5)
# Their verdicts: tests/losses/test_family.py; of present-class CE below; of the last tests/theory/test_tax.py (without
# a past it is GenCE).
WHOLE_BATCH = ("gence_focal", "gence_adafocal", "mmce", "mmce_w", "present_class", "gence_tracked")

# The losses of p_y alone as plain formulas, with their derivatives worked out by hand.
POINTWISE = {
    "ce": (lambda t: -math.log(t), lambda t: -1 / t, {}),
    "focal": (
        lambda t: -((1 - t) ** 3) * math.log(t),
        lambda t: 3 * (1 - t) ** 2 * math.log(t) - (1 - t) ** 3 / t,
        {"gamma": 3.0},
    ),
    "inverse_focal": (
        lambda t: -(1 + t) * math.log(t),
        lambda t: -math.log(t) - (1 + t) / t,
        {"gamma": 1.0},
    ),
    "lq": (lambda t: (1 - t**0.4) / 0.4, lambda t: -(t ** (0.4 - 1)), {"q": 0.4}),
    "sce": (
        lambda t: -0.5 * math.log(t) + 3 * 2 * (1 - t),
        lambda t: -0.5 / t - 6,
        {"alpha": 0.5, "beta": 2.0, "log_zero": -3.0},
    ),
    "mix_ent": (
        lambda t: -2 * math.log(t) - 0.1 * math.log(1e-6) * (1 - t),
        lambda t: -2 / t + 0.1 * math.log(1e-6),
        {"weights": (2.0, 0.1), "learnable": False},
    ),
}


def inner_belief(seed: int, n_classes: int) -> np.ndarray:
    q = np.random.default_rng([seed, 50]).dirichlet(np.full(n_classes, 2.0))
    return 0.9 * q + 0.1 / n_classes


def random_batch(seed: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng([seed, 51])
    return torch.tensor(rng.normal(0, 2, (n, k))), torch.tensor(rng.integers(k, size=n))


@pytest.mark.claim("registry-verdicts")
@pytest.mark.parametrize("n_classes", [3, pytest.param(4, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in WHOLE_BATCH])
def test_the_registry_says_what_a_search_finds(name, n_classes):
    options = {"learnable": False} if name.endswith("_ent") else {}
    if "class_counts" in REGISTRY[name].options:
        options["class_counts"] = [40.0, 20.0, 10.0, 5.0][:n_classes]
    loss = make_loss(name, **options)
    verdict = is_strictly_proper(loss, n_classes, n_beliefs=20)
    if verdict.proper:
        assert verdict.converged
    else:  # a counterexample is final, however it was found
        honest = conditional_risk(loss, verdict.belief, verdict.belief)
        assert conditional_risk(loss, verdict.minimiser, verdict.belief) < honest - 1e-6
    promised = REGISTRY[name].proper
    assert (verdict.proper, verdict.strictly) == {
        "strictly": (True, True),
        "if complete": (True, False),
        "no": (False, False),
        "after adjustment": (False, False),
    }[promised]
    if promised == "if complete":
        assert is_strictly_proper(make_loss(name), n_classes, complete_only=True, n_beliefs=20).strictly


@pytest.mark.claim("registry-verdicts")
@pytest.mark.parametrize("name", ["mmce", "mmce_w"])
@pytest.mark.parametrize("belief", [0.6, 0.8])
def test_mmce_on_one_sample_rewards_a_bolder_prediction(name, belief):
    def risk(t):
        z = torch.tensor([[t, 1 - t]], dtype=torch.float64).log()
        loss = make_loss(name, coefficient=0.2)
        return sum(b * loss(z, torch.tensor([y])).item() for y, b in ((0, belief), (1, 1 - belief)))

    assert risk(belief + 0.01) < risk(belief) - 1e-6


@pytest.mark.claim("present-class-proper")
@pytest.mark.parametrize("q", [[[0.7, 0.3], [0.4, 0.6]], [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]])
def test_present_class_ce_is_proper_only_where_no_class_can_be_absent(q):
    """The risk over drawn labels, written out: all pairs of labels, two inputs."""
    q = np.array(q)
    k = q.shape[1]

    def log_p(z, here):
        return z - np.log(np.exp(z[:, here]).sum(1, keepdims=True))

    def risk(flat):
        z, total = flat.reshape(q.shape), 0.0
        for a, b in itertools.product(range(k), repeat=2):
            values = log_p(z, sorted({a, b}))
            total -= q[0, a] * q[1, b] * (values[0, a] + values[1, b]) / 2
        return total

    ours = make_loss("present_class")
    z = np.random.default_rng(k).normal(size=q.shape)
    pairs = itertools.product(range(k), repeat=2)
    by_library = sum(q[0, a] * q[1, b] * ours(torch.tensor(z), torch.tensor([a, b])).item() for a, b in pairs)
    assert abs(risk(z.ravel()) - by_library) < 1e-12
    best = minimize(risk, np.zeros(q.size), method="BFGS", options={"gtol": 1e-8})
    assert best.fun < risk(np.log(q).ravel()) - 1e-2  # another prediction is cheaper than the belief
    if k == 2:
        differ = 0.7 * 0.6 / (0.7 * 0.6 + 0.3 * 0.4)
        gap = best.x[[0, 2]] - best.x[[1, 3]]
        assert np.abs(1 / (1 + np.exp(-gap)) - [differ, 1 - differ]).max() < 1e-5
    assert REGISTRY["present_class"].proper == "if all present"


@pytest.mark.claim("one-weight-curve")
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("n_classes", SHAPES)
def test_one_curve_is_the_weight_of_the_gradient_and_the_distortion(name, n_classes):
    value, slope, options = POINTWISE[name]
    loss = make_loss(name, reduction="none", **options)
    for seed in SEEDS:
        z, y = random_batch(seed, 7, n_classes)
        z.requires_grad_()
        losses = loss(z, y)
        (gradient,) = torch.autograd.grad(losses.sum(), z)
        p = z.detach().softmax(1)
        for i in range(7):
            t = p[i, y[i]].item()
            assert math.isclose(losses[i].item(), value(t), abs_tol=1e-10)
            pull = p[i] - F.one_hot(y[i], n_classes)
            assert (gradient[i] - t * abs(slope(t)) * pull).abs().max() < 1e-10
        q = inner_belief(seed, n_classes)
        best = find_minimisers(loss, q, n_starts=8).best
        g = np.array([t * abs(slope(t)) for t in best])
        behind = best / g
        assert np.abs(behind / behind.sum() - q).max() < 1e-6
        for j, k in itertools.permutations(range(n_classes), 2):
            if best[j] > best[k] + 1e-6 and abs(g[j] - g[k]) > 1e-6:
                timid = best[j] / best[k] < q[j] / q[k]
                assert timid == (g[j] < g[k])


@pytest.mark.claim("robust-core")
@pytest.mark.parametrize("n_classes", SHAPES)
def test_reverse_cross_entropy_and_lq_lead_to_one_minus_the_probability(n_classes):
    for seed in SEEDS:
        z, y = random_batch(seed, 20, n_classes)
        p = z.softmax(1).numpy()
        for log_zero in (-4.0, math.log(1e-6)):
            log_q = np.where(np.eye(n_classes)[y.numpy()] == 1, 0.0, log_zero)
            reverse = -(p * log_q).sum(1)  # the definition, class by class
            one_minus = 1 - p[np.arange(20), y.numpy()]
            assert np.abs(reverse + log_zero * one_minus).max() < 1e-12
            sce = make_loss("sce", alpha=0.0, log_zero=log_zero, reduction="none")(z, y).numpy()
            assert np.abs(sce - reverse).max() < 1e-12
            distance = np.abs(p - np.eye(n_classes)[y.numpy()]).sum(1)
            assert np.abs(distance / 2 - one_minus).max() < 1e-12
        mix = EntropyLoss("mix", weights=(0.7, 0.2), learnable=False, reduction="none")(z, y).numpy()
        expected = -0.7 * np.log(1 - one_minus) - 0.2 * math.log(1e-6) * one_minus
        assert np.abs(mix - expected).max() < 1e-11
        u = -np.log(1 - one_minus)
        for a in (1.0, 0.7, 0.1, 1e-3):
            loss = make_loss("lq", q=a, reduction="none")(z, y).numpy()
            assert (loss <= 1 / a).all() and (u - loss >= -1e-10).all()
            assert (u - loss <= a / 2 * u**2 + 1e-10).all()
        assert np.abs(make_loss("lq", q=1.0, reduction="none")(z, y).numpy() - one_minus).max() < 1e-12


@pytest.mark.claim("robust-core")
def test_a_truncated_loss_has_no_gradient_at_an_even_start():
    z = torch.zeros(5, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(make_loss("lq", truncation=0.5)(z, torch.arange(5) % 3), z)
    assert not slope.any()


@pytest.mark.claim("noise-is-smoothing")
@pytest.mark.parametrize("eta", [0.1, 0.45])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_symmetric_noise_is_label_smoothing_and_spares_the_order_of_one_minus_p(eta, n_classes):
    mix = np.full((n_classes, n_classes), eta / (n_classes - 1)) + (1 - eta - eta / (n_classes - 1)) * np.eye(n_classes)
    for seed in SEEDS:
        q = inner_belief(seed, n_classes)
        noisy = mix @ q
        for_all = eta * n_classes / (n_classes - 1)
        for options in (
            {"label_smoothing": eta, "smoothing_over": "others"},
            {"label_smoothing": for_all} if for_all <= 1 else {},
        ):
            for other in range(3):
                p = inner_belief(seed + 100 + other, n_classes)
                smooth = conditional_risk(make_loss("ce", **options), p, q)
                assert math.isclose(smooth, -(noisy * np.log(p)).sum(), abs_tol=1e-12)
        found = find_minimisers(make_loss("ce"), noisy, n_starts=4)
        assert np.abs(found.best - ((1 - for_all) * q + for_all / n_classes)).max() < 1e-6
        predictions = [inner_belief(seed + 200 + i, n_classes) for i in range(10)]
        for a, b in itertools.combinations(predictions, 2):
            clean, dirty = ((1 - a) @ t - (1 - b) @ t for t in (q, noisy))
            assert math.isclose(dirty, (1 - for_all) * clean, abs_tol=1e-12)


@pytest.mark.claim("learned-weights-shrink")
@pytest.mark.parametrize("kind", ["min", "mix"])
@pytest.mark.parametrize("seed", SEEDS)
def test_weights_fall_and_bases_rise_whatever_the_predictions(kind, seed):
    z, y = random_batch(seed, 15, 4)
    rng = np.random.default_rng([seed, 52])
    weights = tuple(rng.uniform(0.05, 3, 2))
    bases = tuple(rng.uniform(1.5, 12, 2))
    loss = EntropyLoss(kind, weights=weights, log_bases=bases)
    (slope,) = torch.autograd.grad(loss(z, y), loss.raw)
    assert (slope[:2] > 0).all() and (slope[2:] < 0).all()
    tiny = EntropyLoss(kind, weights=(1e-9, 1e-9), log_bases=bases)
    assert tiny(z, y) < 1e-6


@pytest.mark.claim("priors-tilt")
@pytest.mark.parametrize("n_classes", SHAPES)
def test_weights_and_logit_adjustment_tilt_the_belief_by_a_known_factor(n_classes):
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 53])
        q, counts = inner_belief(seed, n_classes), rng.integers(2, 300, n_classes).astype(float)
        pi, w, tau = counts / counts.sum(), rng.uniform(0.2, 4, n_classes), rng.uniform(0.2, 2)
        cases = {
            "weights": (make_loss("ce", weight=torch.tensor(w)), w),
            "adjusted": (make_loss("logit_adjustment", class_counts=counts, tau=tau), pi**-tau),
            "balanced": (make_loss("class_balanced", class_counts=counts, beta=0.9), 0.1 / (1 - 0.9**counts)),
        }
        for loss, factor in cases.values():
            p = find_minimisers(loss, q, n_starts=3).best
            tilted = q * factor
            assert np.abs(p - tilted / tilted.sum()).max() < 1e-6
            back = p / factor
            assert np.abs(back / back.sum() - q).max() < 1e-6
        p = find_minimisers(cases["adjusted"][0], q, n_starts=3).best
        served = torch.tensor(np.log(p) + tau * np.log(pi)).softmax(0).numpy()
        assert np.abs(served - q).max() < 1e-6


@pytest.mark.claim("hybrid-not-proper")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_on_cyclic_shifts_the_hybrid_is_the_focal_loss(gamma, n_classes):
    """The risk of a table is summed over all label vectors, with the library's own function."""
    q = np.arange(n_classes, 0, -1) ** 1.5
    q = q / q.sum()
    table = np.stack([np.roll(q, i) for i in range(n_classes)])
    assert completeness(table).complete

    def risk(p):
        z = torch.tensor(np.stack([np.roll(p, i) for i in range(n_classes)])).log()
        total = 0.0
        for k in range(n_classes):  # the column sums do not depend on the labels: one label for all rows at a time
            terms = gence_focal_loss(z, torch.full((n_classes,), k), gamma=gamma, reduction="none")
            total += (torch.tensor(table[:, k]) * terms).sum().item()
        return total / n_classes

    focal = find_minimisers(make_loss("focal", gamma=gamma), q, n_starts=8).best
    for p in (q, focal, inner_belief(0, n_classes)):
        assert math.isclose(risk(p), conditional_risk(make_loss("focal", gamma=gamma), p, q), abs_tol=1e-12)
    assert np.abs(focal - q).max() > 0.01 and risk(focal) < risk(q) - 1e-4
    adaptive = AdaFocalLoss(generative=True, reduction="none")  # gamma 1 in all bins
    z, y = random_batch(3, 9, n_classes)
    assert torch.allclose(adaptive(z, y), gence_focal_loss(z, y, gamma=1.0, reduction="none"))


@pytest.mark.claim("relatives")
@pytest.mark.parametrize("seed", SEEDS)
def test_relatives_are_cross_entropies_over_other_sets(seed):
    z, y = random_batch(seed, 9, 2)
    by_hand = -np.log(1 / (1 + np.exp(-np.where(y == 1, 1, -1) * (z[:, 1] - z[:, 0]).numpy()))).mean()
    assert math.isclose(F.binary_cross_entropy_with_logits(z[:, 1] - z[:, 0], y.double()).item(), by_hand)
    assert math.isclose(F.cross_entropy(z, y).item(), by_hand, abs_tol=1e-12)
    for k in (2, 4, 7):
        z, y = random_batch(seed, 9, k)
        p = z.softmax(1).numpy()
        squares = np.mean([(p[i, j] - (y[i].item() == j)) ** 2 for i in range(9) for j in range(k)])
        assert math.isclose(make_loss("brier")(z, y).item() / k, squares, abs_tol=1e-12)
        assert math.isclose(F.mse_loss(z.softmax(1), F.one_hot(y, k).double()).item(), squares, abs_tol=1e-12)
        similarity = torch.tensor(np.log(p[:, y.numpy()].T))
        info_nce = F.cross_entropy(similarity, torch.arange(9))
        assert math.isclose(info_nce.item(), GenCELoss()(z, y).item(), abs_tol=1e-12)
    torch.manual_seed(seed)
    for cutoffs in ([3], [3, 8], [2, 5, 11]):
        tree = torch.nn.AdaptiveLogSoftmaxWithLoss(6, 17, cutoffs=cutoffs, div_value=1.5).double()
        x, words = torch.randn(30, 6, dtype=torch.float64), torch.randint(17, (30,))
        p = tree.log_prob(x).exp()
        assert (p.sum(1) - 1).abs().max() < 1e-12
        assert math.isclose(tree(x, words).loss.item(), -p[range(30), words].log().mean().item(), abs_tol=1e-12)


@pytest.mark.claim("relatives")
def test_the_hinge_keeps_a_decision_at_most():
    """The conditional risk of the hinge as a linear programme: slack s_kj >= 1 - z_k + z_j."""

    def best_scores(q):
        k = len(q)
        pairs = list(itertools.permutations(range(k), 2))
        cost = np.concatenate([np.zeros(k), [q[a] / k for a, _ in pairs]])
        rows = np.zeros((len(pairs), k + len(pairs)))
        for i, (a, b) in enumerate(pairs):
            rows[i, [a, b, k + i]] = -1, 1, -1
        bounds = [(None, None)] * (k - 1) + [(0, 0)] + [(0, None)] * len(pairs)
        done = linprog(cost, A_ub=rows, b_ub=-np.ones(len(pairs)), bounds=bounds)
        return done.x[:k], done.fun

    for belief in (0.55, 0.8, 0.97):
        z, risk = best_scores((belief, 1 - belief))
        assert np.allclose(z, [1, 0])
        label = torch.tensor([0, 1])
        terms = F.multi_margin_loss(torch.tensor(np.array([z, z])), label, reduction="none")
        assert math.isclose(belief * terms[0] + (1 - belief) * terms[1], risk, abs_tol=1e-9)
    assert np.allclose(best_scores((0.45, 0.40, 0.15))[0], [1, 1, 0])  # a tie although 0.45 > 0.40


@pytest.mark.claim("sampled-softmax")
@pytest.mark.parametrize("seed", SEEDS)
def test_sampled_softmax_is_too_low_by_half_the_relative_variance_over_s(seed):
    rng = np.random.default_rng([seed, 54])
    z, q = rng.normal(0, 0.5, 4), rng.dirichlet(np.full(3, 5.0))
    total = np.exp(z).sum()
    ratio = np.exp(z[1:]) / q
    assert math.isclose((q * ratio).sum(), total - np.exp(z[0]))
    variance = (q * ratio**2).sum() - (q * ratio).sum() ** 2
    relative = []
    for size in (2, 4, 8):
        low, estimate = 0.0, 0.0
        for chosen in itertools.product(range(3), repeat=size):
            chance = math.prod(q[c] for c in chosen)
            logits = [z[0], *(z[1 + c] - math.log(size * q[c]) for c in chosen)]
            loss = F.cross_entropy(torch.tensor([logits]), torch.tensor([0])).item()
            low += chance * (math.log(total) - z[0] - loss)
            estimate += chance * math.exp(loss + z[0])
        assert math.isclose(estimate, total, rel_tol=1e-10), "the sum itself has no bias"
        assert low > 0
        relative.append(abs(low / (variance / (2 * size * total**2)) - 1))
    assert relative[2] < 0.75 * relative[1] and relative[2] < 0.1, relative


@pytest.mark.claim("nce-normalises")
@pytest.mark.parametrize("nu", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("n_classes", SHAPES)
def test_nce_finds_the_log_probabilities_with_their_constant(nu, n_classes):
    for seed in SEEDS:
        q, noise = inner_belief(seed, n_classes), inner_belief(seed + 100, n_classes)

        def risk(z, q=q, noise=noise):
            logit = z - np.log(nu * noise)
            return (q * np.logaddexp(0, -logit) + nu * noise * np.logaddexp(0, logit)).sum()

        z = minimize(risk, np.zeros(n_classes), options={"gtol": 1e-8}).x
        assert np.abs(z - np.log(q)).max() < 1e-4
        assert abs(np.exp(z).sum() - 1) < 1e-4


@pytest.mark.claim("accumulation-any-loss")
@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("size", [1, 5, 24])
def test_two_passes_accumulate_the_exact_gradient_of_any_loss(name, size):
    options = {"class_counts": [9.0, 5.0, 3.0, 1.0]} if "class_counts" in REGISTRY[name].options else {}
    criterion = make_loss(name, **options)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    x, y = torch.randn(24, 3, dtype=torch.float64), torch.randint(4, (24,))
    weights = list(model.parameters())
    whole = torch.autograd.grad(criterion(model(x), y), weights)
    parts = x.split(size)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in parts])
    (push,) = torch.autograd.grad(criterion(logits.requires_grad_(), y), logits)
    for part, rows in zip(parts, push.split(size), strict=True):
        model(part).backward(rows)
    for w, expected in zip(weights, whole, strict=True):
        assert (w.grad - expected).abs().max() < 1e-12


@pytest.mark.claim("accumulation-any-loss")
@pytest.mark.parametrize("options", [{"weight": torch.tensor([1.0, 2.0, 0.5, 1.0])}, {"label_smoothing": 0.1}])
def test_naive_accumulation_is_another_loss_and_two_passes_keep_the_options(options):
    if "weight" in options:
        options = {"weight": options["weight"].double()}
    criterion = GenCELoss(**options)
    z, y = random_batch(4, 24, 4)
    y[3] = -100
    z.requires_grad_()
    (whole,) = torch.autograd.grad(criterion(z, y), z)
    naive = torch.autograd.grad(sum(criterion(a, b) / 3 for a, b in zip(z.split(8), y.split(8), strict=True)), z)[0]
    assert (naive - whole).norm() > 0.05 * whole.norm()
    assert not whole[3].any()


@pytest.mark.claim("multi-label-marginals")
def test_multi_label_cross_entropy_sees_the_marginals_and_nothing_else():
    """Three labels, all eight outcomes, the loss written out; a joint is moved without moving its marginals."""
    outcomes = np.array(list(itertools.product((0, 1), repeat=3)))
    parity = (-1.0) ** outcomes.sum(1)  # orthogonal to a constant and to each label

    def risk(z, joint):
        log_p, log_not = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        return -(joint * (outcomes * log_p + (1 - outcomes) * log_not).sum(1)).sum()

    for seed in SEEDS:
        rng = np.random.default_rng([seed, 60])
        joint = 0.05 + 0.6 * rng.dirichlet(np.ones(8))
        other = joint + 0.04 * parity
        assert np.abs(joint @ outcomes - other @ outcomes).max() < 1e-12 and other.min() > 0
        best = minimize(risk, rng.normal(size=3), args=(other,), method="BFGS", options={"gtol": 1e-9})
        assert np.abs(1 / (1 + np.exp(-best.x)) - joint @ outcomes).max() < 1e-6
        z = rng.normal(size=3)
        assert abs(risk(z, joint) - risk(z, other)) < 1e-12
        each = F.binary_cross_entropy_with_logits(
            torch.tensor(np.tile(z, (8, 1))), torch.tensor(outcomes).double(), reduction="none"
        )
        assert abs((torch.tensor(joint)[:, None] * each).sum().item() - risk(z, joint)) < 1e-12
        q, p = rng.dirichlet(np.ones(3), 2)
        exclusive = np.zeros(8)
        exclusive[[4, 2, 1]] = q  # the outcomes 100, 010, 001
        regret = risk(np.log(p / (1 - p)), exclusive) - risk(np.log(q / (1 - q)), exclusive)
        assert regret >= (q * np.log(q / p)).sum() - 1e-12


def numpy_adam(slope, shape, steps, rate=0.02):
    """Adam with its usual constants, from zero; yields the weights after each step."""
    w, first, second = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t in range(1, steps + 1):
        g = slope(w)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        w = w - rate * first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        yield w


@pytest.mark.claim("noise-on-digits")
def test_with_wrong_labels_gence_memorises_as_ce_does_and_bounded_losses_less():
    """In numpy, with the gradients in the logits by hand."""
    error = {name: [] for name in ("ce", "gence", "lq", "sce")}
    for seed in range(460, 466):
        data, rng = load_splits("digits", seed, n_per_class=20), np.random.default_rng([seed, 61])
        x = np.column_stack([data.x_train, np.ones(len(data.x_train))])
        test = np.column_stack([data.x_test, np.ones(len(data.x_test))])
        wrong = rng.random(len(x)) < 0.4
        y = np.where(wrong, (data.y_train + rng.integers(1, 10, len(x))) % 10, data.y_train)
        hot = np.eye(10)[y]
        counts = hot.sum(0)

        def push(name, p, hot=hot, counts=counts):
            own = (p * hot).sum(1, keepdims=True)
            if name == "gence":
                tax = p * counts / p.sum(0)
                return p - hot + tax - p * tax.sum(1, keepdims=True)
            weight = {"ce": 1.0, "lq": own**0.7, "sce": 0.1 + 4 * own}[name]  # t |f'(t)|
            return weight * (p - hot)

        for name in error:

            def slope(w, name=name, push=push, x=x):
                z = x @ w
                p = np.exp(z - z.max(1, keepdims=True))
                return x.T @ push(name, p / p.sum(1, keepdims=True)) / len(x)

            *_, w = numpy_adam(slope, (65, 10), 600)
            error[name].append(((test @ w).argmax(1) != data.y_test).mean())
    mean = {name: np.mean(values) for name, values in error.items()}
    assert abs(mean["gence"] - mean["ce"]) < 0.015
    assert mean["lq"] < mean["ce"] - 0.1 and mean["sce"] < mean["ce"] - 0.05


@pytest.mark.claim("smoothing-keeps-leak")
@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_smoothing_does_not_close_the_leak_of_gence(eps):
    """Four samples, five classes of which two are there; both losses as plain sums."""
    labels, k = [0, 1, 1, 0], 5
    q = np.full((4, k), eps / k)
    q[range(4), labels] += 1 - eps

    def gence(p):
        return -sum(q[i, m] * np.log(p[i, m] / p[:, m].sum()) for i in range(4) for m in range(k)) / 4

    def ce(p):
        return -(q * np.log(p)).sum() / 4

    for name, by_hand in (("gence", gence), ("ce", ce)):
        p = np.random.default_rng(k).dirichlet(np.ones(k), 4)
        ours = make_loss(name, label_smoothing=eps)(torch.tensor(np.log(p)), torch.tensor(labels)).item()
        assert abs(ours - by_hand(p)) < 1e-12
    for mass in (0.001, 0.3, 0.9):  # on the three absent classes
        p = np.full((4, k), mass / 3)
        p[:, :2] = (1 - mass) * q[:, :2] / q[:, :2].sum(1, keepdims=True)
        assert abs(gence(p) - gence(q)) < 1e-12
        delta = 3 * eps / k
        price = (1 - delta) * np.log((1 - delta) / (1 - mass)) + delta * np.log(delta / mass)
        assert abs(ce(p) - ce(q) - price) < 1e-12
    p = q.copy()
    p[0] = [0.2, 0.2, 0.2, 0.2, 0.2]
    assert gence(p) > gence(q) + 1e-3


@pytest.mark.claim("distillation-matches-logits")
def test_hot_distillation_matches_centred_logits():
    rng = np.random.default_rng(70)
    v, z, h = rng.normal(0, 2, 6), rng.normal(0, 2, 6), 1e-3

    def distance(z, hot):
        q = np.exp(v / hot) / np.exp(v / hot).sum()
        loss = make_loss("ce", temperature=hot)
        return loss(torch.tensor(z[None]), torch.tensor(q[None])).item()

    squared = (z - z.mean() - v + v.mean()) / 6
    for hot, within in ((20.0, 0.2), (200.0, 0.02)):
        slope = [(distance(z + h * e, hot) - distance(z - h * e, hot)) / (2 * h) for e in np.eye(6)]
        assert np.abs(hot**2 * np.array(slope) - squared).max() < within
        assert np.abs(slope).max() < 1  # before the factor it fades


def with_constant(x):
    return np.column_stack([x, np.ones(len(x))])


def fitted(x, target, push=None, heat=1.0, steps=600):
    """Weights of a linear softmax model after Adam; push: gradient in the logits of a sample, default p - target."""

    def slope(w):
        p = softmax_rows(x @ w / heat)
        return x.T @ (p - target if push is None else push(p, target)) / len(x)

    *_, w = numpy_adam(slope, (x.shape[1], 10), steps)
    return w


def softmax_rows(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gence_push(p, q):
    tax = p * q.sum(0) / p.sum(0)
    return p - q + tax - p * tax.sum(1, keepdims=True)


@pytest.mark.claim("smoothed-gence-on-digits")
def test_on_the_full_batch_smoothed_gence_ends_where_smoothed_ce_ends_and_both_are_too_modest():
    for seed in range(460, 464):
        data = load_splits("digits", seed, n_per_class=20)
        x, test = with_constant(data.x_train), with_constant(data.x_test)
        q = 0.9 * np.eye(10)[data.y_train] + 0.01
        p = {push: softmax_rows(test @ fitted(x, q, push)) for push in (None, gence_push)}
        right = {push: (table.argmax(1) == data.y_test).mean() for push, table in p.items()}
        assert abs(right[None] - right[gence_push]) < 0.01
        assert np.abs(p[None] - p[gence_push]).mean() < 0.01
        for push, table in p.items():
            assert right[push] - table.max(1).mean() > 0.08
        sharp = softmax_rows(test @ fitted(x, np.eye(10)[data.y_train]))
        assert abs((sharp.argmax(1) == data.y_test).mean() - sharp.max(1).mean()) < 0.06


@pytest.mark.claim("distillation-on-digits")
def test_a_student_learns_more_from_a_warm_teacher_than_from_the_same_labels():
    gains = []
    for seed in range(460, 466):
        large, small = (load_splits("digits", seed, n_per_class=n) for n in (90, 20))
        x, test = with_constant(small.x_train), with_constant(small.x_test)
        assert {row.tobytes() for row in small.x_train} <= {row.tobytes() for row in large.x_train}
        teacher = x @ fitted(with_constant(large.x_train), np.eye(10)[large.y_train])
        students = {
            "labels": fitted(x, np.eye(10)[small.y_train]),
            "cold": fitted(x, softmax_rows(teacher)),
            "warm": fitted(x, softmax_rows(teacher / 4), heat=4.0),
        }
        error = {name: ((test @ w).argmax(1) != small.y_test).mean() for name, w in students.items()}
        gains.append((error["labels"] - error["warm"], error["cold"] - error["warm"]))
    assert (np.array(gains)[:, 0] > 0.01).mean() > 0.8
    assert np.array(gains)[:, 1].mean() > 0


@pytest.mark.claim("weights-fade")
def test_the_lead_of_class_weights_and_logit_adjustment_fades_as_the_tail_gets_fitted():
    lead = []
    for seed in range(460, 463):
        data = load_splits("digits", seed, n_per_class=90, rho=30)
        x, test, hot = with_constant(data.x_train), with_constant(data.x_test), np.eye(10)[data.y_train]
        counts = hot.sum(0)
        weight, shift = (1 / counts)[data.y_train][:, None], np.log(counts / counts.sum())
        error = []
        for w_i, b in ((1.0, 0.0), (weight / weight.mean(), 0.0), (1.0, shift)):

            def slope(w, w_i=w_i, b=b, x=x, hot=hot):
                return x.T @ (w_i * (softmax_rows(x @ w + b) - hot)) / len(x)

            path = list(numpy_adam(slope, (65, 10), 1500))
            assert ((x @ path[-1]).argmax(1) == data.y_train).all()
            error.append([((test @ path[at]).argmax(1) != data.y_test).mean() for at in (99, 1499)])
        lead.append([np.subtract(error[0], other) for other in error[1:]])
    early, late = np.mean(lead, 0).T
    assert (early > 0.03).all() and (late < early / 2).all()
