"""Every loss of the registry but CE and GenCE, which have files of their own, against loops over the formulas."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import references
import torch
import torch.nn.functional as F
from references import COUNTS, EXTREME, REDUCTIONS, K, close, gradient, labels, normal, plain_softmax
from torch import Tensor, nn

from gence import propriety
from gence.losses import (
    DUAL_FOCAL_GAMMAS,
    REGISTRY,
    AdaFocalLoss,
    EntropyLoss,
    class_balanced_loss,
    dual_focal_loss,
    flsd_loss,
    focal_loss,
    generative_cross_entropy,
    logit_adjusted_loss,
    lq_loss,
    make_loss,
    mmce_loss,
    symmetric_cross_entropy,
)

ADA = {"gammas": [2.5, -0.7, 0.4], "edges": [0.2, 0.6]}


def required(name: str, n_classes: int = K) -> dict:
    """The options that a loss cannot do without."""
    return {"class_counts": COUNTS[:n_classes]} if "class_counts" in REGISTRY[name].options else {}


def build(name: str, **options) -> nn.Module:
    """A loss; the adaptive ones with gammas of both signs, as after some updates."""
    loss = make_loss(name, **options)
    if isinstance(loss, AdaFocalLoss):
        loss.gammas, loss.edges = (torch.tensor(ADA[part], dtype=torch.float64) for part in ("gammas", "edges"))
    return loss


# --- Values and gradients against loops ---------------------------------------------------------------------------

# name, options, the loop over the formula with the same options
POINTWISE: list[tuple[str, dict, Callable[..., float]]] = [
    ("brier", {}, references.brier),
    *[("focal", {"gamma": g}, references.focal) for g in (0.0, 0.5, 1.0, 2.0, 5.0)],
    *[("inverse_focal", {"gamma": g}, references.inverse_focal) for g in (0.0, 0.5, 2.0)],
    ("flsd_53", {}, references.flsd_53),
    ("flsd_52", {}, references.flsd_52),
    *[("dual_focal", {"gamma": g}, references.dual_focal) for g in (1.0, 2.6, 5.0)],
    *[("lq", {"q": q}, references.lq) for q in (0.1, 0.7, 1.0)],
    ("lq", {"q": 0.7, "truncation": 0.5}, references.lq),
    ("sce", {}, references.symmetric_cross_entropy),
    ("sce", {"alpha": 6.0, "beta": 0.1, "log_zero": -2.0}, references.symmetric_cross_entropy),
    ("sce", {"official": True}, lambda p, y, official: references.symmetric_cross_entropy_official(p, y)),
    ("min_ent", {}, references.min_ent),
    ("min_ent", {"weights": (0.7, 0.4), "log_bases": (2.02, 10.73)}, references.min_ent),
    ("mix_ent", {}, references.mix_ent),
    ("mix_ent", {"weights": (0.7, 0.4), "log_bases": (12.58, 12.45)}, references.mix_ent),
    ("logit_adjustment", {"class_counts": COUNTS}, references.logit_adjusted),
    ("logit_adjustment", {"class_counts": COUNTS, "tau": 0.5}, references.logit_adjusted),
    (
        "logit_adjustment",
        {"class_counts": [1e9, 1.0, 5.0, 1e4], "official": True},
        lambda p, y, class_counts, official: references.logit_adjusted(p, y, class_counts, plus=1e-12),
    ),
    *[("class_balanced", {"class_counts": COUNTS, "beta": b}, references.class_balanced) for b in (0.0, 0.9, 0.9999)],
    ("adafocal", {}, lambda p, y: references.adafocal(p, y, **ADA)),
]
# A loss that is not listed is compared at its defaults with the formula that the references have of it.
LISTED = {name for name, _, _ in POINTWISE}
POINTWISE += [(name, {}, formula) for name, formula in references.FORMULAS.items() if name not in LISTED]


exact = functools.partial(torch.tensor, dtype=torch.float64)


def reduced(terms: Sequence[float], reduction: str) -> Tensor:
    values = exact(terms)
    return values if reduction == "none" else values.sum() / (1 if reduction == "sum" else len(terms))


def probabilities(z: Tensor) -> list[list[float]]:
    return [plain_softmax(row) for row in z.tolist()]


def some(n: int = 40) -> tuple[Tensor, Tensor]:
    """Logits and labels: right and wrong samples, p_y on all sides of the thresholds of the family."""
    z, y = 2 * normal(n, K), labels(n)
    p_y = z.softmax(1).gather(1, y[:, None])
    assert p_y.min() < 0.2 < 0.5 < p_y.max() and ((p_y > 0.2) & (p_y < 0.5)).any()
    return z, y


def described(case: tuple[str, dict, Callable]) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items() if key != "class_counts")])


@pytest.mark.parametrize("case", POINTWISE, ids=described)
def test_pointwise_losses_are_their_formulas(case: tuple[str, dict, Callable[..., float]]) -> None:
    name, options, formula = case
    z, y = some()
    terms = [formula(p, k, **options) for p, k in zip(probabilities(z), y.tolist(), strict=True)]
    for reduction in REDUCTIONS:
        close(build(name, **options, reduction=reduction)(z, y), reduced(terms, reduction), atol=1e-11)
    each = build(name, **options, reduction="none")
    assert torch.autograd.gradcheck(lambda v: each(v, y), z.clone().requires_grad_())
    spatial = z.reshape(5, 2, 4, K).movedim(-1, 1)
    close(each(spatial, y.reshape(5, 2, 4)).reshape(-1), reduced(terms, "none"), atol=1e-11)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gence_focal_is_its_formula(gamma: float, strength: float) -> None:
    z, y = some()
    terms = references.gence_focal(probabilities(z), y.tolist(), gamma, strength)
    for reduction in REDUCTIONS:
        loss = make_loss("gence_focal", gamma=gamma, strength=strength, reduction=reduction)
        close(loss(z, y), reduced(terms, reduction), atol=1e-11)
    assert torch.autograd.gradcheck(lambda v: loss(v, y[:9]), z[:9].clone().requires_grad_())


def test_gence_adafocal_is_its_formula() -> None:
    z, y = some()
    p = probabilities(z)
    factors = [references.adafocal(row, k, **ADA) / -math.log(row[k]) for row, k in zip(p, y.tolist(), strict=True)]
    generative = references.gence_focal(p, y.tolist(), gamma=0.0)
    terms = [a * b for a, b in zip(factors, generative, strict=True)]
    for reduction in REDUCTIONS:
        close(build("gence_adafocal", reduction=reduction)(z, y), reduced(terms, reduction), atol=1e-11)
    loss = build("gence_adafocal")
    assert torch.autograd.gradcheck(lambda v: loss(v, y[:9]), z[:9].clone().requires_grad_())


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("name", ["mmce", "mmce_w"])
@pytest.mark.parametrize("bandwidth", [0.4, 0.1])
def test_mmce_is_its_formula(name: str, official: bool, bandwidth: float) -> None:
    z, y = some()
    p = probabilities(z)
    if name == "mmce":
        square = references.mmce(p, y.tolist(), bandwidth)
        penalty = square if official else math.sqrt(square)
    else:
        square = references.mmce_w(p, y.tolist(), bandwidth, official)
        penalty = math.sqrt(square + 1e-10 * official)
    ce = F.cross_entropy(z, y).item()
    for coefficient in (0.5, 2.0):
        options = {"coefficient": coefficient, "bandwidth": bandwidth, "official": official}
        close(make_loss(name, **options)(z, y), ce + coefficient * penalty, atol=1e-11)
        close(make_loss(name, **options, reduction="sum")(z, y), len(z) * (ce + coefficient * penalty), atol=1e-10)
    assert torch.autograd.gradcheck(lambda v: make_loss(name, official=official)(v, y), z.requires_grad_())


@pytest.mark.parametrize("official", [False, True])
def test_mmce_w_where_all_are_right_or_none(official: bool) -> None:
    z = 2 * normal(6, K)
    for y in (z.argmax(1), z.argmin(1)):
        p = probabilities(z)
        penalty = 0.0 if official else math.sqrt(references.mmce_w(p, y.tolist()))
        close(mmce_loss(z, y, weighted=True, official=official), F.cross_entropy(z, y) + 2 * penalty)
        assert gradient(lambda v, t=y: mmce_loss(v, t, weighted=True, official=official), z).isfinite().all()


def test_the_smoothing_of_cross_entropy_over_the_others() -> None:
    """epsilon / (K - 1) to every class but the true one, and a temperature."""
    z, y = some()
    terms = []
    for p, k in zip(probabilities(z / 1.7), y.tolist(), strict=True):
        terms.append(-sum((0.8 if j == k else 0.2 / (K - 1)) * math.log(p[j]) for j in range(K)))
    for reduction in REDUCTIONS:
        loss = make_loss("ce", label_smoothing=0.2, smoothing_over="others", temperature=1.7, reduction=reduction)
        close(loss(z, y), reduced(terms, reduction))


# --- Published examples and official variants ---------------------------------------------------------------------


def test_dual_focal_takes_the_class_below_and_not_the_strongest() -> None:
    z = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    for y, base in ((0, 0.5), (1, 0.9), (2, 0.9)):
        expected = base**2 * -z[0, y].item()
        close(dual_focal_loss(z, torch.tensor([y]), gamma=2.0), expected)
    tied = torch.zeros(1, 4, dtype=torch.float64)
    close(dual_focal_loss(tied, torch.tensor([1]), gamma=1.0), 0.75 * math.log(4))  # ties do not lie below


def test_dual_focal_gammas_are_those_of_the_official_code() -> None:
    assert DUAL_FOCAL_GAMMAS == {
        ("cifar10", "resnet50"): 5.0,
        ("cifar10", "resnet110"): 4.5,
        ("cifar10", "wide_resnet"): 2.6,
        ("cifar10", "densenet121"): 5.0,
        ("cifar100", "resnet50"): 5.0,
        ("cifar100", "resnet110"): 6.1,
        ("cifar100", "wide_resnet"): 3.9,
        ("cifar100", "densenet121"): 3.4,
        ("tiny_imagenet", "resnet50"): 2.3,
    }


@pytest.mark.parametrize(
    ("name", "p_y", "gamma"),
    [
        ("flsd_53", 0.19, 5.0),
        ("flsd_53", 0.21, 3.0),
        ("flsd_53", 0.9, 3.0),
        ("flsd_52", 0.19, 5.0),
        ("flsd_52", 0.21, 3.0),
        ("flsd_52", 0.49, 3.0),
        ("flsd_52", 0.51, 2.0),
    ],
)
def test_the_levels_of_flsd(name: str, p_y: float, gamma: float) -> None:
    z = torch.tensor([[p_y, 1 - p_y]], dtype=torch.float64).log()
    close(make_loss(name)(z, torch.tensor([0])), (1 - p_y) ** gamma * -math.log(p_y))


def test_flsd_on_a_threshold_takes_the_gamma_above_it() -> None:
    z = torch.zeros(1, 2, dtype=torch.float64)  # p_y is exactly 1/2
    close(flsd_loss(z, torch.tensor([0]), (5.0, 1.0), (0.5,)), 0.5 * math.log(2))


def test_scheduled_focal() -> None:
    z, y = some()
    loss = make_loss("flsc")
    for epoch, gamma in ((0, 5.0), (99, 5.0), (100, 3.0), (249, 3.0), (250, 1.0), (349, 1.0)):
        loss.set_epoch(epoch)
        assert loss.gamma == gamma
        close(loss(z, y), focal_loss(z, y, gamma))
    tiny_imagenet = make_loss("flsc", milestones=(30, 70))
    tiny_imagenet.set_epoch(30)
    assert tiny_imagenet.gamma == 3.0


def test_the_official_mmce_w_falls_as_the_batch_grows() -> None:
    """The same predictions repeated are no better calibrated, but the official code divides by the numbers twice."""
    z, y = 2 * normal(32, K), labels(32)
    for official in (False, True):
        penalties = []
        for copies in (1, 4, 16):
            loss = mmce_loss(z.repeat(copies, 1), y.repeat(copies), 1.0, weighted=True, official=official)
            penalties.append(loss.item() - F.cross_entropy(z, y).item())
        if official:
            assert penalties[0] > 3 * penalties[1] > 9 * penalties[2] > 0
        else:
            close(torch.tensor(penalties), torch.full((3,), penalties[0]), atol=1e-9)


def test_logit_adjustment_is_cross_entropy_of_shifted_logits() -> None:
    z, y = some()
    pi = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    for tau in (0.0, 0.5, 1.0, 2.0):
        close(logit_adjusted_loss(z, y, COUNTS, tau), F.cross_entropy(z + tau * pi.log(), y))
        shift = (pi**tau + 1e-12).log()
        close(logit_adjusted_loss(z, y, COUNTS, tau, official=True), F.cross_entropy(z + shift, y))


def class_weights(beta: float, counts: Sequence[float] = COUNTS) -> Tensor:
    """The weights, read off from the loss of a prediction that gives each class the same probability."""
    n = len(counts)
    z = torch.zeros(n, n, dtype=torch.float64)
    return class_balanced_loss(z, torch.arange(n), counts, beta, reduction="none") / math.log(n)


def test_class_balanced_weights() -> None:
    for beta in (0.0, 0.9, 0.99, 0.999, 0.9999):
        close(class_weights(beta).sum(), float(K))
        close(class_weights(beta), exact(references.class_balanced_weights(COUNTS, beta)), atol=1e-9)
    close(class_weights(0.0), torch.ones(K))
    inverse = 1 / torch.tensor(COUNTS, dtype=torch.float64)
    close(class_weights(1 - 1e-10), K * inverse / inverse.sum(), atol=1e-7)


def test_l_q_lies_between_cross_entropy_and_the_absolute_error() -> None:
    z, y = some()
    p_y = z.softmax(1).gather(1, y[:, None])[:, 0]
    close(lq_loss(z, y, q=1e-9), F.cross_entropy(z, y), atol=1e-7)
    close(lq_loss(z, y, q=1.0, reduction="none"), 1 - p_y)
    held = p_y <= 0.5
    got = gradient(lambda v: lq_loss(v, y, truncation=0.5), z)
    assert not got[held].any() and got[~held].any(1).all()


def test_symmetric_cross_entropy_of_the_official_code() -> None:
    """A = log 1e-4 but for the clamp of p, which counts where the rest of the mass is spread thin."""
    z, y = some()
    close(
        symmetric_cross_entropy(z, y, official=True), symmetric_cross_entropy(z, y, log_zero=math.log(1e-4)), atol=1e-5
    )
    sure = torch.tensor([[100.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    close(symmetric_cross_entropy(sure, torch.tensor([0]), official=True), -math.log(1e-4) * 3e-7)


# --- AdaFocal -----------------------------------------------------------------------------------------------------


def validation(confidences: Sequence[float], hits: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Two-class logits whose class 0 has these confidences (> 1/2), and labels that agree where told."""
    c = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([c, 1 - c], 1).log(), torch.tensor([0 if hit else 1 for hit in hits])


