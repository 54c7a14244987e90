"""GenCELoss as the criterion of a skorch classifier, alone and in a scikit-learn pipeline."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from training_code import CLASSES, EVEN, Counting, close, needs, network, plain_gence, samples, whole_loss

from gence import GenCELoss
from gence.samplers import EvenBatchSampler

skorch = needs("skorch")
pytestmark = pytest.mark.filterwarnings("ignore:GenCE got a batch")

SOFTMAX = partial(torch.softmax, dim=-1)


def even(data: Dataset, batch_size: int, **options) -> DataLoader:
    """What skorch calls in the place of DataLoader."""
    return DataLoader(data, batch_sampler=EvenBatchSampler(RandomSampler(data), batch_size), **options)


def classifier(**options) -> skorch.NeuralNetClassifier:
    defaults = {"criterion": GenCELoss, "lr": 0.5, "batch_size": 16, "max_epochs": 5, "train_split": None, "verbose": 0}
    return skorch.NeuralNetClassifier(network, predict_nonlinearity=SOFTMAX, **defaults | options)


def arrays(n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    x, y = samples(n)
    return x.numpy(), y.numpy()


def test_a_fit_takes_the_steps_of_a_plain_loop() -> None:
    x, y = samples(32)
    net = classifier(max_epochs=2).fit(*arrays(32))
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        for a, b in zip(x.split(16), y.split(16), strict=True):
            optimiser.zero_grad()
            plain_gence(model(a), b).backward()
            optimiser.step()
    for found, expected in zip(net.module_.parameters(), model.parameters(), strict=True):
        close(found.detach(), expected.detach())


def test_training_in_even_batches_lowers_the_loss() -> None:
    net = classifier(criterion=Counting, iterator_train=even).fit(*arrays())
    assert net.criterion_.sizes == EVEN * 5
    assert whole_loss(net.module_) < whole_loss(network()) - 0.1


def test_without_the_sampler_an_epoch_ends_in_a_batch_of_two() -> None:
    net = classifier(criterion=Counting, max_epochs=1).fit(*arrays())
    assert net.criterion_.sizes == [16, 16, 16, 2]


def test_in_a_pipeline_with_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), classifier(iterator_train=even, max_epochs=20))
    x, y = arrays(150)
    accuracy = cross_val_score(pipeline, x, y, cv=3)
    nll = -cross_val_score(pipeline, x, y, cv=3, scoring="neg_log_loss")
    assert accuracy.min() > 0.6
    assert nll.max() < np.log(CLASSES) - 0.05, "better than a guess"


def test_options_of_the_criterion_can_be_searched() -> None:
    net = classifier(criterion__strength=0.5).fit(*arrays())
    assert net.criterion_.strength == 0.5
    assert net.set_params(criterion__label_smoothing=0.1).initialize().criterion_.label_smoothing == 0.1


def test_class_weights_are_an_option_too() -> None:
    net = classifier(criterion__weight=torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)).fit(*arrays())
    assert "weight" in dict(net.criterion_.named_buffers())


def test_skorch_knows_the_softmax_of_torch_losses_only() -> None:
    """Without `predict_nonlinearity`, predict_proba returns logits, and says nothing."""
    x, y = arrays()
    for criterion, nonlinearity, are_probabilities in (
        (nn.CrossEntropyLoss, "auto", True),
        (GenCELoss, "auto", False),
        (GenCELoss, SOFTMAX, True),
    ):
        net = skorch.NeuralNetClassifier(
            network, criterion=criterion, predict_nonlinearity=nonlinearity, train_split=None, verbose=0
        )
        p = net.fit(x, y).predict_proba(x)
        assert (np.abs(p.sum(1) - 1).max() < 1e-6) == are_probabilities


def test_the_validation_loss_has_a_floor() -> None:
    """Skorch reports it; a perfect classifier would not reach 0."""
    net = classifier(train_split=skorch.dataset.ValidSplit(5), max_epochs=20).fit(*arrays())
    counts = np.bincount([y for _, y in net.get_split_datasets(*arrays())[1]], minlength=CLASSES)
    floor = sum(n / counts.sum() * np.log(n) for n in counts if n)
    assert floor > 1.0
    assert min(net.history[:, "valid_loss"]) >= floor


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_labels_of_any_integer_type(dtype: type) -> None:
    x, y = arrays()
    assert np.isfinite(classifier(max_epochs=1).fit(x, y.astype(dtype)).history[-1, "train_loss"])
