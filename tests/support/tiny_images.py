"""Small images and a small convolutional network for the tests of the training; importable by their processes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gence.lab.data import Splits, load_splits


def digit_images(seed: int = 0, n_per_class: int = 5, n_held_out: int = 60) -> Splits:
    """scikit-learn's digits as uint8 images (n, 1, 8, 8), under names that are no characters."""
    flat = load_splits("digits", seed, n_per_class=n_per_class)

    def images(x: np.ndarray) -> np.ndarray:
        return np.rint(x * 255).astype(np.uint8).reshape(-1, 1, 8, 8)

    rows = np.random.default_rng(seed).permutation(len(flat.y_val))[:n_held_out]
    return Splits(
        images(flat.x_train),
        flat.y_train,
        images(flat.x_val[rows]),
        flat.y_val[rows],
        images(flat.x_test[rows]),
        flat.y_test[rows],
        tuple(f"digit {name}" for name in flat.class_names),
        mean=(0.3,),
        std=(0.4,),
    )


def small_cnn(seed: int = 0, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Convolution, batch normalisation, dropout: all that makes training and evaluation differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(96, 10)).to(dtype)
