"""The three interactive figures: their mathematics against the package, and their use by keyboard, touch and eye."""

from __future__ import annotations

import csv
import itertools
import math
import re
import shutil
from decimal import Decimal, localcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from scipy.special import softmax

from gence.losses import brier_loss, focal_loss, generative_cross_entropy

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "_static" / "explorers"
BUILT = ROOT / "_build" / "committed" / "html"
LOSSES = [
    ("ce", 0.0),
    ("brier", 0.0),
    *(("focal", g) for g in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)),
    *(("lq", a) for a in (0.05, 0.5, 0.95, 1.0)),
    *(("smooth", e) for e in (0.0, 0.1, 0.9)),
]
PROPER = [("ce", 0.0), ("brier", 0.0), ("focal", 0.0), ("smooth", 0.0)]
STRENGTHS = (0.0, 0.35, 1.0)
BATCHES = [(2, 3, 0.0, 1), (5, 4, 4.0, 2), (10, 16, 2.0, 3), (30, 20, 8.0, 4), (3, 40, 1.0, 5)]  # K, B, margin, seed
TAILS = list(itertools.product((2, 5, 10, 100, 1000), (1, 2, 20, 200), (1, 2, 3, 64, 1024, 4096)))  # K, rho, B


def load_static() -> ModuleType:
    """The script behind the print alternatives, loaded without leaving compiled files among the book's sources."""
    path = ROOT / "book" / "explorers_static.py"
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    return module


static = load_static()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def harness() -> str:
    """The page with nothing but its figures: what explorers.md gives to the browser, without a theme."""
    blocks = re.findall(r"```\{raw\} html\n(.*?)```", (ROOT / "book" / "explorers.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    look = (
        "document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark':'light'"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>Explorers</title><script>{look}</script><body><article>'
        f"{''.join(blocks)}</article></body></html>"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorers")
    (folder / "book").mkdir()
    (folder / "book" / "explorers.html").write_text(harness(), encoding="utf-8")
    shutil.copytree(FOLDER, folder / "_static" / "explorers")
    return folder


@pytest.fixture(scope="module")
def js(browser, folder):
    """Call an exported function with each of a list of argument lists."""
    page = browser.new_page()
    page.goto((folder / "book" / "explorers.html").as_uri())

    def call(explorer: str, function: str, arguments: list[list]) -> list:
        script = f"calls => calls.map(a => Gence{explorer}Explorer.{function}(...a))"
        return page.evaluate(script, arguments)

    yield call
    page.close()


@pytest.fixture
def page(browser, folder):
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.goto((folder / "book" / "explorers.html").as_uri())
    yield page
    context.close()


# --- the loss explorer's mathematics ------------------------------------------------------------------------------


def beliefs(n: int = 12) -> list[list[float]]:
    rng = np.random.default_rng(0)
    edges = [[1 / 3] * 3, [0.0, 0.4, 0.6], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.99, 0.005, 0.005], [0.5, 0.35, 0.15]]
    return [*edges, *rng.dirichlet([1, 1, 1], n).tolist()]


def grid() -> list[tuple[tuple[str, float], list[float]]]:
    return list(itertools.product(LOSSES, beliefs()))


def as_js(name: str, t: float) -> dict:
    return {"name": name, "t": t}


def package_losses(name: str, t: float, logits: torch.Tensor) -> torch.Tensor:
    """(K,) losses of one row of logits, one for each true class, from the package or from torch."""
    k = len(logits)
    rows, labels = logits.expand(k, k), torch.arange(k)
    if name == "brier":
        return brier_loss(rows, labels, reduction="none")
    if name == "focal":
        return focal_loss(rows, labels, gamma=t, reduction="none")
    if name == "lq":
        return (1 - rows.softmax(1).diagonal() ** t) / t
    smoothing = t if name == "smooth" else 0.0
    return generative_cross_entropy(rows, labels, reduction="none", label_smoothing=smoothing, strength=0.0)


def test_point_losses_and_risks_are_those_of_the_package(js):
    predictions = np.random.default_rng(1).dirichlet([1, 1, 1], 5).tolist()
    cases = list(itertools.product(LOSSES, predictions))
    point = js("Loss", "pointLoss", [[as_js(*loss), p, k] for loss, p in cases for k in range(3)])
    expected = [package_losses(*loss, torch.tensor(p, dtype=torch.float64).log()).numpy() for loss, p in cases]
    np.testing.assert_allclose(np.reshape(point, (-1, 3)), expected, rtol=0, atol=1e-9)

    triples = [(loss, p, q) for loss, p in cases for q in beliefs()]
    risks = js("Loss", "risk", [[as_js(*loss), p, q] for loss, p, q in triples])
    expected = [package_losses(*loss, torch.tensor(p, dtype=torch.float64).log()).numpy() @ q for loss, p, q in triples]
    np.testing.assert_allclose(risks, expected, rtol=0, atol=1e-9)


def test_a_risk_is_infinite_only_where_a_possible_class_gets_no_probability(js):
    ce = as_js("ce", 0.0)
    values = js("Loss", "risk", [[ce, [0, 0.5, 0.5], [0.2, 0.4, 0.4]], [ce, [0, 0.5, 0.5], [0, 0.4, 0.6]]])
    assert values[0] == np.inf
    assert values[1] == pytest.approx(np.log(2))


def test_minimisers_agree_with_an_independent_root_search(js):
    best = js("Loss", "minimiser", [[as_js(*loss), q] for loss, q in grid()])
    expected = [static.minimiser(*loss, np.array(q)) for loss, q in grid()]
    np.testing.assert_allclose(best, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.sum(best, axis=1), 1, atol=1e-12)


def test_at_the_minimiser_the_packages_gradient_of_the_risk_vanishes(js):
    cases = [(loss, q) for loss, q in grid() if min(q) > 0 and loss != ("lq", 1.0)]
    best = js("Loss", "minimiser", [[as_js(*loss), q] for loss, q in cases])
    for (loss, q), p in zip(cases, best, strict=True):
        z = torch.tensor(p, dtype=torch.float64).log().requires_grad_()
        risk = package_losses(*loss, z) @ torch.tensor(q, dtype=torch.float64)
        (slope,) = torch.autograd.grad(risk, z)
        assert slope.abs().max() < 1e-9, (loss, q)


def test_no_other_prediction_has_a_smaller_risk(js):
    others = np.random.default_rng(2).dirichlet([1, 1, 1], 20)
    calls = [[as_js(*loss), p, q] for loss, q in grid() for p in others.tolist()]
    values = np.reshape(js("Loss", "excess", calls), (-1, len(others)))
    assert values.min() > -1e-12
    expected = [static.excess(*loss, others, np.array(q)) for loss, q in grid()]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)


