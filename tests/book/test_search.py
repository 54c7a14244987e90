"""What a reader types into the search, and the page that should be among the first three hits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from web import Opened, served

HTML = Path(__file__).resolve().parents[2] / "_build" / "committed" / "html"
QUERIES = {
    "ATS": ["calibration/algorithm_1", "calibration/temperatures", "experiments/ats_bins"],
    "ats bins": ["experiments/ats_bins"],
    "adaptive temperature scaling": ["calibration/temperatures", "calibration/algorithm_1", "experiments/ats_bins"],
    "logit adjustment": [
        "losses/loss_family",
        "batch/when_to_use",
        "experiments/long_tails",
        "experiments/photographs",
    ],
    "rho": ["experiments/long_tails", "batch/mini_batches", "book/explorers", "experiments/photographs"],
    "ρ": ["experiments/long_tails", "batch/mini_batches", "book/explorers", "experiments/photographs"],
    "s_k": ["batch/mini_batches", "book/explorers"],
    "tau": ["losses/loss_family", "experiments/long_tails", "calibration/temperatures"],
    "GenCE": ["book/loss", "idea/why_another_loss", "book/index", "batch/full_batch"],
    "focal loss": ["losses/loss_family", "proper/proper_losses", "experiments/hybrid"],
    "label smoothing": ["losses/loss_family", "proper/proper_losses"],
    "Brier": ["proper/proper_losses", "proper/accuracy_and_calibration"],
    "proper loss": ["proper/proper_losses"],
    "ECE": ["calibration/measuring_calibration", "proper/accuracy_and_calibration"],
    "reliability diagram": ["calibration/measuring_calibration", "proper/accuracy_and_calibration"],
    "temperature": ["calibration/temperatures"],
    "theorem 1": ["generative/theorem_1"],
    "Bayes rule": ["generative/bayes_rewrite"],
    "gradient": ["generative/gradients"],
    "batch size": ["experiments/batch_size", "batch/mini_batches"],
    "absent classes": ["experiments/batch_size", "batch/mini_batches"],
    "mini-batch": ["batch/mini_batches"],
    "full batch": ["batch/full_batch"],
    "long tail": ["experiments/long_tails"],
    "OOD": ["experiments/ood"],
    "foreign images": ["experiments/ood"],
    "AUROC": ["experiments/ood"],
    "entropy": ["experiments/entropy", "experiments/entropy_weights"],
    "Slurm": ["book/running"],
    "DataLoader": ["book/training_code", "book/api", "book/loss", "engine/engine"],
    "accumulated_backward": ["book/api", "book/training_code"],
    "out of distribution": ["experiments/ood"],
    "ResNet": ["experiments/photographs", "engine/engine"],
    "refuted": ["book/claims", "batch/predictions", "book/course/capstone"],
    "Guo": ["book/references", "calibration/temperatures", "calibration/measuring_calibration"],
    "Colab": ["book/reexecute"],
}
LATEX = r"\\[a-zA-Z]+|\\[()\[\]]"
ALL_SHOWN = """() => {
    const hits = [...document.querySelectorAll('ul.search > li')];
    return hits.length > 0 && hits.every(hit => hit.querySelector('p.context, span'));
}"""
RUN = """query => {
    const words = Search._parseQuery(query);
    return Search._performSearch(...words).reverse().map(hit => hit[0]);
}"""


@pytest.fixture(scope="module")
def search(browser):
    with served(HTML) as site:
        found = Opened(browser, site, "search")
        yield found
        found.context.close()


@pytest.mark.parametrize("query", QUERIES)
def test_a_page_about_it_is_among_the_first_three(search, query):
    # The glossary says what a word means, and may stand before the pages about it.
    hits = [hit for hit in search.page.evaluate(RUN, query) if hit != "book/glossary"][:3]
    assert any(hit.removeprefix("notebooks/") in QUERIES[query] for hit in hits), hits


def test_excerpts_are_words_and_formulas_are_plain(search):
    page = search.page
    for query in ("rho", "logit adjustment"):
        page.goto(page.url.partition("?")[0] + f"?q={query}", wait_until="load")
        page.locator("#search-results p.context").first.wait_for()
        page.wait_for_function(ALL_SHOWN)
        excerpts = page.locator("#search-results p.context").all_inner_texts()
        assert len(excerpts) >= 5
        assert [text for text in excerpts if re.search(LATEX, text)] == []
    assert search.errors == []