def updated(start: Sequence[float], confidences: Sequence[float], hits: Sequence[bool], **options) -> AdaFocalLoss:
    loss = AdaFocalLoss(n_bins=len(start), **options)
    loss.gammas = torch.tensor(start, dtype=torch.float64)
    loss.update(*validation(confidences, hits))
    return loss


@pytest.mark.parametrize(
    ("gamma", "hit", "expected"),
    [
        (1.0, False, math.exp(0.9)),  # overconfident: more focus
        (1.0, True, math.exp(-0.1)),  # underconfident: less
        (-1.0, False, -math.exp(-0.9)),  # a negative gamma comes closer to 0 when overconfident
        (-1.0, True, -math.exp(0.1)),
        (0.21, True, -0.2),  # 0.19 < 0.2: to the inverse focal loss
        (-0.3, False, 0.2),  # and back
        (19.0, False, 20.0),
        (-1.9, True, -2.0),
    ],
)
def test_the_rule_of_adafocal_for_one_bin(gamma: float, hit: bool, expected: float) -> None:
    close(updated([gamma], [0.9, 0.9], [hit, hit]).gammas, exact([expected]), atol=1e-8)


def test_adafocal_on_a_validation_set_by_hand() -> None:
    """Three bins of two samples: gaps .55 - .5, .7 - 1, .95 - 0."""
    hits = [True, False, True, True, False, False]
    loss = updated([1.0, -1.0, 2.0], [0.51, 0.59, 0.65, 0.75, 0.94, 0.96], hits, rate=2.0)
    expected = [math.exp(2 * 0.05), -math.exp(-2 * -0.3), 2 * math.exp(2 * 0.95)]
    close(loss.gammas, exact(expected))
    lower, upper = loss.edges.tolist()
    assert 0.59 < lower < 0.65 and 0.75 < upper < 0.94