def test_proper_is_said_of_the_losses_whose_minimiser_is_the_belief(js):
    said = js("Loss", "isProper", [[as_js(*loss)] for loss in LOSSES])
    assert [loss for loss, proper in zip(LOSSES, said, strict=True) if proper] == PROPER
    for loss in LOSSES:
        best = js("Loss", "minimiser", [[as_js(*loss), q] for q in beliefs()])
        assert (np.abs(np.subtract(best, beliefs())).max() < 1e-12) == (loss in PROPER)


def test_regret_of_a_proper_loss_is_its_bregman_divergence_and_others_have_none(js):
    predictions = np.random.default_rng(3).dirichlet([1, 1, 1], 8).tolist()
    cases = list(itertools.product(PROPER, beliefs(), predictions))
    regrets = js("Loss", "excess", [[as_js(*loss), p, q] for loss, q, p in cases])
    divergences = js("Loss", "bregman", [[as_js(*loss), q, p] for loss, q, p in cases])
    np.testing.assert_allclose(regrets, divergences, rtol=0, atol=1e-9)
    by_hand = [
        np.square(np.subtract(p, q)).sum()
        if loss[0] == "brier"
        else sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b)
        for loss, q, p in cases
    ]
    np.testing.assert_allclose(divergences, by_hand, rtol=0, atol=1e-9)
    improper = [[as_js(*loss), [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]] for loss in LOSSES if loss not in PROPER]
    assert set(js("Loss", "bregman", improper)) == {None}


def test_arrow_keys_stay_on_the_simplex_and_go_where_they_point(js):
    points = [*beliefs(), [0.004, 0.996, 0.0], [0.0, 0.0, 1.0]]
    keys = ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown")
    cases = list(itertools.product(points, keys, (0.01, 0.1)))
    for (p, key, step), moved in zip(cases, js("Loss", "arrow", [list(c) for c in cases]), strict=True):
        assert sum(moved) == pytest.approx(1, abs=1e-12)
        assert min(moved) >= 0
        across, height = (moved[1] - moved[0]) - (p[1] - p[0]), moved[2] - p[2]
        if key in ("ArrowLeft", "ArrowRight"):
            wanted = min(step, p[1] if key == "ArrowLeft" else p[0]) * (-2 if key == "ArrowLeft" else 2)
            assert (across, height) == (pytest.approx(wanted, abs=3e-6), pytest.approx(0, abs=3e-6))
        else:
            assert height == pytest.approx(min(step, 1 - p[2]) if key == "ArrowUp" else -min(step, p[2]), abs=3e-6)
    assert js("Loss", "arrow", [[[0.2, 0.3, 0.5], "Tab", 0.01]]) == [None]


