"""Properties of GenCE and of the whole family on random batches, with logits up to 1e4.

Hypothesis draws the seeds, so that a failure is found again and shrinks; numpy draws N_BATCHES batches from each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import close, gradient
from torch import Tensor

from gence.losses import REGISTRY, generative_cross_entropy, make_loss

N_BATCHES = 50
seeds = st.integers(0, 2**32 - 1)


def test_the_number_of_inputs() -> None:
    assert N_BATCHES * settings.get_profile("thorough").max_examples >= 10_000
    assert N_BATCHES * settings().max_examples >= 1_000


class Batch(NamedTuple):
    z: Tensor
    y: Tensor
    weight: Tensor | None
    options: dict
    rng: np.random.Generator

    @property
    def atol(self) -> float:
        """A few roundings of the largest differences of logits, which is what log p and the gradient hang on."""
        return 4 * torch.finfo(self.z.dtype).eps * max(4.0, float(self.z.abs().max()))


def batches(seed: int, dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)) -> list[Batch]:
    """Batches of 1 to 8 samples and 1 to 6 classes. Logits are multiples of 1/64, so that shifts are exact."""
    rng = np.random.default_rng(seed)
    drawn = []
    for i in range(N_BATCHES):
        n, n_classes = int(rng.integers(1, 9)), int(rng.integers(1, 7))
        scale = 10.0 ** rng.uniform(-1, 4)
        z = np.round(64 * rng.uniform(-scale, scale, (n, n_classes))) / 64
        weight = np.round(rng.uniform(0, 4, n_classes), 2) + 0.01 if rng.random() < 0.3 else None
        options = {
            "strength": float(rng.choice([0.0, 0.3, 1.0])),
            "label_smoothing": float(rng.choice([0.0, 0.0, 0.1])),
        }
        dtype = dtypes[i % len(dtypes)]
        drawn.append(
            Batch(
                torch.as_tensor(z).to(dtype),
                torch.as_tensor(rng.integers(0, n_classes, n)),
                None if weight is None else torch.as_tensor(weight).to(dtype),
                options,
                rng,
            )
        )
    return drawn


def gence(b: Batch, z: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The terms, and the gradient of their sum."""
    z = z.detach().requires_grad_()
    terms = generative_cross_entropy(z, y, weight, reduction="none", **b.options)
    return terms.detach(), torch.autograd.grad(terms.sum(), z)[0]


@given(seeds)
def test_gence_on_any_batch(seed: int) -> None:
    """Finite; rows of the gradient sum to 0; samples, classes and shifts of rows play the parts they should."""
    for b in batches(seed):
        terms, by_z = gence(b, b.z, b.y, b.weight)
        assert terms.isfinite().all() and by_z.isfinite().all()
        atol = b.atol * (1 if b.weight is None else 4)
        close(by_z.sum(1), torch.zeros(len(b.z)), atol=atol)

        order = torch.as_tensor(b.rng.permutation(len(b.z)))
        moved, by_moved = gence(b, b.z[order], b.y[order], b.weight)
        close(moved, terms[order], atol=atol)
        close(by_moved, by_z[order], atol=atol)

        names = torch.as_tensor(b.rng.permutation(b.z.shape[1]))
        renamed, by_renamed = gence(
            b, b.z[:, names], names.argsort()[b.y], None if b.weight is None else b.weight[names]
        )
        close(renamed, terms, atol=atol)
        close(by_renamed, by_z[:, names], atol=atol)

        shift = torch.as_tensor(b.rng.integers(-1000, 1001, (len(b.z), 1))).to(b.z.dtype)
        shifted, by_shifted = gence(b, b.z + shift, b.y, b.weight)
        close(shifted, terms, atol=atol + 4 * torch.finfo(b.z.dtype).eps * 1000)
        close(by_shifted, by_z, atol=atol + 4 * torch.finfo(b.z.dtype).eps * 1000)


@given(seeds)
def test_gence_on_any_batch_is_its_formula(seed: int) -> None:
    for b in batches(seed):
        terms, by_z = gence(b, b.z, b.y, b.weight)
        expected = references.generative_cross_entropy(b.z, b.y, b.weight, **b.options)
        atol = b.atol * (1 if b.weight is None else 4)
        close(terms.double(), expected.terms, atol=atol)
        close(by_z.double(), expected.gradient, atol=atol)


@given(seeds)
def test_the_family_on_any_batch(seed: int) -> None:
    """Each batch goes to the next loss of the registry."""
    for i, b in enumerate(batches(seed, (torch.float64,))):
        name = list(REGISTRY)[(seed + i) % len(REGISTRY)]
        counts = {"class_counts": list(b.rng.uniform(1, 100, b.z.shape[1]))}
        loss = make_loss(name, **counts if "class_counts" in REGISTRY[name].options else {})
        value = loss(b.z, b.y)
        by_z = gradient(lambda z, y=b.y, f=loss: f(z, y), b.z)
        assert value.isfinite() and by_z.isfinite().all(), name
        atol = 10 * b.atol
        close(by_z.sum(1), torch.zeros(len(b.z)), atol=atol)
        order = torch.as_tensor(b.rng.permutation(len(b.z)))
        close(loss(b.z[order], b.y[order]), value, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_batches_reach_the_limits(dtype: torch.dtype) -> None:
    """The properties above would say little about tame logits."""
    drawn = [b for seed in range(5) for b in batches(seed) if b.z.dtype == dtype]
    assert max(float(b.z.abs().max()) for b in drawn) > 5e3
    assert {len(b.z) for b in drawn} == set(range(1, 9)) and {b.z.shape[1] for b in drawn} == set(range(1, 7))
