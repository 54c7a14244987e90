"""Features of images: the extraction with a stand-in for the network, and the photographs that the lab brings along."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

from gence.lab import data
from gence.lab.data import Splits, embedded, embedding, features, files, load_splits, pretrained
from gence.lab.data import __main__ as command_line
from gence.lab.data.features import extract_features, features_name
from gence.lab.data.pretrained import Pretrained, load_pretrained
from gence.lab.data.shifted import add_gaussian_noise
from gence.lab.networks import make_model
from gence.lab.runs import RunParameters

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.4, 0.25)
# Where the images of this machine lie, if it has any; the tests themselves see an empty folder.
IMAGES = Path(os.environ.get("GENCE_DATA") or "data").resolve()


class Body(nn.Module):
    """A stand-in: a convolution and a pooling, with weights from a seed; it counts the images it sees."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, stride=2)
        with torch.no_grad():
            for p in self.layer.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return F.relu(self.layer(x)).mean((2, 3))


def stand_in(seed: int = 0) -> Pretrained:
    return Pretrained("tiny", Body(seed).eval(), MEAN, STD)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    monkeypatch.setenv("GENCE_DATA", str(path))
    monkeypatch.setattr(features, "CHUNK", 7)
    monkeypatch.setattr(features, "PASS", 3)
    return path


