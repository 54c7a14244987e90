from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

# pytest's importlib mode leaves folders out of the path; the rooms share references and stand-ins.
sys.path.insert(0, str(Path(__file__).parent / "support"))
# The tensors of the tests are tiny: a second thread makes them no faster, and on a busy machine ten times slower.
torch.set_num_threads(1)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


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
