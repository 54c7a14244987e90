"""Data sets by name, their small, long-tailed and noisy variants, and splits that a seed fixes.

A split depends on the data set, the seed and the regime only, never on the loss or the model: runs that differ in
the loss alone see the same training, validation and test samples, so their results can be compared in pairs.

Files lie in the folder that the environment variable ``GENCE_DATA`` names (default: ``data`` in the current folder),
where torchvision puts them. Nothing is downloaded unless asked for::

    python -m gence.lab.data --download cifar10     # fetch, with checksums
    python -m gence.lab.data --pack tiny_imagenet   # write tiny_imagenet.npz: one file that loads faster
    python -m gence.lab.data --features cifar100    # write cifar100_efficientnet_lite0_96.npz: features of its images
    python -m gence.lab.data PICTURES data/mine.npz # PICTURES/{train,test}/<class>/*.png|jpg; then use the name "mine"

A file ``NAME.npz`` in that folder stands for the data set NAME: the user's own, or an image data set listed here. A run
on it is known by the content of the file, unless ``--pack`` wrote it and nobody changed it. The file holds x_train,
y_train, x_test, y_test and, if wanted, class_names: uint8 images (n, H, W), (n, H, W, C) or (n, C, H, W), or features
(n, D); labels 0..K-1.

- ``info``: what is known of each data set. ``readers``: the published files. ``arrays``: contents, checked.
- ``files``: which file stands for a name. ``packing``: fetch, pack, a folder of images.
- ``regimes``: splits, small, long-tailed and noisy variants. ``shifted``: corrupted and foreign images.
- ``features``: images turned into features by a ``pretrained`` network. ``embedding`` makes of them the photographs
  that the lab brings along, cifar100_features, and those of noisy and of foreign images; ``embedded`` reads them.
"""

from __future__ import annotations

from gence.lab.data.arrays import Part, checked
from gence.lab.data.embedded import SHIFTED, read_shifted
from gence.lab.data.files import content, own_file, read_part
from gence.lab.data.info import INFO, DatasetInfo, how_to_bring, not_found
from gence.lab.data.packing import download, fetch, images_to_npz, pack
from gence.lab.data.readers import READERS
from gence.lab.data.regimes import (
    Selection,
    Splits,
    class_capacity,
    dataset_info,
    dataset_names,
    image_names,
    load_splits,
    long_tail_counts,
)
from gence.lab.data.shifted import CORRUPTIONS, GENERATED, cifar10_c, load_test_images
from gence.lab.storage import data_folder

__all__ = [
    "CORRUPTIONS",
    "GENERATED",
    "INFO",
    "READERS",
    "SHIFTED",
    "DatasetInfo",
    "Part",
    "Selection",
    "Splits",
    "checked",
    "cifar10_c",
    "class_capacity",
    "content",
    "data_folder",
    "dataset_info",
    "dataset_names",
    "download",
    "fetch",
    "how_to_bring",
    "image_names",
    "images_to_npz",
    "load_splits",
    "load_test_images",
    "long_tail_counts",
    "not_found",
    "own_file",
    "pack",
    "read_part",
    "read_shifted",
]
