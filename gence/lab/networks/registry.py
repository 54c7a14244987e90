"""The networks by name: what is known of each, and how it is built."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gence.lab.networks.architectures import (
    MLP,
    VGG5,
    DenseNet,
    PreActivationBlock,
    ResNet,
    SmallCNN,
    ZeroPadShortcut,
    basic_block,
    bottleneck,
)
from gence.words import nearest

__all__ = ["ModelInfo", "flops", "make_model", "model_info", "model_names", "parameter_count"]


@dataclass(frozen=True)
class ModelInfo:
    """What a network is and what was published about it.

    Attributes:
        variant: what the name stands for here.
        sources: keys of the book's bibliography, the definition that we follow first.
        input_shape: (C, H, W) or (D,) that the published numbers are for.
        n_classes: K that they are for.
        smallest: smallest allowed image height and width; 0 for models that take any features.
        he_init: ``"fan_in"`` or ``"fan_out"`` of the He initialisation of the convolutions, None for PyTorch's default.
        parameters: published number of parameters in millions, None where none was published.
        gflops: published GFLOP of one forward pass (2 per multiply-add), None where none was published.
        published_in: where these two were published.
    """

    variant: str
    sources: tuple[str, ...]
    input_shape: tuple[int, ...]
    n_classes: int = 10
    smallest: int = 0
    he_init: str | None = None
    parameters: float | None = None
    gflops: float | None = None
    published_in: str = ""
    _build: Callable[[int, int], nn.Module] = field(default=MLP, repr=False)


_CIFAR, _TINY_IMAGENET = (3, 32, 32), (3, 64, 64)
_four_stages = partial(ResNet, stem=64, widths=(64, 128, 256, 512))
_resnet50 = partial(_four_stages, block=bottleneck, depths=(3, 4, 6, 3))
_resnet110_reference = partial(_four_stages, block=bottleneck, depths=(3, 4, 26, 3))
_wide = partial(ResNet, stem=16, widths=(160, 320, 640), depths=(4, 4, 4))


def _reference(
    build: Callable, variant: str, source: str, parameters: float, gflops: float, smallest: int = 8, **options
) -> ModelInfo:
    """A network of the reference code for CIFAR-10."""
    published_in = "counted on the reference code (focal_calibration, commit 475422a)"
    numbers = {"parameters": parameters, "gflops": gflops, "published_in": published_in}
    return ModelInfo(
        variant, ("mukhoti2020calibrating", source), _CIFAR, 10, smallest, _build=build, **numbers, **options
    )


def _tiny(build: Callable, depths: str) -> ModelInfo:
    """A ResNet of the reference code for Tiny-ImageNet: other pooling and initialisation than its CIFAR twin."""
    variant = f"reference code for Tiny-ImageNet: bottleneck blocks {depths}, last map averaged in 2 x 2 cells"
    sources = ("mukhoti2020calibrating", "he2016deep")
    return ModelInfo(variant, sources, _TINY_IMAGENET, 200, 16, "fan_out", _build=partial(build, cells=2))


def _he(depth: int, parameters: float) -> ModelInfo:
    """A CIFAR ResNet of He et al. (2016) with `depth` = 6n + 2 layers."""
    n = (depth - 2) // 6
    variant = f"6n + 2 layers with n = {n}: basic blocks, option A shortcuts"
    block = partial(basic_block, shortcut=ZeroPadShortcut)
    build = partial(ResNet, block=block, stem=16, widths=(16, 32, 64), depths=(n, n, n))
    table = "He et al. (2016), Table 6"
    return ModelInfo(variant, ("he2016deep",), _CIFAR, 10, 4, "fan_in", parameters, published_in=table, _build=build)


_MODELS: dict[str, ModelInfo] = {
    "mlp": ModelInfo("one hidden layer of 64 ReLU units", (), (64,)),
    "mlp_256": ModelInfo("one hidden layer of 256 ReLU units", (), (64,), _build=partial(MLP, hidden=(256,))),
    "linear": ModelInfo("logistic regression", (), (64,), _build=partial(MLP, hidden=())),
    "small_cnn": ModelInfo("four convolutions, for CPUs; defined here", (), _CIFAR, 10, 8, _build=SmallCNN),
    "small_cnn_half": ModelInfo(
        "small_cnn with half the channels", (), _CIFAR, 10, 8, _build=partial(SmallCNN, widths=(16, 32, 64, 128))
    ),
    "vgg5": ModelInfo(
        "10 convolutions in four groups and a classifier with dropout 0.5, for EMNIST-Letters",
        ("kabir2023spinalnet", "ibraheem2025minent", "simonyan2015very"),
        (1, 28, 28),
        n_classes=26,
        smallest=16,
        he_init="fan_out",
        _build=VGG5,
    ),
    "resnet18": _reference(
        partial(_four_stages, block=basic_block, depths=(2, 2, 2, 2)),
        "basic blocks [2, 2, 2, 2]",
        "he2016deep",
        11.2,
        1.11,
    ),
    "resnet50": _reference(_resnet50, "bottleneck blocks [3, 4, 6, 3]", "he2016deep", 23.5, 2.60),
    "resnet110_reference": _reference(
        _resnet110_reference,
        "called ResNet-110: bottleneck blocks [3, 4, 26, 3] of width 64 to 512",
        "he2016deep",
        45.9,
        5.45,
    ),
    "resnet50_tiny": _tiny(_resnet50, "[3, 4, 6, 3]"),
    "resnet110_tiny": _tiny(_resnet110_reference, "[3, 4, 26, 3]"),
    "resnet20_he": _he(20, 0.27),
    "resnet56_he": _he(56, 0.85),
    "resnet110_he": _he(110, 1.7),
    "wrn28_10": ModelInfo(
        "WRN-28-10: pre-activation blocks, no dropout",
        ("zagoruyko2016wide",),
        _CIFAR,
        smallest=4,
        he_init="fan_in",
        parameters=36.5,
        published_in="Zagoruyko & Komodakis (2016), results on CIFAR",
        _build=partial(_wide, block=PreActivationBlock, preactivation=True),
    ),
    "wrn28_10_reference": _reference(
        partial(_wide, block=basic_block),
        "called Wide-ResNet (depth 26, width 10): post-activation basic blocks, no dropout",
        "zagoruyko2016wide",
        36.5,
        10.49,
        smallest=4,
        he_init="fan_out",
    ),
    "densenet121": _reference(DenseNet, "growth 32, 3x3 stem", "huang2017densely", 7.0, 1.78),
}


def model_names() -> tuple[str, ...]:
    """Return the names that :func:`make_model` knows.

    Example:
        >>> "mlp" in model_names()
        True
    """
    return tuple(_MODELS)


def model_info(name: str) -> ModelInfo:
    """Return what a network is, where it comes from, and its published size.

    Args:
        name: one of :func:`model_names`.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> info = model_info("resnet110_he")
        >>> info.parameters, info.published_in
        (1.7, 'He et al. (2016), Table 6')
    """
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}{nearest(name, _MODELS)} The models are: {', '.join(_MODELS)}.")
    return _MODELS[name]


def make_model(
    name: str,
    input_shape: int | Sequence[int],
    n_classes: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    *,
    device: str = "cpu",
) -> nn.Module:
    """Build a network whose initial weights depend on the seed alone.

    Args:
        name: one of :func:`model_names`.
        input_shape: shape of one sample: D or (D,) for flat features, (C, H, W) for images.
        n_classes: K.
        seed: fixes the initial weights, whatever torch's default precision; the global random state is left untouched.
        dtype: float64 by default: small models run in it on the CPU, so that runs agree to many digits. Image networks
            are normally built with ``torch.float32``.
        device: where the network goes; the weights are drawn on the CPU, so they are the same everywhere. ``"meta"``
            gives a network of shapes without weights, for counting.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: an unknown name; a shape that the network cannot take (the message names the smallest image that it
            can); fewer than 2 classes.

    Example:
        >>> a, b = (make_model("mlp", 4, 3, seed=7) for _ in range(2))
        >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        True
        >>> make_model("small_cnn", (3, 32, 32), 10, seed=0, dtype=torch.float32)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    info = model_info(name)
    shape = _checked_shape(name, info.smallest, input_shape)
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, but got {n_classes}")
    place = torch.device("meta" if device == "meta" else "cpu")
    with torch.random.fork_rng(devices=[]), place, _drawn_in_float32():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too, for good
        model = info._build(shape[0] if info.smallest else prod(shape), n_classes)
        if info.he_init is not None:
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode=info.he_init, nonlinearity="relu")
    return model.to(device, dtype)