def test_empty_bins_keep_their_gamma() -> None:
    """Where all confidences are the same, one bin holds all samples."""
    loss = updated([0.5, 0.6, 0.7], [0.8] * 6, [False] * 6)
    growth = loss.gammas / exact([0.5, 0.6, 0.7])
    close(growth.sort().values, exact([1.0, 1.0, math.exp(0.8)]))


def test_adafocal_state_goes_with_the_state_dict() -> None:
    z, y = some()
    z = z.float()
    trained = AdaFocalLoss(n_bins=5)
    trained.update(z, y)
    fresh = AdaFocalLoss(n_bins=5)
    assert fresh(z, y) != trained(z, y)
    fresh.load_state_dict(trained.state_dict())
    assert fresh(z, y) == trained(z, y)


def test_adafocal_starts_as_focal_with_gamma_1() -> None:
    z, y = some()
    close(AdaFocalLoss()(z, y), focal_loss(z, y, 1.0))
    close(AdaFocalLoss(gamma_init=0.0, generative=True)(z, y), generative_cross_entropy(z, y))


def test_a_sample_on_an_edge_and_the_ends() -> None:
    loss = AdaFocalLoss(n_bins=2, reduction="none")  # one edge, 1/2
    loss.gammas = torch.tensor([0.0, 1.0])
    z = torch.tensor([[0.0, 0.0], [-50.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.long)
    nll = F.cross_entropy(z, y, reduction="none")
    close(loss(z, y), torch.stack([0.5 * nll[0], nll[1], (1 - (-nll[2]).exp()) * nll[2]]))


# --- MIN-ENT and MIX-ENT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["min", "mix"])
def test_learned_weights_and_bases_stay_valid(kind: str) -> None:
    z, y = some()
    loss = EntropyLoss(kind, weights=(1.0, 0.5), log_bases=(2.0, 10.0))
    (raw,) = loss.parameters()
    optimiser = torch.optim.SGD(loss.parameters(), lr=5.0)
    for step in range(50):
        optimiser.zero_grad()
        value = loss(z, y)
        value.backward()
        if step == 0:
            assert raw.grad.all()  # every one of the four is learned
        optimiser.step()
        assert (F.softplus(raw) > 0).all() and value > 0
    assert value < EntropyLoss(kind, weights=(1.0, 0.5), log_bases=(2.0, 10.0))(z, y)


def test_fixed_weights_and_bases_are_no_parameters() -> None:
    loss = EntropyLoss("min", learnable=False)
    assert not list(loss.parameters()) and "raw" in loss.state_dict()


# --- Inputs at the limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_extreme_logits_make_no_nan(name: str, dtype: torch.dtype) -> None:
    """Certain and right, certain and wrong, +-1e4, masked classes: value and gradient are finite."""
    for case, (logits, targets) in EXTREME.items():
        z, y = logits.to(dtype), torch.tensor(targets)
        if z.shape[1] == 1 and "class_counts" in REGISTRY[name].options:
            continue  # nothing to balance
        loss = build(name, **required(name, z.shape[1]))
        # torch's own half-precision cross-entropy adds up in half precision, which ends at 65504.
        assert loss(z, y).isfinite() or (name == "ce" and dtype == torch.float16), case
        got = gradient(lambda v, t=y, f=loss: f(v, t), z)
        assert got.isfinite().all() and got.dtype == dtype, case


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "ce"])  # which is torch's own
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    """The value is rounded at the end if at all, the gradient once for each use of the logits."""
    z, y = some()
    z = z.to(dtype)
    options = required(name) | ({} if name in ("mmce", "mmce_w") else {"reduction": "sum"})
    loss = build(name, **options)
    value = loss(z, y)
    expected = loss(z.double(), y)
    rounding = torch.finfo(value.dtype).eps
    close(value.double(), expected, rtol=20 * torch.finfo(torch.float32).eps + 0.501 * rounding)
    expected = gradient(lambda v: loss(v, y), z.double())
    atol = 1.1 * torch.finfo(dtype).eps * expected.abs().max().item()
    close(gradient(lambda v: loss(v, y), z).double(), expected, atol=atol)


