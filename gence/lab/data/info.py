"""What is known about each data set, and how to get it."""

from __future__ import annotations

from dataclasses import dataclass

from gence.lab.storage import data_folder

__all__ = ["INFO", "DatasetInfo", "how_to_bring", "not_found"]


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is and where it comes from.

    Attributes:
        name: as ``gence.lab.data.load_splits`` takes it.
        title: what it is, in a few words.
        n_train: samples to learn from as distributed; the validation samples are taken out of them.
        n_test: samples of the official test set; 0 where there is none and the seed draws one.
        shape: of a sample, (C, H, W) or (D,).
        n_classes: K.
        smallest_class: samples to learn from in the smallest class; 0 where that is not known in advance.
        source: key in ``book/references.bib``; empty for the user's own data.
        licence: what its distributor says about its use.
        files: what lies in :func:`data_folder`; where there are two, the second serves the test set.
        megabytes: of the download; 0 where there is none.
        held_out: shares of each class that become test and validation set; the first is 0 with an official test set.
        mean: of the pixels in [0, 1] of all training images, where published; otherwise it is computed.
        std: as `mean`: the deviation of all pixels of a channel. Some recipes use the mean over the images of each
            image's own deviation instead (0.2023, 0.1994, 0.2010 for CIFAR-10).
        balanced: whether all classes are cut to the same size when no regime is asked for.
        standardise: whether features get mean 0 and deviation 1 over the training samples.
        note: what a reader of results must know.

    Example:
        >>> info = INFO["cifar10"]
        >>> info.n_train, info.n_test, info.shape, info.official_test
        (50000, 10000, (3, 32, 32), True)
    """

    name: str
    title: str
    n_train: int
    n_test: int
    shape: tuple[int, ...]
    n_classes: int
    smallest_class: int
    source: str
    licence: str
    files: tuple[str, ...] = ()
    megabytes: int = 0
    held_out: tuple[float, float] = (0.0, 0.1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    balanced: bool = False
    standardise: bool = False
    note: str = ""

    @property
    def official_test(self) -> bool:
        """Whether the test set is the distributor's, the same for every seed."""
        return self.n_test > 0


def how_to_bring(name: str) -> str:
    """Say how the user's own data become a data set of a name.

    Example:
        >>> how_to_bring("mine").startswith("To bring your own data, write mine.npz ")
        True
    """
    root = data_folder()
    where = f"{root}, the folder that GENCE_DATA names" + ("" if root.is_dir() else " (there is no such folder yet)")
    others = sorted(path.name for path in root.glob("*") if path.stem == name and path.suffix != ".npz")
    instead = f" {others[0]} is there, but only .npz files are read." if others else ""
    return (
        f"To bring your own data, write {name}.npz with the arrays x_train, y_train, x_test, y_test (and class_names) "
        f"into {where}.{instead} For folders of images: python -m gence.lab.data FOLDER {root / name}.npz"
    )


def not_found(name: str) -> FileNotFoundError:
    """Say that a data set is not there, and how to get it.

    Example:
        >>> str(not_found("svhn")).startswith("'svhn' is not in ")
        True
    """
    info, root = INFO[name], data_folder()
    instead = f" or {name}.npz" if info.n_train and info.official_test else ""
    return FileNotFoundError(
        f"{name!r} is not in {root}. {how_to_get(info)} Or let the environment variable GENCE_DATA name the folder "
        f"that holds {' and '.join(info.files)}{instead}."
    )


def how_to_get(info: DatasetInfo) -> str:
    if info.megabytes:
        return f"Download it once ({info.megabytes:,} MB): python -m gence.lab.data --download {info.name}."
    return f"{info.note}"


