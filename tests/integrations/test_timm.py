"""GenCELoss with timm: a tiny untrained model, and the mixed labels of its Mixup."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from training_code import Counting, close, gradient, gradient_of, needs, plain_gence

from gence import GenCELoss
from gence.samplers import EvenBatchSampler

timm = needs("timm")
Mixup = needs("timm.data", "timm").Mixup
SoftTargetCrossEntropy = needs("timm.loss", "timm").SoftTargetCrossEntropy

CLASSES, SIZE = 4, 32


def model() -> nn.Module:
    """A vision transformer of one block, without dropout; the same in every call."""
    torch.manual_seed(0)
    sizes = {"img_size": SIZE, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=CLASSES, **sizes).double()


def images(n: int) -> tuple[Tensor, Tensor]:
    """Noise, with a class's own brightness in each quarter."""
    random = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (n,), generator=random)
    x = torch.randn(n, 3, SIZE, SIZE, dtype=torch.float64, generator=random)
    x[:, :, : SIZE // 2] += 2.0 * (y % 2)[:, None, None, None]
    x[:, :, :, : SIZE // 2] += 2.0 * (y // 2)[:, None, None, None]
    return x, y


def mixed(x: Tensor, y: Tensor, **options) -> tuple[Tensor, Tensor]:
    """Mixed images and labels; the images given stay as they are."""
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=CLASSES, **options)
    return mix(x.clone(), y)


@pytest.mark.parametrize("options", [{}, {"mode": "elem"}, {"label_smoothing": 0.1}, {"prob": 0.0}], ids=str)
def test_mixed_labels_go_in_as_they_are(options: dict) -> None:
    x, q = mixed(*images(8), **{"label_smoothing": 0.0} | options)
    assert q.shape == (8, CLASSES) and q.is_floating_point()
    net = model()
    value = GenCELoss()(net(x), q)
    value.backward()
    q = q.double()  # timm mixes in single precision, so that its rows sum to one up to 1e-7
    close(value.detach(), plain_gence(model()(x), q).detach(), atol=1e-6)
    close(gradient(net), gradient_of(lambda m: plain_gence(m(x), q), model()), atol=1e-6)


def test_strength_0_is_the_loss_of_timm() -> None:
    x, q = mixed(*images(8))
    z = model()(x).detach()
    theirs = SoftTargetCrossEntropy()(z, q)
    close(GenCELoss(strength=0.0)(z, q), theirs, atol=1e-6)
    close(GenCELoss()(z, q) - theirs, (q.double() @ z.softmax(1).sum(0).log()).mean(), atol=1e-6)


def test_labels_smoothed_by_mixup_are_those_smoothed_by_the_loss() -> None:
    """So smooth in one of the two."""
    x, y = images(8)
    z = model()(x).detach()
    _, q = mixed(x, y, prob=0.0, label_smoothing=0.1)
    close(GenCELoss()(z, q), GenCELoss(label_smoothing=0.1)(z, y), atol=1e-6)


def test_training_with_mixup_lowers_the_loss() -> None:
    torch.manual_seed(0)
    x, y = images(32)
    net, criterion, mix = model(), Counting(), Mixup(mixup_alpha=0.2, num_classes=CLASSES)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(x, y), batch_sampler=EvenBatchSampler(RandomSampler(y), batch_size=16))
    for _ in range(15):
        for a, b in loader:
            a, q = mix(a, b)
            optimiser.zero_grad()
            criterion(net(a), q).backward()
            optimiser.step()
    assert criterion.sizes == [16] * 30
    with torch.no_grad():
        before, after = (plain_gence(m.eval()(x), y) for m in (model(), net))
    assert after < before - 0.1


def test_mixup_wants_batches_of_even_numbers() -> None:
    """Batches of even size need not hold an even number: 50 samples in batches of at most 16 are 13, 13, 12, 12."""
    with pytest.raises(AssertionError, match="even"):
        mixed(*images(13))