@contextmanager
def _drawn_in_float32() -> Iterator[None]:
    """The weights are drawn in torch's default precision: another one, set elsewhere, would give other networks."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _as_tuple(input_shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = input_shape if isinstance(input_shape, Sequence) else (input_shape,)
    return tuple(operator.index(size) for size in sizes)


def _checked_shape(name: str, smallest: int, input_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = _as_tuple(input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape must hold sizes of at least 1, but got {input_shape!r}")
    if not smallest:
        return shape
    if len(shape) != 3:
        flat = ", ".join(other for other, info in _MODELS.items() if not info.smallest)
        raise ValueError(
            f"{name!r} takes images, so input_shape must be (C, H, W), but got {input_shape!r}. "
            f"Models for flat features are: {flat}."
        )
    if min(shape[1:]) < smallest:
        raise ValueError(
            f"{name!r} shrinks the image so often that it needs at least {smallest} x {smallest} pixels, but got "
            f"input_shape={shape}. Resize or pad the images, or take a model for smaller ones (mlp takes any size)."
        )
    return shape


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; running statistics of BatchNorm are not parameters.

    Example:
        >>> parameter_count(MLP(64, 10, hidden=()))
        650
    """
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, input_shape: int | Sequence[int]) -> int:
    """Count the floating-point operations of one forward pass of one sample: 2 for each multiply-add.

    Convolutions and linear layers count, without their biases; normalisation, activations and pooling do not.
    Nothing is computed: the count runs on shapes alone.

    Args:
        model: a network; left unchanged.
        input_shape: as in :func:`make_model`.

    Returns:
        FLOP; 1e9 of them are a GFLOP.

    Example:
        >>> flops(MLP(64, 10, hidden=(32,)), 64) == 2 * (64 * 32 + 32 * 10)
        True
    """
    state = {name: value.detach().to("meta", copy=True) for name, value in model.state_dict().items()}
    dtype = next(model.parameters()).dtype
    batch = 2  # BatchNorm in training mode refuses one value per channel
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(
            model, state, torch.empty(batch, *_as_tuple(input_shape), dtype=dtype, device="meta")
        )
    return counter.get_total_flops() // batch
