/* The tail explorer: what small batches do to rare classes late in training.
   A plain script without imports, so that the page also works when it is opened as a file.
   It needs explorers_common.js. First the mathematics, as pure functions of the class frequencies pi, most frequent
   class first (exported as GenceTailExplorer and tested against numpy and drawn batches); then the figure. */
(function (root) {
  "use strict";
  const { sum, digits, brief, share, make, panel, across, up, line, to, chart, legend, table, announcer } = root.GenceExplorers;

  // ---- mathematics ------------------------------------------------------------------------------------------------

  // Frequencies of K classes, K > 1, that fall exponentially; the first is rho times as frequent as the last.
  function classShares(K, rho) {
    const counts = Array.from({ length: K }, (_, k) => rho ** (-k / (K - 1)));
    const total = sum(counts);
    return counts.map((n) => n / total);
  }

  // The share of batches of B independent samples that lack a class of frequency x.
  const chanceWithout = (x, B) => Math.exp(B * Math.log1p(-x));

  const expectedAbsent = (pi, B) => sum(pi.map((x) => chanceWithout(x, B)));

  // Of all pairs of a sample and a wrong class, the share whose class is not in the batch.
  const shareLeftOut = (pi, B) => (B === 1 ? 1 : expectedAbsent(pi, B) / (pi.length - 1));

  // log s with s = 1 - (1 - x)^(B-1), the chance that a class is among the other samples, for B > 1. Each of the two
  // forms keeps its digits where the other loses them: the first for small s, the second for s close to 1.
  function logPresence(x, B) {
    const exponent = (B - 1) * Math.log1p(-x);
    return exponent > -Math.LN2 ? Math.log(-Math.expm1(exponent)) : Math.log1p(-Math.exp(exponent));
  }

  // -log s of each class less that of the most frequent one. null for B = 1: then there are no others.
  function implicitAdjustment(pi, B) {
    if (B === 1) return null;
    const first = logPresence(pi[0], B);
    return pi.map((x) => first - logPresence(x, B));
  }

  const fullAdjustment = (pi) => pi.map((x) => Math.log(pi[0] / x));

  // Which part of the full adjustment the rarest class gets. null where there is no other sample, or nothing to adjust.
  function partOfFull(pi, B) {
    const full = fullAdjustment(pi)[pi.length - 1];
    return B === 1 || full === 0 ? null : implicitAdjustment(pi, B)[pi.length - 1] / full;
  }

  root.GenceTailExplorer = {
    classShares, chanceWithout, expectedAbsent, shareLeftOut, logPresence, implicitAdjustment, fullAdjustment, partOfFull,
  };

  // ---- figure -----------------------------------------------------------------------------------------------------

  const host = root.document && root.document.getElementById("tail-explorer");
  if (!host) return;
  const SIZES = Array.from({ length: 13 }, (_, i) => 2 ** i);
  const CLASSES = [2, 5, 10, 20, 50, 100, 200, 500, 1000];
  const RATIOS = [1, 2, 5, 10, 20, 50, 100, 200];
  const TOP = 6; // nats at the upper edge; the largest full adjustment is log 200 = 5.3
  const MARKS = 5; // on each of the two lines
  const state = { size: 6, classes: 5, ratio: 6 };
  const SQUARE = "m-5-5h10v10h-10z";
  const TRIANGLE = "m0-7l7 13h-14z";

  const percent = (x) => (x < 1e-4 ? "under 0.01 %" : x > 0.9999 ? "over 99.99 %" : `${brief(100 * x)} %`);
  const part = (x) => (x < 0.005 ? "under 1 %" : x > 0.995 && x < 1 - 1e-9 ? "over 99 %" : `${(100 * x).toFixed(0)} %`);
  const few = (x) => (x < 0.001 ? "under 0.001" : brief(x));

  const controls = panel("tx", [
    { key: "size", name: "batch size B", max: SIZES.length - 1, text: (i) => String(SIZES[i]) },
    { key: "classes", name: "classes K", max: CLASSES.length - 1, text: (i) => String(CLASSES[i]) },
    { key: "ratio", name: "imbalance ρ", max: RATIOS.length - 1, text: (i) => String(RATIOS[i]) },
  ], change);

  const curve = make("path", { class: "gx-line gx-plain" });
  const here = make("circle", { class: "gx-dot gx-plain", r: 6 });
  const left = chart("How many pushes does GenCE leave out?", "batch size B",
    [1, 4, 16, 64, 256, 1024].map((B) => [SIZES.indexOf(B) / (SIZES.length - 1), String(B)]),
    "share of pushes on wrong classes, late in training", [[0, "0"], [0.5, "½"], [1, "1"]], curve, here);

  const lines = ["implicit", "full"].map((kind) => make("path", { class: `gx-line gx-${kind}` }));
  const marks = ["full", "implicit"].map((kind) => make("path", { class: `gx-dot gx-${kind}` }));
  const nobody = make("text", { x: across(0.04), y: up(0.9) }, "B = 1: there is no other sample");
  const shifts = chart("What does that add to the logits?", "classes, from most frequent (0) to rarest (1)",
    [0, 0.25, 0.5, 0.75, 1].map((u) => [u, ["0", "¼", "½", "¾", "1"][4 * u]]),
    "nats, relative to the most frequent class", [0, 2, 4, 6].map((v) => [v / TOP, String(v)]), ...lines, ...marks, nobody);
  const key = legend([
    ["implicit", `M0 0${SQUARE}`, "implicit adjustment, −log s"],
    ["full", `M0 0${TRIANGLE}`, "full logit adjustment, −log π"],
  ]);

  const heads = ["class", "frequency", "mean in a batch", "batches without", "shift, nats", "full, nats"];
  const rows = table("Three of the classes", heads, 3);
  const verdict = make("p", { class: "gx-verdict" });
  const live = announcer();

  function change(update) {
    Object.assign(state, update);
    draw();
  }

  // About n classes at even distances, counted from the given part of a step on.
  function every(K, n, offset) {
    const ranks = Array.from({ length: n }, (_, j) => Math.round(((j + offset) * (K - 1)) / (n - 1)));
    return [...new Set(ranks)].filter((k) => k < K);
  }

  function draw() {
    const [B, K, rho] = [SIZES[state.size], CLASSES[state.classes], RATIOS[state.ratio]];
    controls.show(state);
    const pi = classShares(K, rho);
    const [implicit, full] = [implicitAdjustment(pi, B), fullAdjustment(pi)];
    const leftOut = shareLeftOut(pi, B);

    const end = SIZES.length - 1;
    curve.setAttribute("d", line(Array.from({ length: 10 * end + 1 }, (_, j) => [j / (10 * end), shareLeftOut(pi, 2 ** (j / 10))])));
    here.setAttribute("transform", to(state.size / end, leftOut));
    drawShifts(implicit, full);
    left.picture.setAttribute("aria-label", "Share of the pushes on wrong classes that GenCE leaves out late in training, " +
      `against batch size, for ${K} classes and imbalance ratio ${rho}: ${B === 1 ? "all" : share(leftOut)} at batch size ${B}.`);
    shifts.picture.setAttribute("aria-label", "Adjustment of the logits against the rank of the class. Rarest class: " +
      `implicit ${implicit ? digits(implicit[K - 1], 2) : "not defined"}, full ${digits(full[K - 1], 2)} nats.`);

    // With two classes there is none in the middle.
    const middle = Math.floor(K / 2);
    const shown = [[0, "most frequent"], [middle, `middle (number ${middle + 1})`], [K - 1, "rarest"]];
    shown.forEach(([k, name], i) => {
      rows.names[i].textContent = name;
      rows.names[i].parentNode.hidden = i === 1 && middle === K - 1;
      rows.fill(i, [`${brief(100 * pi[k])}\u00a0%`, brief(B * pi[k]), percent(chanceWithout(pi[k], B)),
        implicit ? digits(implicit[k], 2) : "–", digits(full[k], 2)]);
    });
    verdict.textContent = `${absence(pi, B)} ${adjustment(pi, B)}`;
    live.say(verdict.textContent);
  }

  function drawShifts(implicit, full) {
    const K = full.length;
    const at = (values, k) => [k / (K - 1), values[k] / TOP];
    const path = (values) => line(every(K, Math.min(K, 101), 0).map((k) => at(values, k)));
    // The marks of the two lines stand at different classes, so that both are seen where the lines agree. Few classes
    // take turns.
    const marked = (odd) => (K < 2 * MARKS ? [...full.keys()].filter((k) => k % 2 === odd) : every(K, MARKS, odd / 2));
    const spots = (values, odd, shape) => marked(odd).map((k) => {
      const [u, v] = at(values, k);
      return `M${across(u).toFixed(1)} ${up(v).toFixed(1)}${shape}`;
    }).join("");
    lines[0].setAttribute("d", implicit ? path(implicit) : "");
    lines[1].setAttribute("d", path(full));
    marks[0].setAttribute("d", spots(full, 1, TRIANGLE));
    marks[1].setAttribute("d", implicit ? spots(implicit, 0, SQUARE) : "");
    nobody.style.display = implicit ? "none" : "";
  }

  function absence(pi, B) {
    const K = pi.length;
    if (B === 1) return `Batches of 1 lack ${K - 1} of ${K} classes. GenCE leaves out every push: there is nothing to compare the sample with.`;
    return `Batches of ${B} lack ${few(expectedAbsent(pi, B))} of ${K} classes on average; ` +
      `GenCE leaves out ${share(shareLeftOut(pi, B))} of the pushes late in training.`;
  }

  function adjustment(pi, B) {
    const got = partOfFull(pi, B);
    if (B === 1) return "There is no other sample, so there is no adjustment either.";
    if (got === null) return "All classes are equally frequent, so there is nothing to adjust: all logits move alike.";
    return `The rarest class gets ${part(got)} of the full logit adjustment.`;
  }

  host.replaceChildren(
    make("div", { class: "gx-stack" }, ...controls.rows),
    make("div", { class: "gx-columns" }, left.node, shifts.node),
    key,
    verdict,
    rows.node,
    live.node,
  );
  draw();
})(globalThis);
