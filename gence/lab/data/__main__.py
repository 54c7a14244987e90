"""The command line: fetch a data set, or write it as one file."""

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
    given = parser.parse_args(arguments)
    if sum((given.download is not None, given.pack is not None, given.out is not None)) != 1:
        parser.error("give FOLDER and OUT.npz, or --download NAME, or --pack NAME")
    try:
        if given.download:
            download(given.download)
            print(f"{given.download} is in {data_folder()}")
        else:
            print(f"wrote {pack(given.pack) if given.pack else images_to_npz(given.folder, given.out)}")
    except (ValueError, OSError, ImportError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