def write_images(folder: Path, shape: tuple[int, ...] = (8, 6, 3), name: str = "mine", seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    arrays = {
        "x_train": rng.integers(0, 256, (30, *shape), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (12, *shape), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
        "class_names": np.array(["a", "b", "c"]),
    }
    np.savez(folder / f"{name}.npz", **arrays)
    return arrays


def by_hand(image: NDArray[np.uint8], network: Pretrained, size: int) -> NDArray:
    """Features of one image (H, W) or (H, W, 3), from the definition."""
    colour = np.asarray(Image.fromarray(image).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    pixels = (colour / 255 - np.array(MEAN)) / np.array(STD)
    x = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        return network.body(x)[0].numpy()


def made(path: Path) -> dict:
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


# --- extraction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 6, 3), (3, 8, 6), (8, 8), (40, 40, 3)], ids=str)
def test_features_are_those_of_each_image_alone(shape: tuple[int, ...], folder: Path) -> None:
    images, network = write_images(folder, shape), stand_in()
    path = extract_features("mine", network, 32, progress=False)
    assert path == folder / "mine_tiny_32.npz"
    found = made(path)
    for part in ("train", "test"):
        assert found[f"x_{part}"].dtype == np.float32 and found[f"x_{part}"].shape == (len(images[f"y_{part}"]), 5)
        np.testing.assert_array_equal(found[f"y_{part}"], images[f"y_{part}"])
        for row, image in zip(found[f"x_{part}"], images[f"x_{part}"], strict=True):
            image = image.transpose(1, 2, 0) if shape[0] == 3 else image
            np.testing.assert_allclose(row, by_hand(image, network, 32), atol=1e-5)
    assert [name for name in os.listdir(folder) if name not in ("mine.npz", path.name, f".{path.name}.lock")] == []


def test_features_are_a_data_set(folder: Path) -> None:
    write_images(folder)
    name = extract_features("mine", stand_in(), 32, progress=False).stem
    splits = load_splits(name, 0)
    assert splits.input_shape == (5,) and splits.class_names == ("a", "b", "c") and len(splits.y_test) == 12
    np.testing.assert_allclose(splits.x_train.mean(0), 0, atol=1e-12)
    assert RunParameters.of(dataset=name, model="mlp", n_per_class=5).identity


class Stop(Exception):
    pass


def test_an_interrupted_extraction_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(folder)
    whole = made(extract_features("mine", stand_in(), 32, progress=False))
    (folder / "mine_tiny_32.npz").unlink()
    network, write = stand_in(), features.replace_file

    def killed(path: Path, *arguments) -> None:
        if path.name == "0000021.npy":
            raise Stop
        write(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(features, "replace_file", killed)
        extract_features("mine", network, 32, progress=False)
    assert network.body.seen == 28, "four chunks were made, three were written"
    (chunk,) = folder.glob(".mine_tiny_32.train-*/0000007.npy")
    chunk.write_bytes(chunk.read_bytes()[:90])  # as a disk that was full would leave it
    again = stand_in()
    found = made(extract_features("mine", again, 32, progress=False))
    assert again.body.seen == 42 - 14, "two whole chunks of 7 were kept, the damaged one was not"
    assert found.keys() == whole.keys() and all(np.array_equal(found[key], whole[key]) for key in found)


def test_chunks_of_other_images_or_weights_are_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(folder)
    with monkeypatch.context() as patch:
        patch.setattr(features, "write_npz", lambda *arguments, **arrays: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            extract_features("mine", stand_in(), 32, progress=False)
    other = stand_in(seed=1)
    extract_features("mine", other, 32, progress=False)
    assert other.body.seen == 42
    (folder / "mine_tiny_32.npz").unlink()
    write_images(folder, seed=1)
    same = stand_in()
    extract_features("mine", same, 32, progress=False)
    assert same.body.seen == 42


def test_a_second_call_has_nothing_to_do(folder: Path) -> None:
    write_images(folder)
    path = extract_features("mine", stand_in(), 32, progress=False)
    stamp, network = path.stat().st_mtime_ns, stand_in()
    assert extract_features("mine", network, 32, progress=False) == path
    assert network.body.seen == 0 and path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("change", ["images", "labels", "weights"])
def test_features_of_something_else_are_not_overwritten(change: str, folder: Path) -> None:
    arrays = write_images(folder)
    path = extract_features("mine", stand_in(), 32, progress=False)
    before = path.read_bytes()
    if change == "images":
        write_images(folder, seed=1)
    if change == "labels":
        np.savez(folder / "mine.npz", **arrays | {"y_test": arrays["y_test"][::-1]})
    with pytest.raises(ValueError, match=r"is there already, and was not made from these images.*Remove it"):
        extract_features("mine", stand_in(seed=int(change == "weights")), 32, progress=False)
    assert path.read_bytes() == before


def test_the_file_says_what_it_was_made_from(folder: Path) -> None:
    write_images(folder)
    path = extract_features("mine", stand_in(), 32, progress=False)
    found = json.loads(str(made(path)["made_from"]))
    assert (found["dataset"], found["network"], found["size"], found["resize"]) == ("mine", "tiny", 32, "bicubic")
    assert found["weights"] == stand_in().weights != stand_in(seed=1).weights
    assert set(found["images"]) == {"train", "test"} and found["mean"] == list(MEAN) and found["std"] == list(STD)


def test_runs_know_features_by_what_they_were_made_from(folder: Path) -> None:
    """Another machine gives other last digits, and the same runs."""
    write_images(folder)
    path = extract_features("mine", stand_in(), 32, progress=False)
    known, arrays = data.content(path.stem), made(path)
    elsewhere = {key: value for key, value in arrays.items() if key != "features_sum"}
    elsewhere["x_train"] = np.nextafter(elsewhere["x_train"], np.float32(1))
    np.savez(path, **elsewhere, features_sum=files.sum_of(elsewhere))
    assert data.content(path.stem) == known
    path.unlink()
    extract_features("mine", stand_in(seed=1), 32, progress=False)
    assert data.content(path.stem) != known


@pytest.mark.parametrize("key", ["x_train", "y_test", "made_from"])
def test_features_that_were_changed_are_refused_with_the_fix(key: str, folder: Path) -> None:
    write_images(folder)
    path = extract_features("mine", stand_in(), 32, progress=False)
    arrays = made(path)
    arrays[key] = np.array("{}") if key == "made_from" else np.roll(arrays[key], 1, axis=0)
    np.savez(path, **arrays)
    for use in (lambda: load_splits(path.stem, 0), lambda: data.content(path.stem)):
        with pytest.raises(ValueError, match=r"checksum does not match.*Remove it and make it again: python -m gence"):
            use()


def test_images_that_have_features_are_not_looked_at_again(folder: Path) -> None:
    """The training images of CIFAR-10 and of its noises are the same: their features are made once."""
    rng = np.random.default_rng(0)
    y = {"train": np.arange(40) % 10, "test": np.arange(20) % 10}
    x = {part: rng.integers(0, 256, (len(y[part]), 32, 32, 3), dtype=np.uint8) for part in y}
    np.savez(folder / "cifar10.npz", x_train=x["train"], y_train=y["train"], x_test=x["test"], y_test=y["test"])
    with pytest.warns(UserWarning, match="call your results"):
        clean = made(extract_features("cifar10", stand_in(), 32, progress=False))
    network = stand_in()
    noisy_path = extract_features("cifar10_c:generated_gaussian_noise:5", network, 32, progress=False)
    noisy = made(noisy_path)
    assert noisy_path.name == "cifar10_c_generated_gaussian_noise_5_tiny_32.npz" and network.body.seen == 20
    np.testing.assert_array_equal(noisy["x_train"], clean["x_train"])
    assert np.abs(noisy["x_test"] - clean["x_test"]).max() > 1e-3
    splits = load_splits(noisy_path.stem, 0)
    np.testing.assert_array_equal(splits.x_train, load_splits("cifar10_tiny_32", 0).x_train)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"dataset": "digits"}, ValueError, "'digits' is no data set of images: it has features already"),
        ({"dataset": "cifar100_features"}, ValueError, "it has features already"),
        ({"dataset": "nothing"}, ValueError, "unknown dataset 'nothing'"),
        ({"dataset": "cifar10"}, FileNotFoundError, "--download cifar10"),
        ({"dataset": "mine:fog:1"}, ValueError, "corrupted images are named cifar10_c:CORRUPTION:SEVERITY"),
        ({"size": 31}, ValueError, r"size must lie in 32\.\.1024 pixels, but got 31"),
        ({"network": "resnet"}, ValueError, "unknown network 'resnet'; did you mean 'resnet50'"),
    ],
    ids=str,
)
def test_bad_calls_are_explained(call: dict, error: type, message: str, folder: Path) -> None:
    write_images(folder)
    with pytest.raises(error, match=message):
        extract_features(**{"dataset": "mine", "network": stand_in(), "size": 32, "progress": False} | call)
    assert [path.name for path in folder.iterdir()] == ["mine.npz"]


def test_a_network_that_gives_no_features_is_refused(folder: Path) -> None:
    write_images(folder)
    with pytest.raises(ValueError, match=r"gives shape \(3, 32, 32\) for an image, not \(D,\)"):
        extract_features("mine", Pretrained("maps", nn.Identity(), MEAN, STD), 32, progress=False)


def test_one_process_at_a_time(folder: Path) -> None:
    write_images(folder)
    with (
        features.FileLock(folder / ".mine_tiny_32.npz.lock"),
        pytest.raises(ValueError, match="another process is writing"),
    ):
        extract_features("mine", stand_in(), 32, progress=False)


def test_a_network_that_is_not_installed_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install -c constraints\.txt -e '\.\[features\]'"):
        load_pretrained("efficientnet_lite0", 96)


@pytest.mark.parametrize("name", [name for name in pretrained.NETWORKS if name != "efficientnet_lite0"])
def test_networks_of_torchvision_lose_their_classifier(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their weights, which would be a download."""
    from torchvision import models

    build = models.get_model
    monkeypatch.setattr(models, "get_model", lambda name, weights: build(name, weights=None))
    network = load_pretrained(name, 64)
    assert network.mean == (0.485, 0.456, 0.406) and not network.body.training
    width = {"resnet18": 512, "resnet50": 2048, "mobilenet_v3_large": 960, "efficientnet_b0": 1280}[name]
    assert network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, width)
    monkeypatch.setattr(models, "get_model", lambda name, weights: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(OSError, match=rf"weights of {name} could not be downloaded \(no network\)"):
        load_pretrained(name, 64)


def test_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    write_images(folder)
    monkeypatch.setitem(pretrained.NETWORKS, "tiny", lambda size: stand_in())
    command_line.main(["--features", "mine", "--network", "tiny", "--size", "40"])
    shown = capsys.readouterr()
    assert (
        f"wrote {folder / 'mine_tiny_40.npz'}: the data set mine_tiny_40" in shown.out and "mine_tiny_40" in shown.err
    )
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--features", "digits"])
    assert stop.value.code == 1 and "it has features already" in capsys.readouterr().err


def test_the_real_network_gives_the_embedded_features_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 photographs through EfficientNet-Lite0: as in the file of this machine, to 1e-3."""
    name = features_name("cifar100")
    missing = [n for n in ("cifar100", name) if not (IMAGES / f"{n}.npz").exists()]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not in {IMAGES}: python -m gence.lab.data --features cifar100 makes them")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra [features] is not installed")
    monkeypatch.setenv("GENCE_DATA", str(IMAGES))
    x, expected = data.read_part("cifar100", "test").x[:500], made(IMAGES / f"{name}.npz")
    network = load_pretrained("efficientnet_lite0", 96)
    made_from = json.loads(str(expected["made_from"]))
    assert made_from["weights"] == network.weights
    found = [network(torch.from_numpy(features.resized(x[i : i + 16], 96))).numpy() for i in range(0, 500, 16)]
    np.testing.assert_allclose(np.concatenate(found), expected["x_test"][:500], atol=1e-3)


# --- the photographs that the lab brings along ------------------------------------------------------------------


def checksum(splits: Splits) -> str:
    digest = hashlib.sha256()
    for array in (splits.x_train, splits.y_train, splits.x_val, splits.y_val, splits.x_test, splits.y_test):
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def test_the_embedded_photographs_are_all_of_cifar100() -> None:
    splits = load_splits("cifar100_features", 0)
    assert [len(splits.y_train), len(splits.y_val), len(splits.y_test)] == [45_000, 5_000, 10_000]
    assert splits.input_shape == (64,) and not splits.is_image and splits.x_train.dtype == splits.x_test.dtype == float
    assert splits.class_counts.tolist() == [450] * 100 and np.bincount(splits.y_test).tolist() == [100] * 100
    assert len(set(splits.class_names)) == 100 and list(splits.class_names) == sorted(splits.class_names)
    assert splits.class_names[0] == "apple" and splits.class_names[99] == "worm"
    assert data.class_capacity("cifar100_features") == 450
    assert data.content("cifar100_features") is None


def test_the_embedded_photographs_are_standardised_as_documented() -> None:
    x, x_test = (data.read_part("cifar100_features", part).x for part in ("train", "test"))
    assert x.std() == pytest.approx(1, abs=1e-9) and np.abs(x.mean(0)).max() < 0.01
    deviations = x.std(0)
    assert (np.diff(deviations) < 1e-3).all(), "principal components, the largest first"
    covariance = x.T @ x / len(x)
    np.testing.assert_allclose(covariance, np.diag(deviations**2), atol=0.01)
    assert 0.9 < x_test.std() < 1.1


@pytest.mark.parametrize(
    ("regime", "expected"),
    [
        ({"seed": 0}, "7ad97df885ee632a"),
        ({"seed": 7, "n_per_class": 100}, "a12280f846cfa087"),
        ({"seed": 19, "rho": 100.0}, "69ae0ece56d84f73"),
    ],
    ids=str,
)
def test_the_embedded_photographs_are_the_same_on_every_machine(regime: dict, expected: str) -> None:
    assert checksum(load_splits("cifar100_features", **regime)) == expected


def test_parts_of_the_embedded_photographs_do_not_overlap() -> None:
    splits = load_splits("cifar100_features", 3)
    rows = [splits.selection(part).rows for part in ("train", "val", "test")]
    assert len(np.union1d(rows[0], rows[1])) == 50_000 and rows[2].tolist() == list(range(10_000))
    train, val = splits.selection("train"), splits.selection("val")
    assert train.pool is val.pool and splits.selection("test").pool is not train.pool
    np.testing.assert_array_equal(load_splits("cifar100_features", 4).x_test, splits.x_test)


def test_the_embedded_file_is_small_and_says_where_it_comes_from() -> None:
    path = embedded.EMBEDDED
    beside = embedded.checksum_file(path)
    both = [path, beside, embedded.EMBEDDED_SHIFTED, embedded.checksum_file(embedded.EMBEDDED_SHIFTED)]
    assert sum(file.stat().st_size for file in both) <= 4_000_000
    assert beside.read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    with np.load(path) as file:
        found = json.loads(str(file["made_from"]))
    assert (found["dataset"], found["network"], found["size"]) == ("cifar100", "efficientnet_lite0", 96)
    assert len(found["weights"]) == 64 and "64 principal components" in found["reduced"]


@pytest.mark.parametrize("damage", ["changed", "no checksum", "no file"])
def test_a_damaged_embedded_file_is_refused_with_the_fix(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar100_features.npz"
    for file in (embedded.EMBEDDED, embedded.checksum_file(embedded.EMBEDDED)):
        shutil.copy(file, tmp_path)
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
    elif damage == "no file":
        path.unlink()
    else:
        embedded.checksum_file(path).unlink()
    with pytest.raises(ValueError, match=r"(is not as it was made|is missing).*git checkout.*--embed"):
        embedded.read_embedded("train", path)


def test_nobody_replaces_the_embedded_photographs_unseen(folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot pack 'cifar100_features'"):
        data.pack("cifar100_features")
    write_images(folder, name="cifar100_features")
    with pytest.raises(ValueError, match="would not be used: 'cifar100_features' is the name of a built-in data set"):
        load_splits("cifar100_features", 0)


@pytest.mark.parametrize("model", ["linear", "mlp", "mlp_256"])
def test_networks_take_the_embedded_photographs(model: str) -> None:
    run = RunParameters.of(dataset="cifar100_features", model=model, n_per_class=100, rho=10)
    assert run.trains_together
    assert make_model(model, 64, 100, seed=0)(torch.zeros(2, 64, dtype=torch.float64)).shape == (2, 100)


def test_embedding_projects_the_test_images_on_the_axes_of_the_training_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    scales = np.array([5.0, 3.0, 0.1, 0.1])
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x, x_test = (7 + (rng.normal(size=(n, 4)) * scales) @ rotation for n in (400, 60))
    y, y_test = np.arange(400) % 3, np.arange(60) % 3
    source = folder / "made.npz"
    np.savez(source, x_train=x, y_train=y, x_test=x_test, y_test=y_test, class_names=list("abc"), made_from="{}")
    monkeypatch.setattr(embedding, "extract_features", lambda *arguments: source)
    with pytest.raises(ValueError, match="images of CIFAR-100 are needed, but there are 400 and 60"):
        embedding.embed(out=tmp_path / "out.npz")
    monkeypatch.setattr(embedding, "SIZES", (400, 60))
    monkeypatch.setattr(embedding, "DIMENSIONS", 2)
    path = embedding.embed(out=tmp_path / "out.npz")
    train, test = (embedded.read_embedded(part, path) for part in ("train", "test"))
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:2]
    scale = ((x - x.mean(0)) @ axes.T).std()
    for part, given in ((train, x), (test, x_test)):
        expected = (given - x.mean(0)) @ axes.T / scale
        for column, wanted in zip(part.x.T, expected.T, strict=True):  # the sign of an axis is free
            assert min(np.abs(column - wanted).max(), np.abs(column + wanted).max()) < 0.02
    assert train.class_names == ("a", "b", "c") and test.y.tolist() == y_test.tolist()
    assert re.fullmatch(r"[0-9a-f]{64}  out\.npz\n", embedded.checksum_file(path).read_text())


# --- noisy and foreign photographs ------------------------------------------------------------------------------


def test_noise_moves_the_features_of_the_same_photographs_further_the_stronger_it_is() -> None:
    clean = embedded.read_embedded("test")
    noisy = [embedded.read_shifted(name) for name in embedded.NOISY]
    assert all(part.y.tolist() == clean.y[:1400].tolist() and part.class_names == clean.class_names for part in noisy)
    moved = [np.square(part.x - clean.x[:1400]).sum(1).mean() for part in noisy]
    assert moved == sorted(moved) and moved[0] > 0
    # The features of a noisy photograph stay nearer to its own than to those of another one.
    other = np.square(np.roll(clean.x[:1400], 1, axis=0) - clean.x[:1400]).sum(1).mean()
    assert moved[-1] < other


@pytest.mark.parametrize(("name", "n_classes"), [("cifar10", 10), ("emnist_letters", 26)])
def test_foreign_photographs_have_their_own_classes(name: str, n_classes: int) -> None:
    part = embedded.read_shifted(name)
    assert part.x.shape == (1400, 64) and np.isfinite(part.x).all()
    assert len(part.class_names) == n_classes and set(part.y) <= set(range(n_classes))


def test_an_unknown_shift_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"unknown images 'noise_6'; did you mean 'noise_5'\? They are: noise_1, "):
        embedded.read_shifted("noise_6")


def test_shifted_images_are_projected_on_the_axes_of_the_training_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("cifar100", *embedded.FOREIGN)):
        write_images(folder, name=name, seed=seed)
    monkeypatch.setattr(embedding, "read_part", lambda name, part: _unchecked(folder / f"{name}.npz", part))
    monkeypatch.setattr(features, "read_part", lambda name, part: _unchecked(folder / f"{name}.npz", part))
    monkeypatch.setattr(embedding, "DIMENSIONS", 2)
    monkeypatch.setattr(embedding, "N_SHIFTED", 6)
    path = embedding.embed_shifted(stand_in(), 32, tmp_path / "out.npz")
    x = made(folder / "cifar100_tiny_32.npz")["x_train"].astype(float)
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:2]
    scale = ((x - x.mean(0)) @ axes.T).std()
    for name, images in (
        ("noise_5", add_gaussian_noise(_unchecked(folder / "cifar100.npz", "test").x[:6], 5)),
        ("cifar10", _unchecked(folder / "cifar10.npz", "test").x[:6]),
    ):
        found = embedded.read_shifted(name, path)
        expected = (features.features_of(images, stand_in(), 32) - x.mean(0)) @ axes.T / scale
        step = np.abs((x - x.mean(0)) @ axes.T).max(0) / 127 / scale
        for column, wanted, one in zip(found.x.T, expected.T, step, strict=True):  # the sign of an axis is free
            off = min(np.abs(column - wanted).max(), np.abs(column + wanted).max())
            assert off <= 0.6 * one + 0.01 * np.abs(wanted).max()  # rounded to a step, in units of rounded codes
    assert re.fullmatch(r"[0-9a-f]{64}  out\.npz\n", embedded.checksum_file(path).read_text())


def _unchecked(path: Path, part: str) -> data.Part:
    """Read a small file under the name of a published data set."""
    with np.load(path) as file:
        return data.Part(file[f"x_{part}"].transpose(0, 3, 1, 2), file[f"y_{part}"], tuple(file["class_names"]))
