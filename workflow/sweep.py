"""Grids of runs: what they hold, what they cost, what they gave. The Snakefile, the Makefile and the tests call this.

With `python workflow/sweep.py` before them:

    cost GRID [PROFILE]        runs, seeds, jobs and hours, before anything starts
    calibrate GRID [PROFILE]   measure here how fast the networks of a grid train, for `cost`
    collect GRID [PROFILE]     merge the records of a grid into results/<grid>.csv, and calibrate what it trained;
                               --bins N: of the adaptive temperature scaling, where a validation set is small
    plot GRID                  draw results/<grid>.csv into _build/plots/<grid>.png
    train NOTEBOOK PARAMETERS  execute one job: PARAMETERS is the JSON text of its run

A *grid* is a YAML file: one mapping of `fixed` and `vary`, or a list of them. A *run* is one setting with its seeds; a
*job* is what the engine starts: a run, or some seeds of it where its network is large. PROFILE is a folder of
workflow/profiles; its sweep.yaml says on which device and how many seeds to a job.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gence.lab.records import flaw
from gence.lab.storage import data_folder, file_stamp, replace_file

if TYPE_CHECKING:  # a job must not wait for torch before its kernel starts
    import pandas as pd

    from gence.lab.runs import RunParameters

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "experiments" / "train.ipynb"
RESULTS = ROOT / "results"
RATES = RESULTS / "benchmarks"
RATES_SCHEMA = 1
BUILD = ROOT / "_build"
# What a job asks a cluster for: MB of memory, and minutes (for each seed that trains on its own). These are limits and
# no measurements; a job that hits one is started again with twice as much.
LIMITS = {
    ("smoke", "cpu"): (2_000, 20),
    ("smoke", "cuda"): (8_000, 20),
    ("laptop", "cpu"): (4_000, 120),
    ("laptop", "cuda"): (8_000, 60),
    ("full", "cpu"): (16_000, 2_880),
    ("full", "cuda"): (32_000, 720),
}
SETTINGS = ("grid", "device", "out", "seeds_per_job")
# What decides how fast a run trains.
RATE_KEYS = ("dataset", "model", "batch_size", "recipe", "precision")
CALIBRATION_EPOCHS = (3, 9, 27, 81, 243)
CALIBRATION_SECONDS = 1.0
KEY = ["identity", "seed", "checkpoint"]
# Seconds between two lines of progress of a job.
PROGRESS_SECONDS = 20.0
# What `sbatch` says when it refuses a job: the setting of the profile that decides it, and what is wrong with it.
REFUSALS = {
    "Requested node configuration is not available": (
        "slurm_partition",
        "no machine of the partition has all that a job asks for",
    ),
    "Invalid generic resource": ("slurm_partition", "Slurm knows no such GPUs on this cluster"),
    "Invalid partition name specified": ("slurm_partition", "there is no such partition"),
    "Invalid account or account/partition combination": ("slurm_account", "this account is not yours there"),
}
ORIGIN = ("commit", "dirty", "device", "torch", "date", "duration_s")
DECIMALS = 6


# --- what a grid holds -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What the engine starts: a run with the seeds that this job trains. Plain values, so that it needs no torch."""

    identity: str
    folder: str
    seeds: tuple[int, ...]
    part: str
    tier: str
    device: str
    together: bool
    parameters: str

    @classmethod
    def of(cls, run: RunParameters) -> Job:
        """The job that trains all seeds of a run."""
        part = run.seeds_text
        if len(part) > 60:  # a file name has an end
            part = f"{len(run.seeds)}-seeds-{hashlib.sha256(part.encode()).hexdigest()[:8]}"
        plain = (run.identity, str(run.folder), run.seeds, part, run.tier, run.device, run.trains_together)
        return cls(*plain, run.model_dump_json())

    @cached_property
    def run(self) -> RunParameters:
        from gence.lab import runs

        return runs.RunParameters.of(**json.loads(self.parameters))

    @property
    def notebook(self) -> str:
        """Where its executed notebook goes, beside its records."""
        return f"{self.folder}/train-{self.part}.ipynb"

    @property
    def marker(self) -> str:
        """The file by which the engine knows, while it runs, that this job is done. It decides nothing: records do."""
        return f"{self.folder}/.train-{self.part}.done"

    def record_path(self, seed: int) -> Path:
        return Path(self.folder) / f"seed{seed:04d}.json"

    def flaws(self) -> dict[int, str]:
        """Its seeds that have no whole record, with what is wrong; an empty text where there is no file."""
        found = {seed: flaw(self.record_path(seed), self.identity, seed) for seed in self.seeds}
        return {seed: reason for seed, reason in found.items() if reason is not None}

    @property
    def missing(self) -> tuple[int, ...]:
        """Its seeds that have no whole record."""
        return tuple(self.flaws())

    def memory_mb(self, attempt: int = 1) -> int:
        return LIMITS[self.tier, _kind(self.device)][0] * attempt

    def minutes(self, attempt: int = 1) -> int:
        one_by_one = 1 if self.together else len(self.seeds)
        return LIMITS[self.tier, _kind(self.device)][1] * one_by_one * attempt


