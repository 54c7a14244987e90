"""What the public repository runs by itself: whole, with no more rights than needed, and with targets that exist."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
CALLS = re.compile(r"\bmake ((?:-s )?[a-z-]+(?: [a-z-]+)*)")
# What a job may do beyond reading, and why.
RIGHTS = {
    ("publish", "deploy"): {"pages": "write", "id-token": "write"},
    ("release", "release"): {"contents": "write"},
    ("release", "pypi"): {"id-token": "write"},
    ("weekly", "report"): {"contents": "read", "issues": "write"},
}


def read(path: Path) -> dict:
    """YAML 1.1 takes the key `on` for a truth value."""
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def commands(job: dict) -> str:
    return "\n".join(step["run"] for step in job.get("steps", ()) if "run" in step)


def called(text: str) -> set[str]:
    return {target for found in CALLS.findall(text) for target in found.split() if target != "-s"}


JOBS = [(path.stem, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]
every_job = pytest.mark.parametrize(("workflow", "name", "job"), JOBS, ids=[f"{w}-{n}" for w, n, _ in JOBS])


@every_job
def test_a_job_calls_targets_that_exist_and_ends_in_time(workflow, name, job):
    if "uses" in job:
        assert (ROOT / job["uses"]).is_file()
        return
    assert called(commands(job)) <= TARGETS
    assert job["runs-on"] == "ubuntu-latest"
    assert 0 < job["timeout-minutes"] <= 360  # where a hosted machine ends a job by itself
    for step in job["steps"]:
        assert ("run" in step) != ("uses" in step)
    for script in re.findall(r"workflow/\w+\.py", commands(job)):
        assert (ROOT / script).is_file()
    # A failure before a pipe must not be lost in it: GitHub sets this only where a step names its shell.
    for step in job["steps"]:
        if "| tee" in step.get("run", ""):
            assert "set -o pipefail" in step["run"]


@every_job
def test_a_job_may_do_only_what_it_needs(workflow, name, job):
    assert read(ROOT / ".github" / "workflows" / f"{workflow}.yml")["permissions"] == {"contents": "read"}
    assert job.get("permissions", {}) == RIGHTS.get((workflow, name), {})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_and_tools_are_pinned_and_need_no_secret(path):
    text = path.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+(\.\d+)*|\./\S+", action) for action in used), used
    assert not re.search(r"\bsecrets\.|\bpassword:", text), "only the token of the run, and a trusted publisher"
    for tool in re.findall(r"pipx run (.*?) ", text.replace("--spec ", "")):
        assert "==" in tool
    for package in re.findall(r"npx --yes (\S+)", text):
        assert re.search(r"@\d+\.\d+\.\d+$", package)
    # Text that others may choose goes through the environment, never into a script.
    assert not re.search(r"run:[^#]*\$\{\{ *github\.(event|head_ref|ref_name)", text)


def test_browser_tests_are_not_skipped():
    for workflow, name, job in JOBS:
        if called(commands(job)) & {"test", "test-thorough", "pdf"}:
            assert "apt-get install --yes chromium" in commands(job), (workflow, name)


def by_name(workflow: str) -> dict:
    return read(ROOT / ".github" / "workflows" / f"{workflow}.yml")


def test_every_change_is_tested():
    test = by_name("test")
    assert {"push", "pull_request"} <= set(test["on"])
    (job,) = test["jobs"].values()
    assert {"lint", "html", "test"} <= called(commands(job)) and "actionlint" in commands(job)
    engine = (ROOT / "workflow" / "Snakefile").read_text()
    assert "build --all -W" in engine and "check-pages" in engine


def test_once_a_week_all_is_tried_and_one_issue_says_what_fails():
    weekly = by_name("weekly")
    (when,) = weekly["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"]) and "workflow_dispatch" in weekly["on"]
    jobs = weekly["jobs"]
    done = {name: commands(job) for name, job in jobs.items()}
    assert "make test-thorough" in done["thorough"]
    assert "make book" in done["locked"] and "cache" not in str(jobs["locked"])
    assert "make test PINS= " in done["newest"] and re.search(r"^PINS \?= -c constraints\.txt$", MAKEFILE, re.MULTILINE)
    assert "make links" in done["links"]
    assert set(jobs["report"]["needs"]) == set(jobs) - {"report"}
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    tried = jobs["thorough"]["strategy"]["matrix"]["python"]
    assert needs == f">={tried[0]}" and tried[-1] == "3.13"
    assert "(3, 13)" in MAKEFILE, "the Makefile and the workflow agree on the newest Python"
    for name in set(jobs) - {"report", "containers"}:
        (kept,) = (step for step in jobs[name]["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
        assert kept["if"] == "always()" and kept["with"]["name"].startswith(name)
        assert all(file in done[name] for file in kept["with"]["path"].split())


def test_a_release_has_all_its_files():
    release = by_name("release")
    assert release["on"] == {"push": {"tags": ["v*"]}}
    assert {"release-notes", "dist", "html", "pdf"} <= called(commands(release["jobs"]["build"]))
    assert release["jobs"]["build"]["steps"][-1]["with"]["if-no-files-found"] == "error"
    rule = MAKEFILE.split("\ndist:")[1].split("\n\n")[0]
    assert "-m build" in rule and "--wheel" not in rule and "--sdist" not in rule, "one of the two alone"
    assert by_name("publish")["on"]["workflow_run"]["workflows"] == [release["name"]]


def test_the_images_are_built_where_they_are_used():
    build = by_name("containers")["jobs"]["build"]
    tried = {row["image"]: row["command"] for row in build["strategy"]["matrix"]["include"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE)
    assert stages[-1] == "book" and "--target jobs" in tried["jobs"]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["build"]
    assert container["target"] in stages and (ROOT / ".devcontainer" / container["dockerfile"]).resolve().is_file()
    binder = ROOT / "binder"
    assert (binder / "postBuild").stat().st_mode & 0o111, "Binder runs it as a program"
    install = (binder / "postBuild").read_text()
    assert "whl/cpu" in install and "-c constraints.txt" in install
    assert set(re.findall(r"\bmake ([a-z]+)", dockerfile)) <= TARGETS
    subprocess.run(["bash", "-n", binder / "postBuild"], check=True)
