#!/usr/bin/env python3
"""Slurm's commands as far as Snakemake's plugin calls them: links with their names point here.

``sbatch`` refuses options and values that the real one would refuse, writes down what it got, and runs the job at once.
With $FAKE_SLURM_WITHOUT_GPUS it refuses jobs that ask for one. ``srun`` runs its command, ``sacct`` says that every job
is finished. The notes go to the folder $FAKE_SLURM.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

NOTES = Path(os.environ.get("FAKE_SLURM", "."))
# Names and values as in Slurm's manual pages.
NUMBER, WORD, ANY = r"\d+", r"[\w.:,@+%-]+", r".*"
MEMORY, TIME = r"\d+[KMGT]?", r"\d+|(\d+-)?\d+(:\d+){1,2}"
OPTIONS = {
    ("-J", "--job-name"): ANY,
    ("-o", "--output"): ANY,
    ("-D", "--chdir"): ANY,
    ("-A", "--account"): WORD,
    ("-p", "--partition"): WORD,
    ("-C", "--constraint"): ANY,
    ("-q", "--qos"): WORD,
    ("-x", "--exclude"): WORD,
    ("-t", "--time"): TIME,
    ("-N", "--nodes"): NUMBER,
    ("-n", "--ntasks"): NUMBER,
    ("-c", "--cpus-per-task"): NUMBER,
    ("-G", "--gpus"): r"(\w+:)?\d+",
    ("--mem",): MEMORY,
    ("--mem-per-cpu",): MEMORY,
    ("--gres",): WORD,
    ("--export",): ANY,
    ("--comment",): ANY,
    ("--cpu-bind",): WORD,
    ("--wrap",): ANY,
}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("--parsable", "--requeue", "--no-requeue"):
        found.add_argument(flag, action="store_true")
    for names, pattern in OPTIONS.items():
        found.add_argument(*names, type=lambda value, pattern=pattern: checked(value, pattern))
    return found


def checked(value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value, flags=re.DOTALL):
        raise argparse.ArgumentTypeError(f"invalid value {value!r}")
    return value


def sbatch() -> int:
    given = vars(parser().parse_args())  # exits with an error, as sbatch does
    if given["gpus"] and os.environ.get("FAKE_SLURM_WITHOUT_GPUS"):
        sys.exit("sbatch: error: Batch job submission failed: Requested node configuration is not available")
    number = len(list(NOTES.glob("job*.json"))) + 1
    (NOTES / f"job{number}.json").write_text(json.dumps({k: v for k, v in given.items() if v not in (None, False)}))
    if os.environ.get("FAKE_SLURM_RUNS"):
        with (NOTES / f"job{number}.log").open("w") as log:
            environment = os.environ | {"SLURM_JOB_ID": str(number)}
            done = subprocess.run(["sh", "-c", given["wrap"]], stdout=log, stderr=log, env=environment, check=False)
        state = "COMPLETED" if done.returncode == 0 else "FAILED"
    else:
        state = "FAILED"
    (NOTES / f"job{number}.state").write_text(f"{number}|{state}\n")
    print(number)
    return 0


def srun() -> int:
    found = parser()
    found.add_argument("command", nargs=argparse.REMAINDER)
    return subprocess.run(found.parse_args().command, check=False).returncode


def sacct() -> int:
    if "--name" in sys.argv:
        print("".join(path.read_text() for path in sorted(NOTES.glob("job*.state"))), end="")
    return 0


if __name__ == "__main__":
    commands = {"sbatch": sbatch, "srun": srun, "sacct": sacct}
    sys.exit(commands[Path(sys.argv[0]).name]() if Path(sys.argv[0]).name in commands else 0)
