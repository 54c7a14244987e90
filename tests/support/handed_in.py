"""Notebooks as students hand them in: right, wrong, careless and hostile, each with the verdicts that it must get."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

BRIER = "def brier(p, label):\n    return sum((x - (k == label)) ** 2 for k, x in enumerate(p))"
ABSENT = "def absent_classes(frequencies, size):\n    return sum((1 - x) ** size for x in frequencies)"
CHECKS = ("from gence.course import check", 'check("E08", brier)', 'check("E41", absent_classes)')
# Every submission leaves a trace in the process that runs it.
TRACE = "import builtins\nbuiltins.handed_in_ran_here = True"
GRADED = ("E08", "E41")
BOTH = ("passed", "passed")


class Case(NamedTuple):
    """A file that is handed in; verdicts of E08 and E41; words that some note, fault or problem must hold."""

    content: bytes
    verdicts: tuple[str, str]
    says: str = ""


def notebook(*sources: str, **metadata: Any) -> bytes:
    """A notebook of these code cells."""
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for i, source in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()


def answered(*more: str, brier: str = BRIER, **metadata: Any) -> bytes:
    """Both functions, the cells of a sheet, and before the functions whatever else."""
    return notebook(TRACE, CHECKS[0], *more, brier, CHECKS[1], ABSENT, CHECKS[2], **metadata)


def inside(line: str) -> str:
    """A Brier loss that first does something else."""
    return BRIER.replace("\n    ", f"\n    {line}\n    ")


def short(outside: Path) -> dict[str, Case]:
    """A few of each kind; `outside` is a folder that nobody may write into."""
    wrong = "def brier(p, label):\n    return (1 - p[label]) ** 2"
    patched = (
        "import gence.course, gence.course.registry as r, gence.course.trial as t\n"
        "r.check = gence.course.check = lambda *a: 'E08 passed'\n"
        "for e in gence.course.EXERCISES.values():\n    e.laws.clear()\n"
        "t.Exercise.judge = lambda self, answer: 1"
    )
    write = f"open({str(outside / 'from E08')!r}, 'w').write('here')"
    return {
        "right": Case(answered(), BOTH),
        "wrong": Case(answered(brier=wrong), ("not yet", "passed"), "honesty is the cheapest"),
        "crashes": Case(answered("import no_such_module_anywhere", "1 / 0"), BOTH, "ZeroDivisionError"),
        "endless in a function": Case(
            answered(brier=inside("while True: pass")), ("stopped", "passed"), "the last call was brier("
        ),
        "ten GB in a function": Case(
            answered(brier=inside("x = bytearray(10 * 2**30)")), ("not yet", "passed"), "MemoryError"
        ),
        "leaves": Case(answered("import os\nos._exit(3)"), BOTH, "exit code 3"),
        "writes elsewhere": Case(answered(write), BOTH, "Error"),
        "opens a socket": Case(
            answered("import socket\nsocket.create_connection(('192.0.2.1', 80), 5)"), BOTH, "no network"
        ),
        "patches the grader": Case(answered(patched, brier=wrong), ("not yet", "passed")),
        "not JSON": Case(b"\x89PNG\r\n\x1a\n\xff\xfe", ("not tried", "not tried"), "not JSON"),
    }


def many(outside: Path, own: Path) -> dict[str, Case]:
    """The short list and more than twenty others; `own` is the folder in which they lie."""
    stub = 'def brier(p, label):\n    """p is a list of K probabilities. Return a number."""\n    # your code'
    wrong = "def brier(p, label):\n    return 1 - p[label]"
    stubborn = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    fork = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        time.sleep(1000)\n        os._exit(0)"
    unlink = f"import pathlib\nfor p in pathlib.Path({str(own)!r}).rglob('*.ipynb'): p.unlink()"
    garbage = "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'{]' * 99)\n    except OSError: pass"
    forged = (
        "import os, json\nfor fd in range(3, 64):\n"
        "    t = json.dumps(['ready', {'brier': {'times': 1, 'takes': None}}, 'x']).encode()\n"
        "    try: os.write(fd, len(t).to_bytes(4, 'big') + t)\n    except OSError: pass"
    )
    deep = b"[" * 200_000
    more = {
        "endless": Case(answered("while True: pass"), BOTH, "stopped after"),
        "endless and stubborn": Case(answered(stubborn), BOTH, "6 seconds"),
        "ten GB": Case(answered("x = bytearray(10 * 2**30)"), BOTH, "MemoryError"),
        "a big file": Case(answered("open('big', 'wb').write(bytes(10**8))"), BOTH, "File too large"),
        "prints for ever": Case(answered("for i in range(10**6): print('x' * 99)"), BOTH),
        "no cells": Case(notebook(), ("missing", "missing")),
        "empty file": Case(b"", ("not tried", "not tried"), "empty file"),
        "a list": Case(b"[1, 2]", ("not tried", "not tried"), "no list of cells"),
        "deep": Case(deep, ("not tried", "not tried"), "not JSON"),
        "odd cells": Case(
            json.dumps(
                {"cells": [3, None, {"source": 5}, {"cell_type": "code", "source": [BRIER], "metadata": 7}]}
            ).encode(),
            ("passed", "missing"),
        ),
        "no checks": Case(notebook(TRACE, BRIER, ABSENT), BOTH),
        "in one cell": Case(notebook("\n\n".join([TRACE, ABSENT, "1 / 0", BRIER])), BOTH, "ZeroDivisionError"),
        "a copied stub after it": Case(answered(stub, brier=f"{BRIER}\n\n{stub}"), BOTH),
        "only the stub": Case(answered(brier=stub), ("not yet", "passed")),
        "defined twice": Case(answered(BRIER, brier=wrong), ("not yet", "passed"), "defined 2 times; the last"),
        "an R kernel": Case(answered("x <- c(1, 2)", kernelspec={"name": "ir", "language": "R"}), BOTH, "NameError"),
        "Python 2": Case(answered("print 'hello'", language_info={"version": "2.7.18"}), BOTH, "SyntaxError"),
        "magics": Case(answered("%matplotlib inline\n!ls\nfor i in [1]:\n    %time 1", "%%bash\nls", "brier?"), BOTH),
        "sys.exit": Case(answered("import sys\nsys.exit(4)"), BOTH, "SystemExit"),
        "leaves in a function": Case(
            answered(brier=inside("import os; os._exit(0)")), ("stopped", "passed"), "exit code 0"
        ),
        "segmentation fault": Case(answered("import ctypes\nctypes.string_at(0)"), BOTH, "SIGSEGV"),
        "a fake verdict": Case(
            answered("print('E08 Brier for K classes: no counterexample')", brier=wrong), ("not yet", "passed")
        ),
        "forks": Case(answered(fork), BOTH),
        "deletes notebooks": Case(answered(unlink), BOTH),
        "kills its parent": Case(answered("import os\nos.kill(os.getppid() or -1, 9)"), BOTH),
        "garbage on the line": Case(answered(garbage), BOTH, "none of ours"),
        "a forged message": Case(answered(forged, brier=wrong), ("not yet", "passed")),
        "a huge answer": Case(answered(brier=inside("return [0.0] * 10**6")), ("not yet", "passed")),
        "no function": Case(answered(brier="brier = 3"), ("not yet", "passed"), "no function"),
        "other arguments": Case(answered(brier="def brier(p): return 0"), ("not yet", "passed"), "asks for a function"),
        "Žofie Ñandú 学生": Case(answered(), BOTH),
        "Ann Other (2)": Case(answered(), BOTH),
        "=1+1": Case(answered(brier="raise ValueError('=1+1')"), ("missing", "passed")),
        "groups/blue/anna": Case(answered(), BOTH),
    }
    return short(outside) | more


def put(cases: dict[str, Case], folder: Path) -> None:
    """Hand them in."""
    for name, case in cases.items():
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.content)


def link(folder: Path, to: Path) -> None:
    """A submission that is a link to a file elsewhere."""
    os.symlink(to, folder / "a link.ipynb")
