"""What the workflows in .github do beside calling `make`: standard library only, so that they need install nothing.

python workflow/publishing.py notes TAG              the changelog's section for a tag; fails where versions disagree
python workflow/publishing.py site SITE DEV [BOOKS]  lay out the public site: a folder for each version
python workflow/publishing.py report RESULTS LOGS    keep ONE issue about the weekly runs, with the causes
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
# GitHub serves no larger site.
LARGEST_SITE = 1_000_000_000

# --- a release -------------------------------------------------------------------------------------------------


def notes(tag: str, root: Path = ROOT) -> str:
    """The section of the changelog for a tag such as v0.3.0, which CITATION.cff must name too."""
    if not TAG.fullmatch(tag):
        raise SystemExit(f"TAG = {tag!r} is no version: write it like v0.3.0")
    version = tag[1:]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section for {version}: rename `## Unreleased` to `## {version}`")
    cited = re.search(r"^version: *\"?([^\s\"]+)", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if not cited or cited[1] != version:
        raise SystemExit(f"CITATION.cff says version {cited[1] if cited else 'nothing'}, the tag says {version}")
    return found[1].strip()


# --- the site --------------------------------------------------------------------------------------------------


def site(target: Path, dev: Path, books: Path | None = None) -> list[str]:
    """Lay out ``dev/``, a folder for each release in ``books/TAG.tar.gz``, ``stable/``, and the page that lists them.

    Returns the folders, the newest release first. Without a release ``stable/`` leads to ``dev/``.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dev, target / "dev")
    releases = sorted(books.glob("v*.tar.gz") if books else [], key=_version, reverse=True)
    tags = [path.name.removesuffix(".tar.gz") for path in releases]
    for tag, path in zip(tags, releases, strict=True):
        with tarfile.open(path) as archive:
            archive.extractall(target / tag, filter="data")
        if not (target / tag / "index.html").is_file():
            raise SystemExit(f"{path.name} holds no index.html at its top")
    if tags:
        shutil.copytree(target / tags[0], target / "stable")
    else:
        (target / "stable").mkdir()
        (target / "stable" / "index.html").write_text(_leads_to("../dev/"), encoding="utf-8")
    (target / "index.html").write_text(_leads_to("stable/"), encoding="utf-8")
    (target / "versions.html").write_text(_listed(tags), encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > LARGEST_SITE:
        raise SystemExit(f"the site has {size / 1e6:.0f} MB, more than the 1,000 MB that Pages serves: drop old books")
    return [*tags, "stable", "dev"]


def _version(path: Path) -> tuple[int, ...]:
    found = TAG.fullmatch(path.name.removesuffix(".tar.gz"))
    if not found:
        raise SystemExit(f"{path.name} is no book of a release: its name must be like v0.3.0.tar.gz")
    return tuple(map(int, found.groups()))


def _leads_to(folder: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The GenCE book</title>'
        f'<meta http-equiv="refresh" content="0; url={folder}"></head>'
        f'<body><p><a href="{folder}">The GenCE book</a></p></body></html>\n'
    )


def _listed(tags: list[str]) -> str:
    said = {
        "stable": f"the newest release, {tags[0]}" if tags else "no release yet: the same as dev",
        "dev": "the main branch",
    }
    rows = [f'<li><a href="{name}/">{name}</a>: {text}</li>' for name, text in said.items()]
    rows += [f'<li><a href="{tag}/">{tag}</a></li>' for tag in tags]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Versions of the GenCE book</title>'
        '<meta name="viewport" content="width=device-width"></head>'
        f"<body><h1>Versions of the GenCE book</h1><ul>{''.join(rows)}</ul></body></html>\n"
    )


# --- the weekly report -----------------------------------------------------------------------------------------

LABEL = "weekly"
TITLE = "The weekly runs fail"
# What a failure of a job means when the others pass.
CAUSES = {
    "locked": "The locked versions no longer install, or no longer give the book: something outside them changed.",
    "newest": "A newer version of a dependency breaks the tests, or changes the outputs.",
    "links": "Links to other hosts are broken.",
    "thorough": "A slow repetition, or a framework of other people's training code, fails.",
    "containers": "The Docker image, the devcontainer or the Binder image no longer builds.",
}
TELLING = re.compile(r"^(FAILED|ERROR|E  )|\bbroken\b|\b\w*(Error|Exception)\b|WARNING", re.MULTILINE)
SHOWN = 20


def report(results: dict[str, dict[str, str]], logs: Path, run: str) -> str:
    """Open the issue about the weekly runs, bring it up to date, or close it; returns what was done."""
    failed = {job: found["result"] for job, found in results.items() if found["result"] not in ("success", "skipped")}
    # A job that nobody described would be reported without a cause.
    if unknown := set(results) - set(CAUSES):
        raise SystemExit(f"no cause is written for the jobs {sorted(unknown)}")
    numbers = _gh(
        "issue", "list", "--label", LABEL, "--state", "open", "--json", "number", "--jq", ".[].number"
    ).split()
    if not failed:
        for number in numbers:
            _gh("issue", "close", number, "--comment", f"All weekly runs pass again: {run}")
        return "all pass"
    body = _body(failed, logs, run)
    if numbers:
        _gh("issue", "edit", numbers[0], "--body-file", "-", given=body)
        _gh("issue", "comment", numbers[0], "--body", f"Again: {', '.join(failed)}. {run}")
        return f"issue {numbers[0]} brought up to date"
    _gh("label", "create", LABEL, "--force", "--description", "Kept by the weekly workflow")
    _gh("issue", "create", "--title", TITLE, "--label", LABEL, "--body-file", "-", given=body)
    return "issue opened"


def _body(failed: dict[str, str], logs: Path, run: str) -> str:
    parts = [f"Last run: {run}. This text is kept up to date, and the issue closes by itself when all runs pass."]
    for job, result in failed.items():
        parts += [f"## {job}: {result}", CAUSES[job]]
        for log in sorted(logs.glob(f"{job}*/*.log")):
            parts += [f"`{log.parent.name}`", f"```text\n{telling(log)}\n```"]
        for versions in sorted(logs.glob(f"{job}*/versions.txt")):
            parts += ["Versions that differ from `constraints.txt`:", f"```text\n{newer(versions)}\n```"]
    return "\n\n".join(parts) + "\n"


def telling(log: Path) -> str:
    """The lines of a log that say what went wrong; its last lines where none does."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line for line in lines if TELLING.search(line)] or lines
    return "\n".join(line[:300].replace("```", "'''") for line in found[-SHOWN:])


def newer(versions: Path, root: Path = ROOT) -> str:
    """The packages of a `pip freeze` whose versions are not those of constraints.txt."""
    locked = _versions((root / "constraints.txt").read_text(encoding="utf-8"))
    there = _versions(versions.read_text(encoding="utf-8"))
    return "\n".join(
        f"{name}: {locked.get(name, 'none')} -> {there[name]}"
        for name in sorted(there)
        if there[name] != locked.get(name)
    )


def _versions(frozen: str) -> dict[str, str]:
    pairs = re.findall(r"^([\w.-]+)==(\S+)", frozen, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def _gh(*arguments: str, given: str | None = None) -> str:
    return subprocess.run(["gh", *arguments], input=given, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str]) -> None:
    match arguments:
        case ["notes", tag]:
            print(notes(tag))
        case ["site", target, dev, *books] if len(books) <= 1:
            print("\n".join(site(Path(target), Path(dev), *map(Path, books))))
        case ["report", results, logs]:
            print(report(json.loads(results), Path(logs), os.environ["RUN"]))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