def test_projection_and_setting_one_probability(js):
    rng = np.random.default_rng(4)
    outside = rng.normal(size=(30, 3)).tolist()
    for v, p in zip(outside, js("Loss", "project", [[v] for v in outside]), strict=True):
        assert sum(p) == pytest.approx(1, abs=1e-12)
        assert min(p) >= 0
        for other in np.eye(3):  # nearest: every corner lies behind the plane through p
            assert np.dot(np.subtract(v, p), other - p) < 1e-12
    assert js("Loss", "setOne", [[[0.2, 0.3, 0.5], 0, 0.6]])[0] == pytest.approx([0.6, 0.15, 0.25])
    assert js("Loss", "setOne", [[[1.0, 0.0, 0.0], 0, 0.5]])[0] == pytest.approx([0.5, 0.25, 0.25])


def test_contour_lines_run_along_their_level(js):
    levels = [0.03, 0.3]
    for name, t in [("ce", 0.0), ("brier", 0.0), ("focal", 2.0), ("lq", 0.5)]:
        q = [0.5, 0.35, 0.15]
        (lines,) = js("Loss", "contours", [[as_js(name, t), q, levels]])
        for level, segments in zip(levels, lines, strict=True):
            ends = np.array(segments).reshape(-1, 3)
            assert len(ends) > 20
            inner = ends[ends.min(1) > 0.03]
            np.testing.assert_allclose(static.excess(name, t, inner, np.array(q)), level, rtol=0.12)


# --- the batch explorer's mathematics -----------------------------------------------------------------------------


def test_expected_and_distributed_numbers_of_absent_classes(js):
    cases = [[k, b] for k in (2, 3, 10, 100, 200) for b in (1, 2, 16, 128)]
    expected = js("Batch", "expectedAbsent", cases)
    np.testing.assert_allclose(expected, [k * (1 - 1 / k) ** b for k, b in cases], rtol=1e-11, atol=1e-12)
    for (k, b), mean, chance in zip(cases, expected, js("Batch", "absentDistribution", cases), strict=True):
        np.testing.assert_allclose(chance, static.absent_distribution(k, b), rtol=0, atol=1e-12)
        assert sum(chance) == pytest.approx(1, abs=1e-12)
        assert np.dot(chance, np.arange(k + 1)) == pytest.approx(mean, abs=1e-9)
    # All 3^4 label sequences of four samples, counted.
    missing = [3 - len(set(labels)) for labels in itertools.product(range(3), repeat=4)]
    counted = np.bincount(missing, minlength=4) / len(missing)
    np.testing.assert_allclose(js("Batch", "absentDistribution", [[3, 4]])[0], counted, atol=1e-15)


@pytest.fixture(scope="module", params=BATCHES, ids=lambda b: f"K{b[0]}-B{b[1]}")
def batch(request, js):
    """One drawn batch: labels, logits, probabilities."""
    drawn = js("Batch", "drawBatch", [list(request.param)])[0]
    labels, logits = static.draw_batch(*request.param)
    assert drawn["labels"] == labels.tolist()
    np.testing.assert_allclose(drawn["logits"], logits, rtol=0, atol=1e-12)
    p = js("Batch", "softmax", [[drawn["logits"]]])[0]
    np.testing.assert_allclose(p, softmax(logits, axis=1), rtol=0, atol=1e-14)
    return labels.tolist(), logits, p


def test_batch_loss_and_gradient_are_those_of_the_package(js, batch):
    labels, logits, p = batch
    for strength in STRENGTHS:
        z = torch.tensor(logits, requires_grad=True)
        loss = generative_cross_entropy(z, torch.tensor(labels), strength=strength)
        loss.backward()
        assert js("Batch", "batchLoss", [[p, labels, strength]])[0] == pytest.approx(loss.item(), abs=1e-9)
        gradient = js("Batch", "gradient", [[p, labels, strength]])[0]
        np.testing.assert_allclose(gradient, z.grad, rtol=0, atol=1e-9)
        absent = sorted(set(range(len(p[0]))) - set(labels))
        push = js("Batch", "absentPush", [[p, labels, strength]])[0]
        if absent:
            assert push == pytest.approx(z.grad.sum(0)[absent].mean().item(), abs=1e-9)
            assert push == pytest.approx(static.absent_push(np.array(p), np.array(labels), strength), abs=1e-12)
        else:
            assert push is None