@pytest.mark.parametrize("name", REGISTRY)
def test_one_sample_and_none(name: str) -> None:
    z, y = some()
    loss = build(name, **required(name))
    assert loss(z[:1], y[:1]).isfinite()
    if name not in ("mmce", "mmce_w"):  # which belong to a batch, and have no value without one
        loss.reduction = "sum"
        empty = z[:0].clone().requires_grad_()
        value = loss(empty, y[:0])
        value.backward()
        assert value == 0 and empty.grad.shape == (0, K)


@pytest.mark.parametrize("name", REGISTRY)
def test_no_loss_changes_its_input(name: str) -> None:
    z, y = some()
    before = z.clone(), y.clone()
    loss = build(name, **required(name))
    gradient(lambda v: loss(v, y), z)
    assert torch.equal(z, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize("name", REGISTRY)
def test_strided_input(name: str) -> None:
    z, y = normal(K, 16).t(), labels(32)[::2]
    loss = build(name, **required(name))
    close(loss(z, y), loss(z.contiguous(), y.contiguous()))


@pytest.mark.parametrize("name", REGISTRY)
def test_rows_of_the_gradient_sum_to_zero(name: str) -> None:
    z, y = some()
    loss = build(name, **required(name))
    got = gradient(lambda v: loss(v, y), z)
    assert got.abs().max() > 1e-4
    close(got.sum(1), torch.zeros(len(z)))


@pytest.mark.parametrize("name", REGISTRY)
def test_bad_batches_raise(name: str) -> None:
    loss = build(name, **required(name))
    z, y = some()
    with pytest.raises(IndexError):
        loss(z, y.clone().fill_(K))
    with pytest.raises((ValueError, RuntimeError)):
        loss(z, y[:-1])
    with pytest.raises(ValueError, match="average"):
        loss.reduction = "average"
        loss(z, y)


BAD_OPTIONS: list[tuple[str, dict, str]] = [
    ("ce", {"smoothing_over": "some"}, "'some'"),
    ("ce", {"temperature": 0.0}, r"temperature.*0\.0"),
    ("ce", {"smoothing_over": "others", "label_smoothing": 0.8}, "0.8"),
    ("gence", {"strength": 1.5}, "1.5"),
    ("focal", {"gamma": -1.0}, r"gamma must be >= 0.*-1\.0"),
    ("inverse_focal", {"gamma": math.nan}, "gamma must be >= 0.*nan"),
    ("dual_focal", {"gamma": -2.0}, r"-2\.0"),
    ("gence_focal", {"gamma": -2.0}, r"-2\.0"),
    ("gence_focal", {"strength": -0.5}, r"-0\.5"),
    ("flsc", {"gammas": (5.0, 3.0)}, r"\(5\.0, 3\.0\)"),
    ("flsc", {"milestones": (250, 100)}, r"\(250, 100\)"),
    ("flsc", {"gammas": (5.0, 3.0, -1.0)}, r"-1\.0"),
    ("flsd_53", {"gammas": (5.0,)}, r"\(5\.0,\)"),
    ("flsd_53", {"gammas": (5.0, -3.0)}, r"-3\.0"),
    ("flsd_53", {"gammas": (5.0, 3.0, 1.0), "thresholds": (0.5, 0.2)}, r"\(0\.5, 0\.2\)"),
    ("adafocal", {"n_bins": 0}, "n_bins must be at least 1, but got 0"),
    ("adafocal", {"rate": -1.0}, r"rate.*-1\.0"),
    ("adafocal", {"switch": 0.0}, r"switch.*0\.0"),
    ("gence_adafocal", {"rate": math.inf}, "rate.*inf"),
    ("mmce", {"bandwidth": 0.0}, r"bandwidth.*0\.0"),
    ("mmce", {"reduction": "none"}, "'none'"),
    ("lq", {"q": 0.0}, r"q must.*0\.0"),
    ("lq", {"q": 1.1}, "1.1"),
    ("lq", {"truncation": 1.0}, r"truncation.*1\.0"),
    ("sce", {"log_zero": 0.0}, r"log_zero.*0\.0"),
    ("min_ent", {"weights": (1.0, 0.0)}, r"\(1\.0, 0\.0\)"),
    ("mix_ent", {"log_bases": (1.0, 2.0)}, r"\(1\.0, 2\.0\)"),
    ("logit_adjustment", {"class_counts": [1.0, 2.0]}, r"\[1\.0, 2\.0\]"),
    ("logit_adjustment", {"class_counts": [1.0, 0.0, 2.0, 3.0]}, r"\[1\.0, 0\.0"),
    ("class_balanced", {"class_counts": COUNTS, "beta": 1.0}, r"beta.*1\.0"),
    ("class_balanced", {"class_counts": [1.0, -1.0, 2.0, 3.0]}, r"-1\.0"),
]


@pytest.mark.parametrize(("name", "options", "named"), BAD_OPTIONS)
def test_bad_options_are_named(name: str, options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_loss(name, **options)(*some())


def test_adafocal_needs_validation_samples() -> None:
    with pytest.raises(ValueError, match="validation samples"):
        AdaFocalLoss().update(normal(0, K), labels(0))


def test_an_entropy_loss_of_another_kind() -> None:
    with pytest.raises(ValueError, match="'max'"):
        EntropyLoss("max")


# --- What the registry says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY)
def test_the_source_of_a_loss_is_in_the_bibliography(name: str) -> None:
    bibliography = (Path(__file__).parents[2] / "book" / "references.bib").read_text(encoding="utf-8")
    source = REGISTRY[name].source
    assert f"{{{source}," in bibliography, f"no entry {source!r} in book/references.bib"


def alone(loss: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of whole batches as a pointwise one: every sample is a batch."""
    return torch.vmap(lambda z, y: loss(z[None], y[None]))


def pointwise_form(name: str, n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    if name in ("mmce", "mmce_w"):
        return alone(make_loss(name))
    return make_loss(name, **required(name, n_classes))


# Without a past it is GenCE: see tests/theory/test_tax.py.
OTHERS_IN_A_WHOLE_BATCH = ("gence_tracked",)


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in OTHERS_IN_A_WHOLE_BATCH])
def test_the_verdict_on_propriety(name: str) -> None:
    """By a numeric search at the default options; "no" comes with a counterexample."""
    loss = pointwise_form(name, 3)
    found = propriety.is_strictly_proper(loss, 3, n_beliefs=8, n_starts=3)
    verdict = REGISTRY[name].proper
    if verdict == "strictly":
        assert found.strictly and found.converged
    elif verdict in ("if complete", "if all present"):  # complete tables leave no class out
        assert found.proper and not found.strictly
        assert propriety.is_strictly_proper(loss, 3, complete_only=True, n_beliefs=12, n_starts=3).strictly
    else:
        assert verdict in ("no", "after adjustment")
        assert not found.proper and found.gap > 1e-4
        risks = [propriety.conditional_risk(loss, p, found.belief) for p in (found.minimiser, found.belief)]
        assert risks[0] < risks[1] - 1e-4  # the counterexample stands without the search


def test_logit_adjustment_is_proper_after_the_adjustment() -> None:
    pi = np.array(COUNTS) / sum(COUNTS)
    for tau in (0.5, 1.0):
        loss = make_loss("logit_adjustment", class_counts=COUNTS, tau=tau)
        for belief in ([0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]):
            adjusted = propriety.find_minimisers(loss, belief, n_starts=4).best * pi**tau
            assert np.abs(adjusted / adjusted.sum() - belief).max() < 1e-6


@pytest.mark.parametrize("name", REGISTRY)
def test_locality(name: str) -> None:
    """A local loss sees the true classes' probabilities only: spreading the rest anew does not change it."""
    z, y = some()
    if name == "present_class":  # cross-entropy, which is local, in a batch that holds all classes
        y = y % (K - 1)
    p = z.softmax(1)
    true = F.one_hot(y, K).bool()
    rest = normal(*z.shape, seed=5).softmax(1).masked_fill(true, 0.0)
    p_y = p[true][:, None]
    spread = torch.where(true, p, rest / rest.sum(1, keepdim=True) * (1 - p_y))
    loss = build(name, **required(name))
    change = (loss(spread.log(), y) - loss(z, y)).abs()
    assert change < 1e-12 if REGISTRY[name].local else change > 1e-4
