"""An archive that only a key opens: scrypt makes the key of Fernet (AES-128 and HMAC, of the package cryptography)."""

from __future__ import annotations

import base64
import getpass
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["KEY", "SHORTEST", "open_archive", "seal"]

KEY = "GENCE_COURSE_KEY"  # the environment variable that holds the key
SHORTEST = 16
_MAGIC = b"gence-course-1\n"


def _fernet(key: str, salt: bytes) -> Any:
    if len(key) < SHORTEST:
        raise ValueError(f"the key has {len(key)} characters: take {SHORTEST} or more, for example four unusual words")
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise ImportError("an archive needs the package cryptography: pip install 'gence[course]'") from None
    derived = hashlib.scrypt(key.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)
    return Fernet(base64.urlsafe_b64encode(derived))


def seal(content: bytes, key: str) -> bytes:
    """Content that only this key opens; other bytes each time.

    Raises:
        ValueError: a key of fewer than 16 characters. ImportError: without the package cryptography.
    """
    salt = os.urandom(16)
    return _MAGIC + salt + _fernet(key, salt).encrypt(content)


def open_archive(path: Path, out: Path) -> str:
    """Unpack a sealed archive into a new folder; the key comes from GENCE_COURSE_KEY, or is asked for.

    Raises:
        ValueError: it is no such archive, another key closed it, or the folder is there already.
        ImportError: without the package cryptography.
    """
    sealed = path.read_bytes()
    if not sealed.startswith(_MAGIC):
        raise ValueError(f"{path} is no archive of `make course INSTRUCTOR=key`")
    if out.exists():
        raise ValueError(f"{out} is there already: name a new folder")
    key = os.environ.get(KEY) or getpass.getpass("Key of the archive: ")
    start = len(_MAGIC) + 16
    fernet = _fernet(key, sealed[len(_MAGIC) : start])
    from cryptography.fernet import InvalidToken

    try:
        content = fernet.decrypt(sealed[start:])
    except InvalidToken:
        raise ValueError(f"another key closed {path}, or the file is damaged") from None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(out)
        return f"{len(archive.namelist())} files in {out}; begin with {out / 'GUIDE.md'}"
