"""The command line: fetch a data set, write it as one file, or turn its images into features."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gence.lab.data.packing import download, images_to_npz, pack
from gence.lab.storage import data_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Download, pack or convert a data set from the command line; see gence.lab.data."""
    parser = argparse.ArgumentParser(prog="python -m gence.lab.data", description=main.__doc__)
    parser.add_argument("folder", nargs="?", help="images to convert: FOLDER/{train,test}/<class>/*.png|jpg")
    parser.add_argument("out", nargs="?", help="the .npz file to write")
    parser.add_argument("--download", metavar="NAME", help="fetch a data set into the data folder (GENCE_DATA)")
    parser.add_argument("--pack", metavar="NAME", help="write NAME.npz from the files in the data folder")
    parser.add_argument("--features", metavar="NAME", help="write the features of its images as NAME_NETWORK_SIZE.npz")
    parser.add_argument("--network", help="whose features (default: efficientnet_lite0)", default="efficientnet_lite0")
    parser.add_argument("--size", help="to which images are resized, in pixels (default: 96)", type=int, default=96)
    parser.add_argument(
        "--embed",
        action="store_true",
        help="make cifar100_features, which the lab ships, from the features of CIFAR-100",
    )
    parser.add_argument(
        "--embed-shifted", action="store_true", help="make the features of noisy and foreign images that lie beside it"
    )
    given = parser.parse_args(arguments)
    named = (given.download is not None, given.pack is not None, given.features is not None)
    tasks = (*named, given.embed, given.embed_shifted)
    if sum((*tasks, given.out is not None)) != 1:
        parser.error(
            "give FOLDER and OUT.npz, or --download NAME, --pack NAME, --features NAME, --embed, or --embed-shifted"
        )
    try:
        print(_done(given))
    except (ValueError, OSError, ImportError) as error:
        parser.exit(1, f"{error}\n")


def _done(given: argparse.Namespace) -> str:
    """Do the one task that was given; say what was done."""
    if given.download:
        download(given.download)
        return f"{given.download} is in {data_folder()}"
    if given.features:
        from gence.lab.data.features import extract_features  # torch: only who needs it waits for it

        path = extract_features(given.features, given.network, given.size)
        return f"wrote {path}: the data set {path.stem}"
    if given.embed:
        from gence.lab.data.embedding import embed

        return f"wrote {embed(given.network, given.size)}"
    if given.embed_shifted:
        from gence.lab.data.embedding import embed_shifted

        return f"wrote {embed_shifted(given.network, given.size)}"
    return f"wrote {pack(given.pack) if given.pack else images_to_npz(given.folder, given.out)}"


if __name__ == "__main__":
    main()