def test_a_leak_changes_the_loss_by_its_price_and_genCE_not_at_all(js, batch):
    labels, _, p = batch
    absent = sorted(set(range(len(p[0]))) - set(labels))
    for strength, epsilon in itertools.product(STRENGTHS, (0.0, 0.3, 0.95)):
        leaked = np.array(js("Batch", "leak", [[p, labels, epsilon]])[0])
        np.testing.assert_allclose(leaked.sum(1), 1, atol=1e-12)
        before, after = (
            generative_cross_entropy(torch.tensor(t).log(), torch.tensor(labels), strength=strength).item()
            for t in (np.array(p), leaked)
        )
        price = js("Batch", "leakChange", [[strength, epsilon]])[0]
        assert price == pytest.approx(-(1 - strength) * np.log(1 - epsilon), abs=1e-12)
        assert after - before == pytest.approx(price if absent else 0, abs=1e-9)


def test_the_mean_of_the_weights_is_one_so_equal_predictions_leave_no_push(js):
    p = [[0.1, 0.2, 0.3, 0.4]] * 5
    assert js("Batch", "absentPush", [[p, [0, 0, 1, 0, 1], 1.0]])[0] == pytest.approx(0, abs=1e-15)
    assert js("Batch", "absentPush", [[p, [0, 0, 1, 0, 1], 0.0]])[0] == pytest.approx(0.35)


# --- the tail explorer's mathematics ------------------------------------------------------------------------------


def tail(k: int, rho: float) -> np.ndarray:
    """Class frequencies, written down a second time."""
    counts = rho ** -(np.arange(k) / (k - 1))
    return counts / counts.sum()


@pytest.fixture(scope="module")
def tails(js):
    """The frequencies that the page computes, by K and rho."""
    settings = list(dict.fromkeys((k, rho) for k, rho, _ in TAILS))
    return dict(zip(settings, js("Tail", "classShares", [list(s) for s in settings]), strict=True))


def test_class_frequencies_fall_exponentially(tails):
    for (k, rho), pi in tails.items():
        np.testing.assert_allclose(pi, tail(k, rho), rtol=1e-12)
        np.testing.assert_allclose(static.class_shares(k, rho), tail(k, rho), rtol=1e-12)
        assert sum(pi) == pytest.approx(1, abs=1e-12)
        assert pi[0] / pi[-1] == pytest.approx(rho, rel=1e-12)
        np.testing.assert_allclose(np.diff(np.log(pi)), -np.log(rho) / (k - 1), atol=1e-12)


def test_the_share_left_out_is_that_of_numpy_and_all_of_it_for_one_sample(js, tails):
    shares = js("Tail", "shareLeftOut", [[tails[k, rho], b] for k, rho, b in TAILS])
    absent = js("Tail", "expectedAbsent", [[tails[k, rho], b] for k, rho, b in TAILS])
    for (k, rho, b), got, lacking in zip(TAILS, shares, absent, strict=True):
        wanted = ((1 - tail(k, rho)) ** b).sum() / (k - 1)
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-15), (k, rho, b)
        assert lacking == pytest.approx(wanted * (k - 1), rel=1e-9, abs=1e-15)
        assert got == pytest.approx(static.share_left_out(tail(k, rho), b), rel=1e-9, abs=1e-15)
        assert 0 <= got <= 1
        assert (got == 1) == (b == 1)


def test_the_share_left_out_is_that_of_drawn_batches(js):
    k, rho, b = 20, 50, 16
    (pi,) = js("Tail", "classShares", [[k, rho]])
    labels = np.random.default_rng(0).choice(k, (20_000, b), p=tail(k, rho))
    present = np.zeros((len(labels), k), dtype=bool)
    np.put_along_axis(present, labels, True, axis=1)
    # Each sample has a push on each class but its own; those on absent classes are left out.
    pushes = np.arange(k) != labels[..., None]
    drawn = (pushes & ~present[:, None]).sum() / pushes.sum()
    assert js("Tail", "shareLeftOut", [[pi, b]])[0] == pytest.approx(drawn, abs=0.003)
    without = js("Tail", "chanceWithout", [[x, b] for x in pi])
    np.testing.assert_allclose(without, 1 - present.mean(0), atol=0.015)
    # The chance that a class is among the other samples is taken from the others of the first sample alone.
    others = (labels[:, 1:, None] == np.arange(k)).any(1).mean(0)
    np.testing.assert_allclose(np.exp(js("Tail", "logPresence", [[x, b] for x in pi])), others, atol=0.015)


