"""The propositions of the chapter "Mini-batches", checked apart from the chapter's own code, in float64."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from gence.lab.data import load_splits
from gence.lab.networks import make_model
from gence.lab.results import sources, statistics
from gence.lab.training import Recipe, evaluate_outcome, train_many
from gence.losses import generative_cross_entropy, make_loss

SEEDS = range(10)


def gence_by_hand(p: np.ndarray, y: np.ndarray, strength: float = 1.0) -> float:
    """Mean of -log p_y + strength * log of the column sum, on probabilities, with loops."""
    n = len(y)
    terms = [-math.log(p[i, y[i]]) + strength * math.log(sum(p[j, y[i]] for j in range(n))) for i in range(n)]
    return sum(terms) / n


def regret(p: torch.Tensor, q: torch.Tensor) -> float:
    return (generative_cross_entropy(p.log(), q) - generative_cross_entropy(q.log(), q)).item()


def simplex(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return 0.02 + (1 - 0.02 * k) * rng.dirichlet(np.ones(k), n)


def all_batches_expectation(values: np.ndarray, weights: np.ndarray, size: int, f) -> float:
    """E f(rows) over all len(values)^size ordered batches of atoms drawn with `weights`."""
    total = 0.0
    for rows in itertools.product(range(len(values)), repeat=size):
        total += math.prod(weights[i] for i in rows) * f(values[list(rows)])
    return total


def compositions(total: int, parts: int):
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def expected_log_mean(values: np.ndarray, weights: np.ndarray, size: int, first: float | None = None) -> float:
    """Exact E log of the mean of `size` draws (the first of them fixed, if given), over multinomial counts."""
    free = size - (first is not None)
    total = 0.0
    for counts in compositions(free, len(values)):
        log_p = math.lgamma(free + 1) + sum(
            c * math.log(w) - math.lgamma(c + 1) for c, w in zip(counts, weights, strict=True)
        )
        total += math.exp(log_p) * math.log((np.dot(counts, values) + (first or 0.0)) / size)
    return total


@pytest.mark.claim("batch-bias")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_mean_is_too_low_by_the_variance_over_twice_b_mean_squared(seed):
    rng = np.random.default_rng([seed, 0])
    values, weights = rng.uniform(0.2, 0.9, 3), rng.dirichlet(np.full(3, 5.0))
    mean = weights @ values
    predicted = -(weights @ (values - mean) ** 2) / (2 * mean**2)
    small = all_batches_expectation(values, weights, 5, lambda v: math.log(v.mean()))
    assert expected_log_mean(values, weights, 5) == pytest.approx(small, abs=1e-12)  # two ways to enumerate
    rate = {b: b * (expected_log_mean(values, weights, b) - math.log(mean)) for b in (20, 40, 80)}
    assert all(value < 0 for value in rate.values())
    gap = {b: abs(rate[b] - predicted) for b in rate}
    assert gap[80] < 0.05 * abs(predicted)
    assert gap[80] < 0.6 * gap[40] + 1e-5  # first-order remainder: halves when the batch doubles
    extrapolated = 2 * rate[80] - rate[40]
    assert extrapolated == pytest.approx(predicted, rel=0.01)


@pytest.mark.claim("batch-bias-loss")
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_bias_has_a_self_term_and_is_positive_for_the_true_posterior(seed, calibrated):
    rng = np.random.default_rng([seed, 1])
    k, weights = int(rng.integers(2, 5)), rng.dirichlet(np.full(3, 5.0))
    q = simplex(rng, 3, k) * 0.8 + 0.2 / k
    p = q if calibrated else simplex(rng, 3, k) * 0.8 + 0.2 / k
    m, prior = weights @ p, weights @ q
    variance, a = weights @ (p - m) ** 2, (weights @ (p * q)) / prior
    rate = float(prior @ (a / m - 1 - variance / (2 * m**2)))
    if calibrated:
        assert rate > 0
        assert rate == pytest.approx(float(prior @ (variance / (2 * m**2))), abs=1e-12)

    def bias(size: int) -> float:
        term = sum(
            weights[x] * q[x, c] * expected_log_mean(p[:, c], weights, size, first=p[x, c])
            for x in range(3)
            for c in range(k)
        )
        return term - float(prior @ np.log(m))

    extrapolated = 2 * 40 * bias(40) - 20 * bias(20)
    assert extrapolated == pytest.approx(rate, abs=0.02 * abs(rate) + 2e-3)
    # the class term really is what the loss holds: all batches of 3 (input, label) pairs
    loss = 0.0
    for xs in itertools.product(range(3), repeat=3):
        for ys in itertools.product(range(k), repeat=3):
            chance = math.prod(weights[x] * q[x, c] for x, c in zip(xs, ys, strict=True))
            loss += chance * gence_by_hand(p[list(xs)], np.array(ys))
    ce = -float(weights @ (q * np.log(p)).sum(1))
    population = ce + float(prior @ np.log(m))
    assert loss - math.log(3) - population == pytest.approx(bias(3), abs=1e-12)


def test_for_perfect_predictions_the_bias_is_that_of_the_plug_in_entropy():
    for k, size in ((2, 60), (3, 60)):
        labels = np.eye(k)
        entropy = 0.0
        for counts in compositions(size, k):
            log_p = math.lgamma(size + 1) - sum(math.lgamma(c + 1) for c in counts) - size * math.log(k)
            y = torch.tensor(np.repeat(np.arange(k), counts))
            z = torch.tensor(labels[y.numpy()]).log()
            entropy -= math.exp(log_p) * (generative_cross_entropy(z, y).item() - math.log(size))
        assert size * (math.log(k) - entropy) == pytest.approx((k - 1) / 2, rel=0.05)


@pytest.mark.claim("batch-proper")
@pytest.mark.parametrize("seed", SEEDS)
def test_expected_mini_batch_loss_is_lowest_at_the_posterior_and_pairs_identify_it(seed):
    rng = np.random.default_rng([seed, 2])
    k = int(rng.integers(2, 4))
    n = k + int(rng.integers(0, 3))
    q = torch.tensor(simplex(rng, n, k))
    for size in (1, 2, 3):
        batch = rng.permutation(n)[: min(size, n)]
        p = torch.tensor(simplex(rng, n, k))
        expected = {"p": 0.0, "q": 0.0}
        for y in itertools.product(range(k), repeat=len(batch)):
            chance = math.prod(q[i, c].item() for i, c in zip(batch, y, strict=True))
            expected["p"] += chance * gence_by_hand(p[batch].numpy(), np.array(y))
            expected["q"] += chance * gence_by_hand(q[batch].numpy(), np.array(y))
        assert expected["p"] - expected["q"] == pytest.approx(regret(p[batch], q[batch]), abs=1e-12)
        assert expected["p"] - expected["q"] > -1e-12
    # minimise over all pairs from a random start: only q is found
    pairs = torch.tensor(list(itertools.combinations(range(n), 2)))
    z = torch.tensor(rng.normal(0, 1, (n, k)), requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [z], max_iter=3000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = torch.vmap(generative_cross_entropy)(z[pairs], q[pairs]).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    lowest = torch.linalg.svdvals(q)[-1].item()
    assert lowest > 1e-3
    assert (z.detach().softmax(1) - q).abs().max() < 1e-6 / lowest


@pytest.mark.parametrize("seed", SEEDS)
def test_without_independent_columns_another_prediction_has_no_regret_in_any_batch(seed):
    rng = np.random.default_rng([seed, 3])
    constant = float(rng.uniform(0.1, 0.5))
    q = torch.tensor(np.c_[(1 - constant) * simplex(rng, 6, 3), np.full(6, constant)])
    c = 0.9
    p = q * torch.tensor([c, c, c, (1 - c * (1 - constant)) / constant], dtype=torch.float64)
    assert (p.sum(1) - 1).abs().max() < 1e-12
    assert (p - q).abs().max() > 0.01
    for size in (2, 3, 6):
        for batch in itertools.combinations(range(6), size):
            assert abs(regret(p[list(batch)], q[list(batch)])) < 1e-12


@pytest.mark.claim("absent-classes")
def test_expected_number_of_absent_classes():
    for k, size in ((2, 6), (3, 5), (4, 4)):
        prior = np.random.default_rng(k).dirichlet(np.ones(k))
        enumerated = sum(
            math.prod(prior[c] for c in y) * (k - len(set(y))) for y in itertools.product(range(k), repeat=size)
        )
        assert enumerated == pytest.approx(((1 - prior) ** size).sum(), abs=1e-12)
    labels = [0, 0, 0, 1, 1, 2]  # without replacement
    for size in (1, 2, 4):
        draws = list(itertools.combinations(labels, size))
        enumerated = np.mean([3 - len(set(d)) for d in draws])
        formula = sum(math.comb(6 - c, size) / math.comb(6, size) for c in (3, 2, 1))
        assert enumerated == pytest.approx(formula, abs=1e-12)
        assert formula <= sum((1 - c / 6) ** size for c in (3, 2, 1)) + 1e-12
    assert [round(k * (1 - 1 / k) ** 128, 1) for k in (10, 100, 200)] == [0.0, 27.6, 105.3]


@pytest.mark.claim("leak")
@pytest.mark.refutes("G4")
@pytest.mark.parametrize("seed", SEEDS)
def test_mass_moved_to_absent_classes_is_free_for_gence_and_costs_ce_log_one_over_c(seed):
    rng = np.random.default_rng([seed, 4])
    n, k = int(rng.integers(1, 12)), int(rng.integers(3, 9))
    y = rng.integers(k - 1, size=n)  # class k-1 never occurs
    present = np.isin(np.arange(k), y)
    for p in (simplex(rng, n, k), np.eye(k)[y]):  # any predictions, perfect predictions
        for c in (0.99, 0.4, 0.001):
            q = np.where(present, c * p, 0.0)
            to_absent = rng.dirichlet(np.ones((~present).sum()), n)
            q[:, ~present] = (1 - q.sum(1, keepdims=True)) * to_absent
            assert np.abs(q.sum(1) - 1).max() < 1e-12
            assert np.abs(q - p).max() > 1e-3
            for s in (0.0, 0.3, 0.5, 1.0):
                change = gence_by_hand(q, y, s) - gence_by_hand(p, y, s)
                assert change == pytest.approx((1 - s) * math.log(1 / c), abs=1e-11)
                library = [generative_cross_entropy(torch.tensor(t).log(), torch.tensor(y), strength=s) for t in (q, p)]
                assert (library[0] - library[1]).item() == pytest.approx(change, abs=1e-11)


def test_the_total_push_on_an_absent_class_is_a_covariance():
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 5])
        z = torch.tensor(rng.normal(0, 1, (9, 6)))
        z[:, 5] = z[:, :5].logsumexp(1) + 0.3  # class 5: the same log-odds, hence probability, in every sample
        z.requires_grad_()
        y = torch.tensor(rng.integers(4, size=9))  # classes 4 and 5 are absent
        (gradient,) = torch.autograd.grad(generative_cross_entropy(z, y), z)
        p = z.detach().softmax(1)
        tax = F.one_hot(y, 6).double().sum(0) / p.sum(0)
        t = (tax * p).sum(1)
        assert t.mean() == pytest.approx(1, abs=1e-12)
        covariance = ((p - p.mean(0)) * (t - 1)[:, None]).mean(0)
        assert gradient.sum(0)[4].item() == pytest.approx(-covariance[4].item(), abs=1e-12)
        assert abs(gradient.sum(0)[5].item()) < 1e-12
        assert abs(gradient.sum(0)[4].item()) > 1e-6
        (ce,) = torch.autograd.grad(F.cross_entropy(z, y), z)
        assert ce.sum(0)[4:].min() > 0


@pytest.mark.claim("batch-unique")
def test_one_hot_labels_are_the_only_minimiser_once_all_classes_meet():
    y = torch.tensor([0, 0, 1, 2, 2, 3])
    k, n = 4, 6

    def excess(p: torch.Tensor, batches) -> float:
        total = 0.0
        for b in map(list, batches):
            counts = np.bincount(y[b])
            floor = sum(c * math.log(c) for c in counts if c) / len(b)
            total += generative_cross_entropy(p[b].log(), y[b]).item() - floor
        return total / len(batches)

    perfect = F.one_hot(y, k).double()
    for size in (2, 3, 5):
        batches = list(itertools.combinations(range(n), size))
        assert abs(excess(perfect, batches)) < 1e-12
        for seed in SEEDS:
            rng = np.random.default_rng([seed, 6, size])
            i, j = int(rng.integers(n)), int(rng.integers(k))
            if j == y[i]:
                continue
            leaky = perfect.clone()  # a single sample, a single class, a small mass
            leaky[i, j], leaky[i, y[i]] = 0.01, 0.99
            assert excess(leaky, batches) > 1e-5
            other = torch.tensor(simplex(rng, n, k))
            assert excess(other, batches) > 1e-3
    apart = [[0, 1, 2], [0, 2], [3, 4, 5], [4, 5]]  # classes 0, 1 never meet 2, 3
    leaky = perfect.clone()
    leaky[:3] *= 0.25
    leaky[:3, 3] = 0.75
    assert abs(excess(leaky, apart)) < 1e-12
    assert excess(leaky, [*apart, [2, 5]]) > 0.01  # one batch in which they meet is enough to object


@pytest.mark.claim("accumulation-chain-rule")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_of_the_parts_misses_entropy_and_divergence_between_the_parts(seed):
    rng = np.random.default_rng([seed, 7])
    n, k, parts = int(rng.integers(4, 20)), int(rng.integers(2, 6)), int(rng.integers(2, 5))
    p, y, part = simplex(rng, n, k), rng.integers(k, size=n), rng.integers(parts, size=n)
    whole = gence_by_hand(p, y)
    split = sum((part == h).mean() * gence_by_hand(p[part == h], y[part == h]) for h in set(part.tolist()))
    entropy = divergence = 0.0
    for c in set(y.tolist()):
        for h in set(part.tolist()):
            w = ((y == c) & (part == h)).sum() / (y == c).sum()
            v = p[part == h, c].sum() / p[:, c].sum()
            if w > 0:
                entropy -= (y == c).mean() * w * math.log(w)
                divergence += (y == c).mean() * w * math.log(w / v)
    assert divergence >= -1e-12
    assert whole == pytest.approx(split + entropy + divergence, abs=1e-12)
    logits = torch.tensor(p).log()
    assert generative_cross_entropy(logits, torch.tensor(y)).item() == pytest.approx(whole, abs=1e-12)


@pytest.mark.claim("accumulation-two-pass")
@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_linear_tax_at_fixed_rates_accumulates_to_the_gradient_of_the_whole(seed, strength):
    rng = np.random.default_rng([seed, 8])
    n, k, d = int(rng.integers(5, 30)), int(rng.integers(2, 7)), 4
    x, y = torch.tensor(rng.normal(size=(n, d))), torch.tensor(rng.integers(k, size=n))
    weights = torch.tensor(rng.normal(size=(d, k)), requires_grad=True)  # gradients of parameters, as in training
    (whole,) = torch.autograd.grad(generative_cross_entropy(x @ weights, y, strength=strength), weights)
    parts = torch.tensor_split(torch.arange(n), 3)
    with torch.no_grad():
        columns = sum((x[r] @ weights).softmax(1).sum(0) for r in parts)
    tax = torch.bincount(y, minlength=k) / columns
    for r in parts:
        p = (x[r] @ weights).softmax(1)
        loss = -p[torch.arange(len(r)), y[r]].log().sum() + strength * (tax * p).sum()
        (loss / n).backward()
    assert (weights.grad - whole).abs().max() < 1e-12
    naive = sum(
        len(r) / n * torch.autograd.grad(generative_cross_entropy(x[r] @ weights, y[r], strength=strength), weights)[0]
        for r in parts
    )
    assert (naive - whole).abs().max() > 1e-4


LOSSES = ("ce", "gence")
# What is said of the ragged last batch: 50 images in batches of 16 leave a pair.
BATCHES = {
    (16, "keep"): {"16": 3, "2": 1},
    (16, "even"): {"13": 2, "12": 2},
    (16, "drop"): {"16": 3},
    (17, "even"): {"17": 2, "16": 1},
    (10, "even"): {"10": 5},
}


def ragged_records():
    """Records at the end of the training, with the column `arm`."""
    table = sources.collected("ragged")
    table = table[table["checkpoint"] == "last"]
    rest = [options["last_batch"] for options in table["recipe_options"]]
    return table.assign(arm=list(zip(table["batch_size"], rest, strict=True)))


def paired(table, metric: str, a: dict, b: dict) -> np.ndarray:
    """b minus a of the same seeds, for two choices of loss and arm."""
    sides = []
    for chosen in (a, b):
        rows = table[(table["loss"] == chosen["loss"]) & (table["arm"] == chosen["arm"])].set_index("seed")[metric]
        assert sorted(rows.index) == list(range(200, 260))
        sides.append(rows.sort_index().to_numpy())
    return sides[1] - sides[0]


def p_below(differences: np.ndarray, bound: float) -> float:
    """One-sided p that the differences lie below a bound: Student's t, another test than the book's."""
    return float(stats.ttest_1samp(differences, bound, alternative="less").pvalue)


@pytest.mark.claim("ragged-batch")
def test_the_pair_at_the_end_of_an_epoch_made_the_gain():
    table = ragged_records()
    for arm, sizes in BATCHES.items():
        assert all(found == sizes for found in table.loc[table["arm"] == arm, "batch_sizes"])
    kept, even = (16, "keep"), (16, "even")
    # CE pays for the pair in every metric, GenCE much less
    for metric, at_least in (("error", 0.005), ("nll", 0.03), ("ece", 0.005)):
        costs = {
            loss: paired(table, metric, {"loss": loss, "arm": even}, {"loss": loss, "arm": kept}) for loss in LOSSES
        }
        assert costs["ce"].mean() > at_least and p_below(-costs["ce"], 0) < 1e-3
        assert p_below(costs["gence"] - costs["ce"], 0) < 0.05
        if metric == "error":  # that of GenCE stays the same, to within half a point
            before, after = dict.fromkeys(range(60), 0.0), dict(enumerate(costs["gence"]))
            assert statistics.compare(before, after, margin=0.005)["p_equivalence"] < 0.05
    # GenCE minus CE: fewer errors only where the pair is kept; everywhere else within half a point
    gain = {arm: paired(table, "error", {"loss": "ce", "arm": arm}, {"loss": "gence", "arm": arm}) for arm in BATCHES}
    assert gain[kept].mean() < -0.005 and stats.wilcoxon(gain[kept]).pvalue < 0.05
    for arm in BATCHES.keys() - {kept}:
        below, above = (stats.wilcoxon(sign * gain[arm] - 0.005, alternative="less").pvalue for sign in (1, -1))
        assert max(below, above) < 0.01, arm
        assert stats.wilcoxon(gain[arm]).pvalue > 0.05
    # what stays: a lower NLL and ECE in most seeds, in every arm; without the pair less than a third of it in the mean
    for metric in ("nll", "ece"):
        means = {}
        for arm in BATCHES:
            change = paired(table, metric, {"loss": "ce", "arm": arm}, {"loss": "gence", "arm": arm})
            assert (change < 0).mean() > 0.6 and stats.wilcoxon(change).pvalue < 0.01, (metric, arm)
            means[arm] = change.mean()
        assert means[even] > means[kept] / 3


@pytest.mark.claim("ragged-batch")
def test_trained_again_ce_pays_for_the_pair_and_the_records_come_back():
    seeds, table = range(206, 212), ragged_records()
    data = [load_splits("digits", seed, n_per_class=5) for seed in seeds]
    scores = {}
    for rest in ("keep", "even"):
        recipe = Recipe(16, 60, last_batch=rest)
        networks = [make_model("mlp", 64, 10, seed) for seed in seeds]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="every epoch has a batch of 2 samples")
            outcomes = train_many(networks, data, make_loss("ce"), recipe, list(seeds), progress=False)
        found = [evaluate_outcome(outcome, splits)["last"] for outcome, splits in zip(outcomes, data, strict=True)]
        scores[rest] = {name: np.array([values[name] for values in found]) for name in ("error", "nll")}
        recorded = table[(table["loss"] == "ce") & (table["arm"] == (16, rest))].set_index("seed").loc[list(seeds)]
        assert np.abs(scores[rest]["error"] - recorded["error"]).max() < 0.005  # three images of 539
        assert np.abs(scores[rest]["nll"] - recorded["nll"]).max() < 0.01
    assert (scores["keep"]["error"] - scores["even"]["error"]).mean() > 0.005
    assert (scores["keep"]["nll"] - scores["even"]["nll"]).mean() > 0.02
