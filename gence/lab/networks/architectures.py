"""The architectures, each a plain module from normalised inputs to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MLP"]

_Maker = Callable[[int, int, int], nn.Module]  # from (input channels, width, stride)


class MLP(nn.Module):
    """Multi-layer perceptron with ReLU units: (N, ...) with `n_features` values a sample to logits (N, n_classes).

    Args:
        n_features: width of the input; samples of more dimensions, such as images, are flattened.
        n_classes: K.
        hidden: widths of the hidden layers; empty gives a linear model.

    Example:
        >>> MLP(64, 10)(torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """

    def __init__(self, n_features: int, n_classes: int, hidden: Sequence[int] = (64,)) -> None:
        """Build the layers with PyTorch's default initialisation; see the class."""
        super().__init__()
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.layers(x.flatten(1))


def _conv(c_in: int, c_out: int, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the image size at stride 1; no bias where BatchNorm follows and has one."""
    return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=bias)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]  # not in place: autograd, hooks and vmap see every value


class _GlobalHead(nn.Module):
    """Average each channel over a grid of `cells` x `cells` regions, then one linear layer."""

    def __init__(self, channels: int, n_classes: int, cells: int = 1) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.linear = nn.Linear(channels * cells**2, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


class SmallCNN(nn.Module):
    """Four 3x3 convolutions with BatchNorm, for CPUs: (N, C, H, W) to logits (N, K).

    Each layer doubles the channels and, after the first, works on half the side, so the later ones cost the same.
    """

    def __init__(self, in_channels: int, n_classes: int, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in zip((in_channels, *widths), widths, strict=False):
            layers += [_conv(c_in, c_out), *_norm_relu(c_out), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers[:-1])  # the head averages what is left instead
        self.head = _GlobalHead(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class VGG5(nn.Module):
    """VGG-5: four groups of 3x3 convolutions and a classifier with dropout, (N, C, H, W) to logits (N, K).

    There are 10 convolutions and 2 linear layers; the "5" is presumably the four groups and the classifier. The layers
    are those of the scripts of Kabir et al. (2023) for 28 x 28 letters, which the script of Ibraheem (2025) for MIN-ENT
    and MIX-ENT took over. There the last map is one pixel; here that of larger images is averaged, so the classifier
    stays the same. Kabir et al. drop with probability 0.5; the published script of Ibraheem leaves it to the command
    line, so the value behind his results is not known from it. Both leave 62 outputs for the 26 letters.
    """

    def __init__(self, in_channels: int, n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for group in ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256)):
            for c_out in group:
                layers += [_conv(width, c_out, bias=True), *_norm_relu(c_out)]
                width = c_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. (2016): every second pixel, and zeros for the new channels; it has no parameters."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def _projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    """Option B of He et al. (2016): a 1x1 convolution with BatchNorm."""
    return nn.Sequential(_conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class ResidualBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with F = `layers`, which end in BatchNorm; the shortcut only where the shape changes."""

    def __init__(self, layers: Sequence[nn.Module], c_in: int, c_out: int, stride: int, shortcut: _Maker) -> None:
        super().__init__()
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if stride == 1 and c_in == c_out else shortcut(c_in, c_out, stride)
        self.out_channels = c_out

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def basic_block(c_in: int, width: int, stride: int, shortcut: _Maker = _projection) -> ResidualBlock:
    """Two 3x3 convolutions (He et al. 2016, Figure 5 left)."""
    layers = [_conv(c_in, width, 3, stride), *_norm_relu(width), _conv(width, width), nn.BatchNorm2d(width)]
    return ResidualBlock(layers, c_in, width, stride, shortcut)


def bottleneck(c_in: int, width: int, stride: int) -> ResidualBlock:
    """1x1, 3x3 (with the stride) and 1x1 convolution to four times the width (He et al. 2016, Figure 5 right)."""
    layers = [_conv(c_in, width, 1), *_norm_relu(width), _conv(width, width, 3, stride), *_norm_relu(width)]
    layers += [_conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)]
    return ResidualBlock(layers, c_in, 4 * width, stride, _projection)


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU *before* each of two 3x3 convolutions, none after the addition (Zagoruyko & Komodakis 2016).

    Where the shape changes, the shortcut is a bare 1x1 convolution of the activated input.
    """

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(*_norm_relu(c_in))
        self.residual = nn.Sequential(_conv(c_in, width, 3, stride), *_norm_relu(width), _conv(width, width))
        self.projection = None if stride == 1 and c_in == width else _conv(c_in, width, 1, stride)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        return self.residual(activated) + (x if self.projection is None else self.projection(activated))


class ResNet(nn.Module):
    """Residual network with a 3x3 stem and no max-pooling: (N, C, H, W) to logits (N, K).

    Args:
        in_channels: C.
        n_classes: K.
        block: makes a block from (input channels, width, stride).
        stem: channels after the first convolution.
        widths: of the blocks of each stage; every stage but the first halves the image side.
        depths: blocks of each stage.
        cells: the last map is averaged over `cells` x `cells` regions.
        preactivation: the blocks activate their input themselves, so BatchNorm and ReLU move from the stem to the end.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        block: _Maker,
        stem: int,
        widths: Sequence[int],
        depths: Sequence[int],
        cells: int = 1,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        layers = [_conv(in_channels, stem), *([] if preactivation else _norm_relu(stem))]
        channels = stem
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                layers.append(block(channels, width, 2 if stage > 0 and i == 0 else 1))
                channels = layers[-1].out_channels
        self.features = nn.Sequential(*layers, *(_norm_relu(channels) if preactivation else []))
        self.head = _GlobalHead(channels, n_classes, cells)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class DenseLayer(nn.Module):
    """Append `growth` channels to the input: BatchNorm, ReLU, 1x1 to 4 * growth, BatchNorm, ReLU, 3x3 to growth."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.new = nn.Sequential(
            *_norm_relu(c_in), _conv(c_in, 4 * growth, 1), *_norm_relu(4 * growth), _conv(4 * growth, growth)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


class DenseNet(nn.Module):
    """DenseNet-BC with a 3x3 stem and no max-pooling (Huang et al. 2017): (N, C, H, W) to logits (N, K).

    Args:
        in_channels: C.
        n_classes: K.
        depths: layers of each dense block; between blocks a transition halves the channels and the image side.
        growth: channels that a layer adds.
    """

    def __init__(
        self, in_channels: int, n_classes: int, depths: Sequence[int] = (6, 12, 24, 16), growth: int = 32
    ) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [_conv(in_channels, channels)]
        for block, depth in enumerate(depths):
            if block > 0:
                layers += [*_norm_relu(channels), _conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
                channels //= 2
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*layers, *_norm_relu(channels))
        self.head = _GlobalHead(channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