def test_adjustments_are_exact_to_many_digits_and_never_infinite(js, tails):
    calls = [[tails[k, rho], b] for k, rho, b in TAILS]
    for (pi, b), got in zip(calls, js("Tail", "implicitAdjustment", calls), strict=True):
        if b == 1:
            assert got is None
            continue
        assert np.isfinite(got).all()
        with localcontext() as context:  # 60 digits: no cancellation, and another language
            context.prec = 60
            s = [1 - (1 - Decimal(x)) ** (b - 1) for x in (pi[0], pi[len(pi) // 2], pi[-1])]
            wanted = [float((s[0] / x).ln()) for x in s]
        np.testing.assert_allclose([got[0], got[len(pi) // 2], got[-1]], wanted, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(got, static.implicit_adjustment(np.array(pi), b), rtol=1e-9, atol=1e-13)
        assert got[0] == 0
        assert min(np.diff(got)) >= 0
    full = js("Tail", "fullAdjustment", [[pi] for pi in tails.values()])
    for (k, rho), got in zip(tails, full, strict=True):
        np.testing.assert_allclose(got, np.log(rho) * np.arange(k) / (k - 1), rtol=0, atol=1e-12)


def test_the_rarest_class_gets_all_of_the_adjustment_in_pairs_and_less_in_larger_batches(js, tails):
    parts = js("Tail", "partOfFull", [[tails[k, rho], b] for k, rho, b in TAILS])
    by_size = {}
    for (k, rho, b), part in zip(TAILS, parts, strict=True):
        assert (part is None) == (b == 1 or rho == 1)
        if part is not None:
            by_size.setdefault((k, rho), []).append(part)
    for sizes in by_size.values():
        assert sizes[0] == pytest.approx(1, abs=1e-12)  # B = 2: s is the class frequency
        assert all(a > b or a < 1e-12 for a, b in itertools.pairwise(sizes))
        assert sizes[-1] >= 0


# --- print alternatives -------------------------------------------------------------------------------------------


def test_the_tables_in_print_are_what_the_code_computes_and_the_pictures_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "FOLDER", tmp_path)
    static.write_tables()
    for name in ("losses.csv", "batches.csv", "leaks.csv", "tails.csv"):
        committed = list(csv.reader((FOLDER / name).open(encoding="utf-8", newline="")))
        assert committed == list(csv.reader((tmp_path / name).open(encoding="utf-8", newline=""))), name
    for name in ("losses.svg", "batches.svg", "tails.svg"):
        assert (FOLDER / name).stat().st_size > 5_000


# --- use ----------------------------------------------------------------------------------------------------------


def the_pages() -> list[str]:
    """Without a theme always, and inside the book as soon as the book has the page."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return ["plain", *(["book"] if "book/explorers" in names else [])]


# Each value of each setting is met; all sixteen ways together are left to `make test-thorough`.
WAYS = [(390, "light", "file"), (1300, "dark", "http")]
EVERY_WAY = itertools.product((1300, 390), ("light", "dark"), ("http", "file"))
OTHER_WAYS = [pytest.param(*way, marks=pytest.mark.thorough) for way in EVERY_WAY if way not in WAYS]


@pytest.mark.parametrize(("width", "look", "how"), [*WAYS, *OTHER_WAYS])
@pytest.mark.parametrize("place", the_pages())
def test_the_figures_fit_and_ask_no_other_host(browser, folder, place, width, look, how):
    top = folder if place == "plain" else BUILT
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=look)
    page = context.new_page()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(top))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}" if how == "http" else top.as_uri()
        elsewhere, errors = [], []
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else elsewhere.append(r.url))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{home}/book/explorers.html", wait_until="networkidle")
        for name in ("ce", "brier", "focal", "lq", "smooth"):
            page.select_option("#lx-loss", name)
        page.get_by_role("button", name="Draw another batch").click()
        for slider in ("size", "classes", "ratio"):  # the longest numbers
            page.locator(f"#tx-{slider}").press("End")
        assert (elsewhere, errors) == ([], [])
        assert page.evaluate("document.documentElement.dataset.theme") == look
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        outside = page.evaluate(
            """() => [...document.querySelectorAll('.gx *:not(.gx-live):not(option)')].filter(e => {
                const [a, b] = [e.getBoundingClientRect(), e.closest('.gx').getBoundingClientRect()];
                return a.width > 0 && (a.right > b.right + 1 || a.left < b.left - 1);
            }).map(e => e.outerHTML.slice(0, 80))"""
        )
        assert outside == []
        assert page.evaluate(CONTRASTS) == []
        server.shutdown()
    context.close()


# Text at 4.5 to one, lines and marks at 3 to one, against the ground behind them.
CONTRASTS = """() => {
    const parse = (c) => c.match(/[\\d.]+/g).map(Number);
    const light = (c) => {
        const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = parse(c).slice(0, 3).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const ground = (e) => {
        const triangle = e.closest('.gx-simplex')?.querySelector('.gx-triangle');
        if (triangle) return getComputedStyle(triangle).fill;
        for (let n = e; n; n = n.parentElement) {
            const c = getComputedStyle(n).backgroundColor;
            if ((parse(c)[3] ?? 1) > 0.5) return c;
        }
        return 'rgb(255, 255, 255)';
    };
    const wrong = [];
    const test = (selector, property, least) => document.querySelectorAll(selector).forEach(e => {
        const got = ratio(getComputedStyle(e)[property], ground(e));
        if (got < least) wrong.push(`${selector} ${property} ${got.toFixed(2)}`);
    });
    test('.gx label, .gx th, .gx td, .gx p:not(.gx-live), .gx li, .gx figcaption, .gx small, .gx output', 'color', 4.5);
    test('.gx button, .gx select, .gx legend, .gx caption', 'color', 4.5);
    test('.gx svg text', 'fill', 4.5);
    test('.gx-line, .gx-contour, .gx-best', 'stroke', 3);
    test('.gx-bar, .gx-dot, .gx-handle .gx-mark', 'fill', 3);
    return wrong;
}"""


def test_tab_reaches_every_control_and_each_shows_its_focus(page):
    page.select_option("#lx-loss", "focal")
    page.evaluate("document.activeElement.blur()")
    everything = page.evaluate(
        "[...document.querySelectorAll('.gx select, .gx input, .gx button, .gx [tabindex]')].map(e => e.id || "
        "e.dataset.handle || e.textContent)"
    )
    reached = []
    for _ in everything:
        page.keyboard.press("Tab")
        state = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e), r = e.querySelector('.gx-ring');
            const outlined = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2;
            const ringed = r && getComputedStyle(r).stroke !== 'none';
            return [e.id || e.dataset.handle || e.textContent, r ? ringed : outlined]; }"""
        )
        reached.append(state[0])
        assert state[1], f"{state[0]} does not show its focus"
    assert reached == everything
    assert len(reached) == 2 + 2 + 6 + 2 + 5 + 1 + 3


def test_every_control_has_a_name_and_is_large_enough_to_touch(page):
    page.select_option("#lx-loss", "lq")
    for control in page.locator(".gx select, .gx input, .gx button, .gx .gx-hit").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    for field in page.locator(".gx select, .gx input").all():
        identifier = field.get_attribute("id")
        assert page.locator(f"label[for='{identifier}']").inner_text().strip()
    assert page.get_by_role("slider", name="Prediction p").count() == 1
    assert page.get_by_role("slider", name="Belief q").count() == 1
    assert page.locator(".gx svg[role=img]").count() == 5
    for picture in page.locator(".gx svg[role=img]").all():
        assert len(picture.get_attribute("aria-label")) > 30


def test_arrow_keys_move_a_point_and_the_state_is_told(page):
    handle = page.locator("[data-handle=p]")
    handle.focus()
    assert handle.get_attribute("aria-valuetext") == "A 0.200, B 0.300, C 0.500"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert handle.get_attribute("aria-valuetext") == "A 0.240, B 0.360, C 0.400"
    assert handle.get_attribute("aria-valuenow") == "0.240"
    assert page.locator("#lx-p-A").get_attribute("aria-valuetext").startswith("A 0.240")
    live = page.locator("#loss-explorer [aria-live=polite]")
    page.wait_for_function(
        "document.querySelector('#loss-explorer [aria-live=polite]').textContent.includes('A 0.240')"
    )
    q, p = np.array([0.5, 0.35, 0.15]), np.array([0.24, 0.36, 0.4])
    assert f"Risk {-(q * np.log(p)).sum():.3f}, excess {(q * np.log(q / p)).sum():.3f}" in live.inner_text()
    before = page.evaluate("scrollY")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("scrollY") == before


def test_pointer_touch_and_sliders_move_the_points(page):
    handle = page.locator("[data-handle=q]")
    box = handle.locator(".gx-mark").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 900, box["y"] + 400)  # beyond corner A: the point stops there
    page.mouse.up()
    assert handle.get_attribute("aria-valuetext") == "A 1.000, B 0.000, C 0.000"
    assert page.locator("[data-handle=p]").get_attribute("aria-valuetext") == "A 0.200, B 0.300, C 0.500"
    svg = page.locator(".gx-simplex").bounding_box()
    page.mouse.click(svg["x"] + svg["width"] / 2, svg["y"] + svg["height"] * 0.62)  # a tap places the prediction
    a, b, c = map(float, re.findall(r"\d\.\d+", page.locator("[data-handle=p]").get_attribute("aria-valuetext")))
    assert a == pytest.approx(b, abs=0.02)
    assert 0.2 < c < 0.5
    page.locator("#lx-p-C").focus()
    page.keyboard.press("Home")
    assert page.locator("[data-handle=p]").get_attribute("aria-valuetext").endswith("C 0.000")
    assert page.locator("td[data-value=risk]").inner_text() != "∞"
    page.get_by_role("button", name="Set p to q").click()
    assert page.locator("td[data-value=excess]").inner_text() == "0.000"
    assert page.evaluate("getComputedStyle(document.querySelector('.gx-handle')).touchAction") == "none"


def test_a_loss_that_is_not_proper_says_so_and_shows_its_best_answer(page):
    page.select_option("#lx-loss", "focal")
    best = static.minimiser("focal", 2.0, np.array([0.5, 0.35, 0.15]))
    shown = [
        float(row.locator("td").nth(2).inner_text())
        for row in page.locator("#loss-explorer tbody").first.locator("tr").all()
    ]
    np.testing.assert_allclose(shown, best, atol=5.1e-4)
    assert page.locator("#loss-explorer .gx-verdict").inner_text().startswith("Not proper")
    page.locator("#lx-t").focus()
    page.keyboard.press("Home")  # gamma 0 is cross-entropy
    assert page.locator("#loss-explorer .gx-verdict").inner_text().startswith("Proper")
    assert page.locator("#lx-t").get_attribute("aria-valuetext") == "gamma 0"


def test_the_batch_explorer_tells_its_numbers_and_says_when_nothing_is_absent(page):
    verdict, rows = page.locator("#batch-explorer .gx-verdict"), page.locator("#batch-explorer tbody tr")
    labels, logits = static.draw_batch(100, 128, 4.0, 1)
    assert f"lacks {100 - len(set(labels))} of 100 classes; on average it is 27.6" in verdict.inner_text()
    for i, strength in enumerate((0.0, 0.5, 1.0)):
        before, after, change, push = rows.nth(i).locator("td").all_inner_texts()
        loss = generative_cross_entropy(torch.tensor(logits), torch.tensor(labels), strength=strength).item()
        price = -(1 - strength) * np.log(0.7)
        assert (before, after, change) == tuple(f"{x + 0.0:.3f}" for x in (loss, loss + price, price))
        expected = 1000 * static.absent_push(softmax(logits, axis=1), labels, strength)
        assert float(push) == pytest.approx(expected, rel=0.01)
    page.locator("#bx-classes").focus()
    page.keyboard.press("Home")
    assert page.locator("#bx-classes").get_attribute("aria-valuetext") == "2"
    assert "Every class is here" in verdict.inner_text()
    assert "no class to leak to" in rows.nth(0).inner_text()
    page.wait_for_function(
        "document.querySelector('#batch-explorer [aria-live=polite]').textContent.includes('lacks 0 of 2')"
    )


def set_tail(page, size: int, classes: int, ratio: int) -> None:
    """Move the three sliders by keyboard, counted in steps from their left ends."""
    for name, steps in (("size", size), ("classes", classes), ("ratio", ratio)):
        page.locator(f"#tx-{name}").press("Home")
        for _ in range(steps):
            page.keyboard.press("ArrowRight")


def test_the_tail_explorer_tells_its_numbers(page):
    verdict, rows = page.locator("#tail-explorer .gx-verdict"), page.locator("#tail-explorer tbody tr")
    for steps, k, rho, b in (((6, 5, 6), 100, 100, 64), ((8, 2, 5), 10, 50, 256), ((12, 8, 7), 1000, 200, 4096)):
        set_tail(page, *steps)
        values = [page.locator(f"#tx-{name}").get_attribute("aria-valuetext") for name in ("size", "classes", "ratio")]
        assert values == [str(b), str(k), str(rho)]
        pi = tail(k, rho)
        without, there = (1 - pi) ** b, 1 - (1 - pi) ** (b - 1)
        part = np.log(there[0] / there[-1]) / np.log(rho)
        text = verdict.inner_text()
        lacking, classes, left_out, got = re.fullmatch(
            rf"Batches of {b} lack ([\d.]+) of (\d+) classes on average; GenCE leaves out ([\d.]+) % of the pushes "
            r"late in training\. The rarest class gets (\d+) % of the full logit adjustment\.",
            text,
        ).groups()
        assert int(classes) == k
        assert float(lacking) == pytest.approx(without.sum(), rel=0.006)
        assert float(left_out) == pytest.approx(100 * without.sum() / (k - 1), abs=0.051)
        assert int(got) == pytest.approx(100 * part, abs=0.51)
        for row, c in zip(rows.all(), (0, k // 2, k - 1), strict=True):
            cells = [re.sub(r"\s%$", "", cell) for cell in row.locator("td").all_inner_texts()]
            frequency, expected, lacks, shift, full = cells
            assert float(frequency) == pytest.approx(100 * pi[c], rel=0.006)
            assert float(expected) == pytest.approx(b * pi[c], rel=0.006)
            if lacks != "under 0.01":
                assert float(lacks) == pytest.approx(100 * without[c], rel=0.006)
            else:
                assert without[c] < 1e-4
            assert float(shift) == pytest.approx(np.log(there[0] / there[c]), abs=0.0051)
            assert float(full) == pytest.approx(np.log(pi[0] / pi[c]), abs=0.0051)
        pictures = [p.get_attribute("aria-label") for p in page.locator("#tail-explorer svg[role=img]").all()]
        assert f"{left_out} % at batch size {b}" in pictures[0]
        assert f"implicit {shift}, full {full} nats" in pictures[1]
    page.wait_for_function(
        "document.querySelector('#tail-explorer [aria-live=polite]').textContent.includes('Batches of 4096 lack')"
    )


def test_the_tail_explorer_draws_its_lines_where_the_numbers_are(page):
    k, rho, b = 100, 100, 64
    set_tail(page, 6, 5, 6)
    pi = tail(k, rho)
    there = 1 - (1 - pi) ** (b - 1)
    spots = {}
    for kind, values in (("implicit", np.log(there[0] / there)), ("full", np.log(pi[0] / pi))):
        points = page.locator(f"#tail-explorer .gx-chart .gx-line.gx-{kind}").get_attribute("d")
        x, y = np.array([point.split() for point in points[1:].split("L")], dtype=float).T
        np.testing.assert_allclose(x, 46 + 280 * np.arange(k) / (k - 1), atol=0.051)
        np.testing.assert_allclose(y, 176 - 162 * values / 6, atol=0.051)
        marks = page.locator(f"#tail-explorer .gx-chart .gx-dot.gx-{kind}").get_attribute("d")
        spots[kind] = set(re.findall(r"M([\d.]+ [\d.]+)m", marks))
        assert len(spots[kind]) >= 4
        assert spots[kind] <= set(points[1:].split("L"))  # marks stand on classes
    assert not {spot.split()[0] for spot in spots["implicit"]} & {spot.split()[0] for spot in spots["full"]}
    across, height = map(float, re.findall(r"[\d.]+", page.locator("#tail-explorer circle").get_attribute("transform")))
    assert across == pytest.approx(46 + 280 * math.log2(b) / 12)
    assert height == pytest.approx(176 - 162 * ((1 - pi) ** b).sum() / (k - 1))


def test_the_tail_explorer_says_when_there_is_nothing_to_adjust(page):
    verdict, rows = page.locator("#tail-explorer .gx-verdict"), page.locator("#tail-explorer tbody tr")
    alone = page.get_by_text("B = 1: there is no other sample")
    assert not alone.is_visible()
    for steps in itertools.product((0, 12), (0, 8), (0, 7)):
        set_tail(page, *steps)
        text = page.locator("#tail-explorer").inner_text()
        assert not re.search("NaN|Infinity|∞|undefined|null", text), steps
        drawn = page.evaluate("[...document.querySelectorAll('#tail-explorer path')].map(e => e.getAttribute('d'))")
        assert not re.search("NaN|Infinity", " ".join(drawn)), steps
        said = verdict.inner_text()  # not what is read out: that comes later
        assert ("GenCE leaves out every push" in said) == (steps[0] == 0)
        assert ("All classes are equally frequent" in said) == (steps[0] > 0 and steps[2] == 0)
        assert alone.is_visible() == (steps[0] == 0)
        assert (rows.nth(0).locator("td").nth(3).inner_text() == "–") == (steps[0] == 0)
        assert rows.nth(1).is_visible() == (steps[1] > 0)  # of two classes, none is in the middle
    set_tail(page, 1, 5, 6)
    assert "gets 100 % of the full logit adjustment" in verdict.inner_text()


def test_nothing_moves_by_itself_and_without_scripts_the_page_says_what_to_read(browser, folder):
    page = browser.new_page(reduced_motion="reduce")
    page.goto((folder / "book" / "explorers.html").as_uri())
    page.select_option("#lx-loss", "focal")
    assert page.evaluate("document.getAnimations().length") == 0
    page.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "book" / "explorers.html").as_uri())
    assert page.get_by_text("This figure needs JavaScript").count() == 3
    context.close()