def read_grid(path: str | Path, **overrides: Any) -> list[RunParameters]:
    """The runs of a grid file, each one once.

    Raises:
        ParameterError: as `gence.lab.runs.expand_grid`; the same run in two blocks; no YAML, or a name in it twice.
        FileNotFoundError: no such file; the message names the grids there are.
    """
    from gence.lab import runs

    path = Path(path)
    if not path.is_file():
        known = ", ".join(sorted(str(p.relative_to(ROOT)) for p in (ROOT / "workflow" / "grids").glob("*.yaml")))
        raise FileNotFoundError(f"no grid {path}. The grids are: {known}.")
    content = _read_yaml(path)
    expanded: dict[str, RunParameters] = {}
    for number, block in enumerate(content if isinstance(content, list) else [content], start=1):
        if not isinstance(block, Mapping):
            raise runs.ParameterError(
                f"{path}, block {number}: a grid has the sections fixed and vary, but got {block!r}"
            )
        for run in runs.expand_grid({**block, "fixed": {**(block.get("fixed") or {}), **overrides}}):
            if run.identity in expanded:
                raise runs.ParameterError(f"{path}, block {number} holds a run again: {run.identity}")
            expanded[run.identity] = run
    return list(expanded.values())


def _read_yaml(path: Path) -> Any:
    """The content of a YAML file; a name that a mapping holds twice is refused, where YAML would drop the first."""
    import yaml

    from gence.lab import runs

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        names = [key.value for key, _ in node.value if key.value != "<<"]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise runs.ParameterError(f"{path}, line {node.start_mark.line + 1}: {', '.join(twice)} stands there twice")
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    strict = type("StrictLoader", (yaml.SafeLoader,), {})
    strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=strict)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise runs.ParameterError(f"{path} is no YAML: {error}") from None


def jobs_of(run: RunParameters, seeds_per_job: int | None = None) -> list[Job]:
    """A run's jobs: one, or one for every `seeds_per_job` seeds of a network that does not train many at once."""
    run = run.effective()
    # To split seeds that train in one stack would only cost time.
    size = len(run.seeds) if seeds_per_job is None or run.trains_together else seeds_per_job
    parts = [run.seeds[start : start + size] for start in range(0, len(run.seeds), size)]
    return [Job.of(run.model_copy(update={"seeds": part})) for part in parts]


def read_jobs(config: Mapping[str, Any]) -> list[Job]:
    """The jobs of the grid that a configuration names: `grid`, and perhaps `device`, `out`, `seeds_per_job`.

    They are kept in _build/plans, with a sum of all that they depend on: reading a grid again needs no torch.
    """
    kept, state = BUILD / "plans" / f"{Path(config['grid']).stem}.json", _state_of(config)
    with suppress(OSError, ValueError, KeyError, TypeError):  # none, or one of another version: made anew
        plan = json.loads(kept.read_text(encoding="utf-8"))
        if state is not None and plan["state"] == state:
            return [Job(**{**job, "seeds": tuple(job["seeds"])}) for job in plan["jobs"]]
    jobs = _jobs_of_grid(config)
    if state is not None:
        plan = {"state": state, "jobs": [asdict(job) for job in jobs]}
        with suppress(OSError):  # a folder that cannot be written: slower, but right
            replace_file(kept, lambda file: file.write(json.dumps(plan).encode()))
    return jobs


