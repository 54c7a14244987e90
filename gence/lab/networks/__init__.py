"""The networks, by name: each a plain module from normalised inputs to logits (N, K).

The calibration literature that this book compares with was measured on the networks of one code base, the *reference
code* (focal_calibration, Mukhoti et al. 2020), and some of these are not what their names say in the papers that
introduced them. Where the two differ, both are here under names of their own.

Initialisation. Linear layers, and every layer of ``linear``, ``mlp``, ``mlp_256``, ``small_cnn``, ``small_cnn_half``,
``resnet18``, ``resnet50``, ``resnet110_reference`` and ``densenet121``, keep PyTorch's default, uniform within 1 /
sqrt(fan-in); so does the reference code. The convolutions of the others are drawn as in He et al. (2015), normal with
variance 2 / fan: fan-in in ``resnet20_he``, ``resnet56_he``, ``resnet110_he`` and ``wrn28_10``, fan-out where the
source code does so (``wrn28_10_reference``, ``resnet50_tiny``, ``resnet110_tiny``, ``vgg5``). BatchNorm starts at scale
1 and shift 0.

Image networks work in any memory format (``.to(memory_format=torch.channels_last)``) and trace to one graph under
``torch.compile``. Build them with ``dtype=torch.float32``; the default, float64, is for small models on flat features.
"""

from __future__ import annotations

from gence.lab.networks.architectures import MLP, DenseLayer, PreActivationBlock, ResidualBlock, ZeroPadShortcut
from gence.lab.networks.registry import ModelInfo, flops, make_model, model_info, model_names, parameter_count

__all__ = [
    "MLP",
    "DenseLayer",
    "ModelInfo",
    "PreActivationBlock",
    "ResidualBlock",
    "ZeroPadShortcut",
    "flops",
    "make_model",
    "model_info",
    "model_names",
    "parameter_count",
]
