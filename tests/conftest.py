from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# pytest's importlib mode leaves folders out of the path; the rooms share references and stand-ins.
sys.path.insert(0, str(Path(__file__).parent / "support"))
# The tensors of the tests are tiny: a second thread makes them no faster, and on a busy machine ten times slower.
torch.set_num_threads(1)

# How many examples a property is tried on: enough to catch a change, and many more in `make test-thorough`.
settings.register_profile("change", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "change"))

STARTED = time.monotonic()
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_addoption(parser):
    parser.addoption("--within", type=float, metavar="SECONDS", help="start no test after this time; say how many")


def pytest_runtest_setup(item):
    within = item.config.getoption("--within")
    if within is not None and time.monotonic() - STARTED > within:
        pytest.skip(f"not started: {within:.0f} s are over. They are left for `make test`")


@pytest.fixture(scope="module")
def browser():
    """Debian's or Google's Chromium, headless; without one the tests that need it are skipped, and say so."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        message = f"no browser found (looked for {', '.join(BROWSERS)}): install one, for example apt install chromium"
        pytest.fail(message) if os.environ.get("GENCE_REQUIRE_BROWSER") else pytest.skip(message)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()
