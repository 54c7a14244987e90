"""The two interactive figures: their mathematics against the package, and their use by keyboard, touch and eye."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
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

ROOT = Path(__file__).resolve().parent.parent
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
    assert len(blocks) == 2
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


# --- print alternatives -------------------------------------------------------------------------------------------


def test_the_tables_in_print_are_what_the_code_computes_and_the_pictures_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "FOLDER", tmp_path)
    static.write_tables()
    for name in ("losses.csv", "batches.csv", "leaks.csv"):
        committed = list(csv.reader((FOLDER / name).open(encoding="utf-8", newline="")))
        assert committed == list(csv.reader((tmp_path / name).open(encoding="utf-8", newline=""))), name
    for name in ("losses.svg", "batches.svg"):
        assert (FOLDER / name).stat().st_size > 5_000


# --- use ----------------------------------------------------------------------------------------------------------


def the_pages() -> list[str]:
    """Without a theme always, and inside the book as soon as the book has the page."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return ["plain", *(["book"] if "book/explorers" in names else [])]


@pytest.mark.parametrize("how", ["http", "file"])
@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390], ids=["wide", "phone"])
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
    assert len(reached) == 2 + 2 + 6 + 2 + 5 + 1


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
    assert page.locator(".gx svg[role=img]").count() == 3
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


def test_nothing_moves_by_itself_and_without_scripts_the_page_says_what_to_read(browser, folder):
    page = browser.new_page(reduced_motion="reduce")
    page.goto((folder / "book" / "explorers.html").as_uri())
    page.select_option("#lx-loss", "focal")
    assert page.evaluate("document.getAnimations().length") == 0
    page.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "book" / "explorers.html").as_uri())
    assert page.get_by_text("This figure needs JavaScript").count() == 2
    context.close()