# fmt: off
INFO = {info.name: info for info in (
    DatasetInfo(
        "digits", "handwritten digits, 8 x 8", n_train=1797, n_test=0, shape=(64,), n_classes=10, smallest_class=174,
        source="alpaydin1998digits", licence="CC BY 4.0", held_out=(0.30, 0.15), balanced=True,
        note="Inside scikit-learn, which has the 1,797 test images of the 5,620 of the original.",
    ),
    DatasetInfo(
        "cifar100_features", "features of the photographs of cifar100, by a network trained on ImageNet",
        n_train=50_000, n_test=10_000, shape=(64,), n_classes=100, smallest_class=500,
        source="krizhevsky2009learning", licence="of the images: as cifar100; of the network: Apache 2.0",
        note="Shipped with the lab: EfficientNet-Lite0 at 96 pixels, 64 principal components of the training set in "
        "one byte each. What is learned from them is transfer from ImageNet.",
    ),
    DatasetInfo(
        "cifar10", "small colour photographs of 10 kinds of things", n_train=50_000, n_test=10_000, shape=(3, 32, 32),
        n_classes=10, smallest_class=5000, source="krizhevsky2009learning",
        licence="no formal licence; the author asks to be cited", files=("cifar-10-batches-py",), megabytes=170,
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
    ),
    DatasetInfo(
        "cifar100", "small colour photographs of 100 kinds of things", n_train=50_000, n_test=10_000,
        shape=(3, 32, 32), n_classes=100, smallest_class=500, source="krizhevsky2009learning",
        licence="no formal licence; the author asks to be cited", files=("cifar-100-python",), megabytes=169,
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),
        note="The fine labels. Some test images are in the training set too.",
    ),
    DatasetInfo(
        "svhn", "house numbers, cut to one digit", n_train=73_257, n_test=26_032, shape=(3, 32, 32), n_classes=10,
        smallest_class=4659, source="netzer2011reading", licence="for non-commercial use only",
        files=("train_32x32.mat", "test_32x32.mat"), megabytes=246,
        mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970),
        note="Classes of different sizes. Without the 531,131 easier extra images.",
    ),
    DatasetInfo(
        "emnist_letters", "handwritten letters, capital and small ones in one class", n_train=124_800, n_test=20_800,
        shape=(1, 28, 28), n_classes=26, smallest_class=4800, source="cohen2017emnist",
        licence="none stated with the files; made from NIST Special Database 19", files=("EMNIST/raw",), megabytes=562,
        note="Turned upright here; the files hold the images transposed.",
    ),
    DatasetInfo(
        "mnist", "handwritten digits, 28 x 28", n_train=60_000, n_test=10_000, shape=(1, 28, 28), n_classes=10,
        smallest_class=5421, source="lecun1998gradient", licence="none stated with the files", files=("MNIST/raw",),
        megabytes=12, mean=(0.1307,), std=(0.3081,), note="Classes of different sizes.",
    ),
    DatasetInfo(
        "fashion_mnist", "grey pictures of 10 kinds of clothes", n_train=60_000, n_test=10_000, shape=(1, 28, 28),
        n_classes=10, smallest_class=6000, source="xiao2017fashion", licence="MIT", files=("FashionMNIST/raw",),
        megabytes=31, mean=(0.2860,), std=(0.3530,),
    ),
    DatasetInfo(
        "tiny_imagenet", "200 classes of ImageNet, reduced to 64 x 64", n_train=100_000, n_test=10_000,
        shape=(3, 64, 64), n_classes=200, smallest_class=500, source="le2015tiny",
        licence="as ImageNet: non-commercial research and education", files=("tiny-imagenet-200",), megabytes=248,
        mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821),
        note="The test set here is the official validation set: the official test images have no public labels.",
    ),
    DatasetInfo(
        "cifar10_c", "the test images of cifar10 under 19 corruptions of 5 severities", n_train=0, n_test=10_000,
        shape=(3, 32, 32), n_classes=10, smallest_class=0, source="hendrycks2019benchmarking", licence="CC BY 4.0",
        files=("CIFAR-10-C",), megabytes=2918, note="For testing only: read it with cifar10_c(corruption, severity).",
    ),
    DatasetInfo(
        "av1451", "tau PET scans of ADNI, 68 regional uptakes: the user's own table", n_train=1080, n_test=0,
        shape=(68,), n_classes=3, smallest_class=0, source="weiner2017adni3",
        licence="ADNI's data use agreement; may not be passed on", files=("av1451.csv",), held_out=(0.1, 0.1),
        standardise=True,
        note="Apply for the scans at https://adni.loni.usc.edu and write av1451.csv: columns subject, diagnosis (CN, "
        "MCI or AD) and 68 regional uptakes. For a try without them use av1451_synthetic.",
    ),
    DatasetInfo(
        "av1451_synthetic", "invented numbers in the shape of av1451, no patients", n_train=1080, n_test=0,
        shape=(68,), n_classes=3, smallest_class=0, source="", licence="MIT, as this book", held_out=(0.1, 0.1),
        standardise=True,
        note="Tuned to be as hard for an MLP with cross-entropy as the paper's scans; says nothing about real scans.",
    ),
)}
# fmt: on
