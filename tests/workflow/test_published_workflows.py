"""What the public repository runs by itself: whole, and nothing but targets that the Makefile has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def read(path: Path) -> dict:
    """YAML 1.1 takes the key `on` for a truth value."""
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def commands(job: dict) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_exist_and_ends_in_time(path):
    found = read(path)
    assert found["name"] and found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        called = re.findall(r"\bmake ([a-z-]+)", commands(job))
        assert called and set(called) <= TARGETS
        assert job["runs-on"] == "ubuntu-latest"
        assert 0 < job["timeout-minutes"] <= 360  # where a hosted machine ends a job by itself
        assert "apt-get install --yes chromium" in commands(job), "the browser tests would be skipped"
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)


def test_every_change_is_tested_and_once_a_week_thoroughly():
    by_name = {path.stem: read(path) for path in WORKFLOWS}
    assert set(by_name) == {"test", "weekly"}
    assert {"push", "pull_request"} <= set(by_name["test"]["on"])
    weekly = by_name["weekly"]
    (when,) = weekly["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"]) and "workflow_dispatch" in weekly["on"]
    (job,) = weekly["jobs"].values()
    assert "make test-thorough" in commands(job) and "pipefail" in commands(job)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert needs == f">={job['strategy']['matrix']['python'][0]}" and job["strategy"]["matrix"]["python"][-1] == "3.13"
    assert "(3, 13)" in (ROOT / "Makefile").read_text(), "the Makefile and the workflow agree on the newest Python"
    (kept,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
    assert kept["if"] == "always()" and kept["with"]["path"] in commands(job)
