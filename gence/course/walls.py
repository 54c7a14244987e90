"""Walls around a process that runs somebody else's code, as far as a process without privileges can build them.

Limits of the system hold everywhere: time, memory, size of a file. On Linux two more walls are built where the kernel
lets us: namespaces (no network, and no process of others in sight) and Landlock (nothing is written outside one folder,
and what is read lies with Python, not with you). Which of them stand is said, not assumed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "enclose", "isolate", "kill", "used"]


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: of the processor, for a cell and for the check of an exercise; by the clock five times as many, so that
            a busy machine takes no points.
        total: seconds by the clock for all of a submission.
        memory: bytes beside what the graders' own libraries need.
        file: bytes of a file that it writes.
    """

    seconds: float = 20.0
    total: float = 600.0
    memory: int = 2 * 2**30
    file: int = 10 * 2**20

    @property
    def patience(self) -> float:
        """Seconds by the clock for what has `seconds` of the processor."""
        return 5 * self.seconds


_libc = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
_PARENT_DEATH, _DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38


def _linux(call: str, *arguments: object) -> int:
    """What a system call answers; -1 where there is none of this name."""
    return getattr(_libc, call)(*arguments) if sys.platform == "linux" else -1


def isolate() -> bool:
    """Give this process no network, and its next child no sight of other processes; whether that worked.

    The memory of this process cannot be looked into afterwards. Its next child is the first of a namespace: when it
    ends, all that it started ends with it.
    """
    done = _linux("unshare", _NEW_USER | _NEW_PID | _NEW_NET | _NEW_IPC) == 0
    _linux("prctl", _DUMPABLE, 0, 0, 0, 0)
    return done


def enclose(folder: Path, limits: Limits, keep: int, isolated: bool) -> bool:
    """Shut this process in, for good: its folder, limits, no file but `keep`; whether Landlock holds it there."""
    os.setsid()
    _linux("prctl", _PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    os.chdir(folder)
    plain = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    os.environ.clear()
    os.environ.update(plain, HOME=str(folder), TMPDIR=str(folder), MPLBACKEND="Agg", OMP_NUM_THREADS="1")
    sys.argv, sys.stdin = [""], open(os.devnull)  # noqa: SIM115  (for as long as the process lives)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, 65536)
    _limit(limits, isolated)
    socket.socket = _Closed
    return _stay_in(folder)


def _limit(limits: Limits, isolated: bool) -> None:
    used = 0
    with suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = {"AS": used + limits.memory, "FSIZE": limits.file, "CPU": int(limits.total) + 1, "CORE": 0, "NOFILE": 256}
    if isolated:  # in a namespace of its own: elsewhere all processes of this user count
        wanted["NPROC"] = 64
    for name, most in wanted.items():
        with suppress(ValueError, OSError):  # this system has no such limit, or a lower one
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


class _Closed(socket.socket):
    def __init__(self, *arguments: object, **options: object) -> None:
        raise OSError("there is no network while a notebook is marked")


def used(pid: int) -> float:
    """Seconds of the processor that a process has had; by the clock where the system does not say."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def kill(pid: int) -> None:
    """End a process, the group that it leads, and wait until it is gone."""
    for end in (os.killpg, os.kill):
        with suppress(OSError):
            end(pid, signal.SIGKILL)
    with suppress(OSError):
        os.waitpid(pid, 0)


# --- Landlock (https://docs.kernel.org/userspace-api/landlock.html) ---------------------------------------------
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_WRITE_FILE, _READ = 1 << 1, 0b1101  # execute, read a file, list a folder
_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many kinds of access a version knows


class _Rules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _stay_in(folder: Path) -> bool:
    version = _linux("syscall", _CREATE, None, 0, 1)
    if version < 1:
        return False
    every = (1 << _ACCESSES.get(version, 16)) - 1
    # From version 4 on no TCP, from 6 on no signal to, and no abstract socket of, a process outside.
    rules = _Rules(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    made = _linux("syscall", _CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    for path, allowed in [*((p, _READ) for p in _readable()), (os.devnull, _WRITE_FILE | 1 << 2), (folder, every)]:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _linux("syscall", _ADD, made, 1, ctypes.byref(_Beneath(allowed, at)), 0)
        os.close(at)
    _linux("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = made >= 0 and _linux("syscall", _RESTRICT, made, 0) == 0
    os.close(made)
    return done


def _readable() -> list[str]:
    """Python, its packages and the system: no folder of yours, unless Python itself lies there."""
    system = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev", "/sys"]
    packages = [path for path in sys.path if path.endswith("-packages")]
    own = str(Path(__file__).resolve().parents[1])
    return [path for path in (*system, sys.prefix, sys.base_prefix, *packages, own) if os.path.isdir(path)]