def _state_of(config: Mapping[str, Any]) -> str | None:
    """A sum of all that jobs depend on: grid, settings, folders, own data, code. None where a file is just changing."""
    sources = [*sorted((ROOT / "gence").rglob("*.py")), Path(__file__), Path(config["grid"])]
    root = data_folder()
    stamps = {
        path.name: path.exists() and file_stamp(path) for path in (*sorted(root.glob("*.npz")), root / "av1451.csv")
    }
    if None in stamps.values() or not Path(config["grid"]).is_file():
        return None
    where = [os.getcwd(), str(root), os.environ.get("GENCE_RUNS"), os.environ.get("HOME"), sys.version]
    digest = hashlib.sha256(json.dumps([dict(sorted(config.items())), where, stamps]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _jobs_of_grid(config: Mapping[str, Any]) -> list[Job]:
    from gence.lab import runs

    for name in config:
        if name not in SETTINGS:
            raise runs.ParameterError(f"unknown setting {name!r} of a sweep. The settings are: {', '.join(SETTINGS)}.")
    size = config.get("seeds_per_job")
    if size is not None and not (type(size) is int and size >= 1):
        raise runs.ParameterError(f"seeds_per_job = {size!r} is not allowed: use a whole number >= 1, or leave it out.")
    overrides = {name: config[name] for name in ("device", "out") if config.get(name)}
    return [job for run in read_grid(config["grid"], **overrides) for job in jobs_of(run, size)]


def settings(grid: Path, profile: Path | None) -> dict[str, Any]:
    """The configuration of a sweep: its grid, and what the profile's sweep.yaml says."""
    import yaml

    if profile is not None and not (profile / "sweep.yaml").is_file():
        known = ", ".join(sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.glob("workflow/profiles/*/sweep.yaml")))
        raise FileNotFoundError(f"no profile {profile}. The profiles are: {known}.")
    found = {} if profile is None else yaml.safe_load((profile / "sweep.yaml").read_text(encoding="utf-8"))
    return {**(found or {}), "grid": str(grid)}


def inputs_of_sweep(jobs: Sequence[Job], storage: str = "") -> list[str]:
    """What a sweep needs: of each job that lacks a whole record its marker, of each other one a record.

    A marker that an earlier engine left of a job that has to run (again) goes, also in the storage of a cluster.
    """
    needed = []
    for job in jobs:
        if job.flaws():
            Path(job.marker).unlink(missing_ok=True)
            if storage:
                Path(storage, job.marker.lstrip("/")).unlink(missing_ok=True)
            needed.append(job.marker)
        else:
            needed.append(str(job.record_path(job.seeds[0])))
    return needed


def check_cluster_path(python: str) -> None:
    """Refuse what would fail in every job: Snakemake hands its Python to a cluster's shell without quotes.

    Raises:
        WorkflowError: a path with a blank in it.
    """
    if any(map(str.isspace, python)):
        from snakemake.exceptions import WorkflowError

        raise WorkflowError(
            f"Snakemake cannot hand jobs to a cluster from a folder with a blank in its path, and {python} has one. "
            "Move the repository to a path without blanks, or run the sweep on this machine, with PROFILE="
            "workflow/profiles/cpu."
        )


def refusal(said: str, profile: str) -> str:
    """What to change where Slurm refused jobs: the line of the profile. Empty where it refused none.

    `said` is the engine's log: there the plugin repeats the words of `sbatch`, once for each job and attempt.
    """
    found = re.search(
        rf"sbatch: error: .*?({'|'.join(map(re.escape, REFUSALS))}).*?sbatch call:\s*(.*?)--wrap", said, re.S
    )
    if found is None:
        return ""
    message, call = found.groups()
    setting, reason = REFUSALS[message]
    asked = re.findall(r"(?<= )(?:-[pAC] |--(?:gpus|gres|mem|cpus-per-task|constraint)[= ])\S+", call)
    lines = [f"Slurm refused jobs, {reason}: sbatch {' '.join(asked)}", *_line_of(setting, profile)]
    if any(option.startswith(("--gpus", "--gres")) for option in asked):
        lines.append("GPUs of the partitions:  sinfo -o '%P %G'. To train without: PROFILE=workflow/profiles/slurm_cpu")
    return "\n".join(lines)


def _line_of(setting: str, profile: str) -> list[str]:
    """Where a profile has a setting, in words; nothing without a profile."""
    path = Path(profile, "config.yaml")
    rows = path.read_text(encoding="utf-8").splitlines() if profile and path.is_file() else []
    found = [(number, row.strip()) for number, row in enumerate(rows, start=1) if setting in row]
    return [f"change line {number} of {path}:  {row}" for number, row in found[:1]]


def closing(jobs: Sequence[Job], ran: Iterable[str], grid: str, profile: str = "") -> str:
    """What to say at the end of a sweep: how many records there are, where, and what to do with them.

    `ran` holds the markers of the jobs that had to run: the others were complete before. All markers go.
    """
    ran = set(ran)
    n_seeds = sum(len(job.seeds) for job in jobs)
    left = sum(len(job.missing) for job in jobs if job.marker in ran)
    for job in jobs:
        Path(job.marker).unlink(missing_ok=True)
    folders = sorted({str(Path(job.folder).parent.resolve()) for job in jobs})
    named = f"GRID='{grid}'" if " " in grid else f"GRID={grid}"
    given = f"{named} PROFILE={profile}" if profile else named
    lines = [f"{n_seeds - left} of {n_seeds} records are in {', '.join(folders)}/<run>/"]
    if left:
        lines.append(f"the others were not trained; their logs lie there too. Go on: make sweep {given}")
    return "\n".join([*lines, f"collect them:  make collect {given}", f"plot them:     make plot {named}"])


def _kind(device: str) -> str:
    return "cuda" if device.startswith("cuda") else "cpu"


def _as_seeds(seeds: Iterable[int]) -> str:
    """Seeds in short, as a run writes them: 0-3,7."""
    from gence.lab import runs

    return runs.RunParameters.of(seeds=list(seeds)).seeds_text


# --- what it costs ---------------------------------------------------------------------------------------------


def read_rates(folder: Path = RATES) -> list[dict[str, Any]]:
    """Measured training speeds, from the files training-*.json: one row for each network and device."""
    rows = []
    for path in sorted(folder.glob("training-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != RATES_SCHEMA:
            raise SystemExit(f"{path} has schema {content.get('schema')}, expected {RATES_SCHEMA}: measure it again")
        device = content["provenance"]["device"]
        rows += [{**row, "device": _kind(device), "device_name": device} for row in content["rates"]]
    return rows


def rate_of(run: RunParameters, rates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The measured speed for a run: of the rows that do not contradict it, the one that says most."""
    is_so = _speed_setting(run)
    fitting = [
        row for row in rates if all(row[name] == is_so.get(name) for name in (*RATE_KEYS, "device") if name in row)
    ]
    return max(fitting, key=lambda row: sum(name in row for name in RATE_KEYS), default=None)


def _speed_setting(run: RunParameters) -> dict[str, Any]:
    """What decides how fast a run trains."""
    recipe = run.make_recipe()
    return {
        "dataset": run.dataset,
        "model": run.model,
        "batch_size": recipe.batch_size,
        "recipe": run.recipe,
        "precision": recipe.precision,
        "device": _kind(run.device),
    }


def cost(jobs: Sequence[Job], rates: Sequence[Mapping[str, Any]]) -> str:
    """What a sweep holds, what is left to do, and how long that takes: in hours of one device, or unknown."""
    found = [(job, job.flaws()) for job in jobs]
    todo = [(job, len(flaws)) for job, flaws in found if flaws]
    n_seeds, left = sum(len(job.seeds) for job in jobs), sum(missing for _, missing in todo)
    lines = [
        f"{_count({job.identity for job in jobs}, 'run')}, {n_seeds} seeds, {_count(jobs, 'job')}",
        f"to do: {left} seeds in {_count(todo, 'job')}; {n_seeds - left} seeds have their record",
    ]
    lines += [f"to do again: {reason}" for _, flaws in found for reason in flaws.values() if reason]
    hours: dict[str, float] = {}
    unknown: dict[str, int] = {}
    for job, missing in todo:
        row = rate_of(job.run, rates)
        images = None if row is None else _images(job.run)
        if images is None:
            reason = "no measured rate" if row is None else "its data set is not here to be counted"
            where = f"{job.run.dataset}, {job.run.model}, batch {job.run.batch_size}, {_kind(job.run.device)}: {reason}"
            unknown[where] = unknown.get(where, 0) + missing
        else:
            name = row["device_name"]
            hours[name] = hours.get(name, 0.0) + missing * images / row["images_per_s"] / 3600
    lines += [f"training time: {_duration(spent)} of one {device}" for device, spent in hours.items()]
    lines += [f"training time unknown: {where} ({missing} seeds)" for where, missing in unknown.items()]
    if any("no measured rate" in where for where in unknown):
        lines.append("measure on the machine that will train: make calibrate GRID=... PROFILE=...")
    return "\n".join(lines)


def _count(things: Sequence | set, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, math.ceil(60 * hours))} min"


def _images(run: RunParameters) -> int | None:
    """Training images that one seed sees, or None where the data set cannot be read."""
    size = _training_size(run.dataset, run.n_per_class, run.rho, run.fraction)
    return None if size is None else size * run.make_recipe().epochs


@lru_cache
def _training_size(dataset: str, n_per_class: int | None, rho: float, fraction: float | None) -> int | None:
    from gence.lab import data

    try:  # every seed has a training set of the same size
        return int(data.load_splits(dataset, 0, n_per_class, rho, fraction=fraction).class_counts.sum())
    except (OSError, ValueError):
        return None


def calibrate(jobs: Sequence[Job], folder: Path = RATES) -> list[Path]:
    """Measure how fast each network of a grid trains on this machine, and add it to training-<device>.json.

    Measured are real runs of the grid with few epochs, in a folder of their own. The time of one epoch is taken off, so
    that loading and the last evaluation do not count. Validation after every epoch does: long runs are a bit faster.
    """
    alike = {tuple(_speed_setting(job.run).items()): job.run for job in reversed(jobs)}
    measured: dict[str, list[dict[str, Any]]] = {}
    for setting, run in reversed(alike.items()):
        row = dict(setting) | _measure(run)
        print(f"{run.dataset}, {run.model}, batch {run.batch_size}: {row['images_per_s']} images/s", flush=True)
        measured.setdefault(run.device, []).append(row)
    return [_add_rates(folder, device, rows) for device, rows in measured.items()]


def _add_rates(folder: Path, device: str, rows: list[dict[str, Any]]) -> Path:
    """Write measured speeds into the file of their device, in place of older ones of the same settings."""
    from gence.lab import runs

    path = folder / f"training-{_kind(device)}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rates"] if path.exists() else []
    settings = [[row.get(name) for name in RATE_KEYS] for row in rows]
    kept = [row for row in known if [row.get(name) for name in RATE_KEYS] not in settings]
    content = {"schema": RATES_SCHEMA, "provenance": runs.provenance(device), "rates": kept + rows}
    runs.write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def _measure(run: RunParameters) -> dict[str, float | int]:
    from gence.lab import runs

    def train(epochs: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            # The smoke tier would cut the epochs.
            short = run.model_copy(update={"epochs": epochs, "tier": "laptop", "out": scratch})
            return json.loads(runs.execute(short, progress=False)[0].read_text(encoding="utf-8"))

    train(1)  # the first training of a process also loads and compiles
    first = train(1)["provenance"]["duration_s"]
    for epochs in CALIBRATION_EPOCHS:
        record = train(epochs)
        seconds = record["provenance"]["duration_s"] - first
        if seconds >= CALIBRATION_SECONDS:
            break
    if seconds <= 0:
        raise SystemExit(f"{run.identity} is too fast to be measured: {epochs} epochs take no longer than one")
    images = sum(record["class_counts"]) * (epochs - 1) * len(run.seeds)
    return {"seeds_together": len(run.seeds), "seconds": round(seconds, 3), "images_per_s": round(images / seconds, 1)}


# --- what it gave ----------------------------------------------------------------------------------------------


def collect(grid: list[RunParameters], target: Path, *, bins: int | None = None) -> str:
    """Merge the records of a grid into one table, calibrate what has its logits; say which are missing.

    `bins` is the number of bins of the adaptive temperature scaling, None for the paper's 15; another number has
    columns of its own.

    What a network measures after calibration (`gence.lab.results.sources.calibrated`) stands in the last columns. It
    is fitted once for each record; the table is written after every run, so that a collection that was stopped goes on
    from there.

    The same records give the same bytes. Rows that the table has and the folder lacks stay (their records may lie on
    another machine); rows of runs that the grid does not hold any more go.

    Raises:
        ValueError: a record that is not whole, of another schema, in the wrong place, or with other numbers than the
            table has for it; with its path.
    """
    import pandas as pd

    from gence.lab import data
    from gence.lab.results import sources

    tables, missing = [], []
    for run in grid:
        paths = {run.record_path(seed): seed for seed in run.effective().seeds}
        here = [path for path in paths if path.exists()]
        if here:
            # Run by run, so that what is written of one does not depend on which others are there.
            tables.append(_as_text(_rows_of(run, {str(path): paths[path] for path in here})))
        if absent := [seed for path, seed in paths.items() if not path.exists()]:
            missing.append((run.identity, absent))
    if not tables and not target.exists():
        raise FileNotFoundError(f"no record of this grid under {grid[0].folder.parent}: run it first (make sweep)")

    new = pd.concat(tables) if tables else pd.DataFrame(columns=KEY)
    old = pd.read_csv(target, dtype=str, keep_default_na=False) if target.exists() else pd.DataFrame(columns=KEY)
    identities = {run.identity for run in grid}
    if data.content("av1451") is None:  # without that table its runs have other names here: their rows must stay
        identities |= set(old.loc[old["dataset"] == "av1451", "identity"]) if "dataset" in old else set()
    gone = sorted(set(old["identity"]) - identities)
    options = {} if bins is None else {"ats_bins": bins}
    calibrated = {run.identity: sources.calibrated_columns(run.dataset, run.model, **options) for run in grid}
    table = _with_columns(_merged(old[old["identity"].isin(identities)], new, target), calibrated)
    _write_table(table, target)
    table, uncalibrated = _calibrated(table, grid, calibrated, target, options)

    known = set(zip(table["identity"], table["seed"].astype(int), strict=True))
    missing = [(name, [seed for seed in seeds if (name, seed) not in known]) for name, seeds in missing]
    missing = [(name, seeds) for name, seeds in missing if seeds]
    lines = [f"{target}: {_count(known, 'record')} of {len({name for name, _ in known})} runs"]
    lines += [f"taken out, no longer in the grid: {name}" for name in gone]
    lines += [f"missing: {name}, seeds {_as_seeds(seeds)}" for name, seeds in missing]
    lines += [f"without values after calibration: {what}" for what in uncalibrated]
    if any("too few" in what for what in uncalibrated):
        lines.append("with fewer bins: make collect GRID=... BINS=5 (columns ats5_*), or another number")
    if missing:
        lines.append("train them: make sweep GRID=...")
    return "\n".join(lines)


def _write_table(table: pd.DataFrame, target: Path) -> None:
    from gence.lab import runs

    runs.write_atomically(target, table.to_csv(index=False, lineterminator="\n"))


def _with_columns(table: pd.DataFrame, calibrated: Mapping[str, list[str]]) -> pd.DataFrame:
    """The table with the columns after calibration of all its runs last, empty where they are new."""
    columns = list(dict.fromkeys(name for of_run in calibrated.values() for name in of_run))
    order = [name for name in table.columns if name not in columns]
    return table.reindex(columns=[*order, *columns], fill_value="")


def _calibrated(
    table: pd.DataFrame,
    grid: list[RunParameters],
    names: Mapping[str, list[str]],
    target: Path,
    options: Mapping[str, int],
) -> tuple[pd.DataFrame, list[str]]:
    """The table with its columns after calibration, fitted where they are empty; and what has none, with the reason."""
    from tqdm import tqdm

    from gence.lab.results import sources

    table = table.set_index(KEY)
    without = []
    for run in tqdm(grid, desc="calibration", unit="run", leave=False, disable=None):
        mine = table.loc[table.index.get_level_values("identity") == run.identity, names[run.identity]]
        seeds = sorted({int(seed) for _, seed, _ in mine.index[(mine == "").any(axis=1)]})
        here = [seed for seed in seeds if _has_logits(run, seed)]
        if bare := [seed for seed in seeds if seed not in here]:
            without.append(f"{run.identity}, seeds {_as_seeds(bare)}: no logits here")
        if not here:
            continue
        try:
            found = _as_cells(sources.calibrated(_records_of(run, here), **options))
        except ValueError as error:  # for example too few validation samples; the other runs need not wait for that
            without.append(f"{run.identity}, seeds {_as_seeds(here)}: {error}")
            continue
        table.loc[found.index, found.columns] = found
        _write_table(table.reset_index(), target)
    return table.reset_index(), without


def _has_logits(run: RunParameters, seed: int) -> bool:
    path = run.record_path(seed)
    return path.exists() and path.with_suffix(".npz").exists()


def _records_of(run: RunParameters, seeds: Iterable[int]) -> pd.DataFrame:
    from gence.lab import runs

    table = runs.read_records(run.folder)
    return table[table["path"].isin([str(run.record_path(seed)) for seed in seeds])]


def _as_cells(found: pd.DataFrame) -> pd.DataFrame:
    """Measured values as the text of the table, by its key."""
    return found.astype({"seed": str}).set_index(KEY).map(lambda value: _text(value, DECIMALS))


def _rows_of(run: RunParameters, seeds: Mapping[str, int]) -> pd.DataFrame:
    """The rows of a run's records (path to seed), with their provenance."""
    table = _records_of(run, seeds.values())
    for row in table.to_dict("records"):
        if (row["identity"], row["seed"]) != (run.identity, seeds[row["path"]]):
            raise ValueError(f"{row['path']} holds the record of {row['identity']}, seed {row['seed']}: it was moved")
    origins = {path: json.loads(Path(path).read_text(encoding="utf-8"))["provenance"] for path in seeds}
    for name in ORIGIN:
        table[name] = [origins[path].get(name) for path in table["path"]]
    return table.drop(columns="path")


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """In a fixed order of columns, numbers rounded to what another run reproduces; all of it as text."""
    measured = table.columns[list(table.columns).index("checkpoint") + 1 :]
    middle = [name for name in table.columns if name not in (*KEY, *measured, *ORIGIN)]
    order = [*KEY, *middle, *(name for name in measured if name not in ORIGIN), *ORIGIN]
    table = table[order].astype(object)
    for name in order:
        digits = DECIMALS if name in measured or name == "train_error" else None
        table[name] = [_text(value, digits) for value in table[name]]
    return table


def _text(value: Any, digits: int | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True)
    return repr(round(float(value), digits)) if isinstance(value, float) and digits is not None else str(value)


def _merged(old: pd.DataFrame, new: pd.DataFrame, target: Path) -> pd.DataFrame:
    """The rows of both tables, each one once; where both have a row they must agree in all but its provenance."""
    import pandas as pd

    old, new = old.set_index(KEY), new.set_index(KEY)
    both = old.index.intersection(new.index)
    columns = [name for name in new.columns if name in old.columns and name not in ORIGIN]
    differs = (old.loc[both, columns] != new.loc[both, columns]).stack()
    for *key, name in differs[differs].index:
        raise ValueError(
            f"{target} has {name} = {old.loc[tuple(key), name]} for {key[0]}, seed {key[1]}, but the record says "
            f"{new.loc[tuple(key), name]}. Decide which one holds, then delete the row or the record."
        )
    table = pd.concat([old, new.drop(both)]).fillna("").reset_index()
    return table.sort_values(KEY, key=lambda column: column.astype(int) if column.name == "seed" else column)


def plot(table: Path, target: Path) -> Path:
    """Draw a collected table: error, NLL and ECE of every run at the last epoch, means with 95 % intervals over seeds.

    Raises:
        FileNotFoundError: the grid was not collected yet.
    """
    import matplotlib.pyplot as plt
    import pandas as pd
    from scipy import stats

    if not table.is_file():
        raise FileNotFoundError(f"{table} is not there: collect the records first (make collect GRID=...)")
    last = pd.read_csv(table).query("checkpoint == 'last'")
    only = ("dataset", "model", "loss") if last["identity"].nunique() == 1 else ()
    varied = [
        name for name in SETTINGS_SHOWN if name in only or (name in last and last[name].nunique(dropna=False) > 1)
    ]
    by_run = last.groupby("identity", sort=False)
    labels = [", ".join(f"{n} {g[n].iloc[0]}" if n != "loss" else g[n].iloc[0] for n in varied) for _, g in by_run]
    figure, axes = plt.subplots(1, 3, sharey=True, figsize=(12, 1.2 + 0.24 * len(labels)), layout="constrained")
    for axis, (metric, title) in zip(axes, PLOTTED_METRICS.items(), strict=True):
        found = by_run[metric].agg(["mean", "sem", "count"])
        half = found["sem"].fillna(0) * stats.t.ppf(0.975, (found["count"] - 1).clip(lower=1))
        axis.errorbar(found["mean"], range(len(labels)), xerr=half, fmt="o", capsize=3)
        axis.set_xlabel(title)
        axis.grid(axis="x")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    figure.suptitle(f"{table.stem}: test set, last epoch, mean and 95 % interval over the seeds")
    replace_file(target, lambda file: figure.savefig(file, format="png", dpi=120))
    plt.close(figure)
    return target


SETTINGS_SHOWN = (
    *(
        "dataset",
        "model",
        "n_per_class",
        "fraction",
        "rho",
        "label_noise",
        "batch_size",
        "epochs",
        "lr",
        "weight_decay",
    ),
    *("recipe", "recipe_options", "loss", "loss_options"),
)
PLOTTED_METRICS = {"error": "error", "nll": "NLL (nats)", "ece": "ECE, 15 bins"}


# --- one job ---------------------------------------------------------------------------------------------------


class Progress:
    """Takes what a notebook writes to stderr: of its progress bar a line now and then, of all else every line.

    Papermill writes into it as into a file. The lines go to the log, those of the bar to the terminal too.
    """

    def __init__(self, log: TextIO, terminal: TextIO | None = None, seconds: float = PROGRESS_SECONDS) -> None:
        self.log, self.terminal, self.seconds = log, terminal, seconds
        self.last = time.monotonic() - 0.75 * seconds  # the first one comes soon

    def write(self, text: str) -> int:
        for part in filter(None, map(str.strip, text.replace("\r", "\n").split("\n"))):
            is_bar = "\r" in text and "%|" in part
            if is_bar and time.monotonic() - self.last < self.seconds:
                continue
            if is_bar:
                self.last = time.monotonic()
            for file in (self.log, self.terminal if is_bar else None):
                if file is not None:
                    print(part, file=file, flush=True)
        return len(text)

    def flush(self) -> None:
        """Every line is written at once."""


@contextmanager
def _terminal(descriptor: int | None) -> Iterator[TextIO | None]:
    """The terminal of the engine, where the job has one."""
    if descriptor is None:
        yield None
        return
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        yield file


def train(target: Path, parameters: Mapping[str, Any], *, terminal: int | None = None) -> None:
    """Execute the experiment's notebook; its executed copy appears whole or not at all.

    The notebook writes the records itself. It is executed elsewhere and moved into place last: so a killed job leaves
    nothing half-written, and an orphan of a killed engine does not write into the file of the job that replaced it.
    """
    import papermill

    with tempfile.TemporaryDirectory() as scratch, _terminal(terminal) as shown:
        executed = Path(scratch) / "executed.ipynb"
        options = {"progress_bar": False, "stderr_file": Progress(sys.stderr, shown)}
        papermill.execute_notebook(NOTEBOOK, executed, parameters=dict(parameters), **options)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(executed, copy)
        os.replace(copy, target)


def _bins(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: use a whole number >= 1, such as 5")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("cost", "calibrate", "collect", "plot"):
        command = commands.add_parser(name)
        command.add_argument("grid", type=Path)
        if name != "plot":
            command.add_argument("profile", type=Path, nargs="?")
        if name == "collect":
            command.add_argument("--bins", type=_bins)
    job = commands.add_parser("train")
    job.add_argument("notebook", type=Path)
    job.add_argument("parameters", type=json.loads)
    job.add_argument("--terminal", type=int, metavar="DESCRIPTOR", help="where lines of progress go, beside stderr")
    given = parser.parse_args()
    table = RESULTS / f"{given.grid.stem}.csv" if "grid" in given else None
    if given.command == "train":
        train(given.notebook, given.parameters, terminal=given.terminal)
        return 0
    if given.command == "plot":
        print(plot(table, BUILD / "plots" / f"{given.grid.stem}.png"))
        return 0
    config = settings(given.grid, given.profile)
    if given.command == "cost":
        jobs = read_jobs(config)
        print(f"{given.grid}: {cost(jobs, read_rates())}")
    elif given.command == "calibrate":
        print("\n".join(f"written: {path}" for path in calibrate(read_jobs(config))))
    else:
        overrides = {name: config[name] for name in ("device", "out") if config.get(name)}
        print(collect(read_grid(given.grid, **overrides), table, bins=given.bins))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, FileNotFoundError) as error:  # a wrong grid or record: the message says all there is to say
        sys.exit(str(error))
