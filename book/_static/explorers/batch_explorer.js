/* The batch explorer: what happens to the classes that a batch lacks.
   A plain script without imports, so that the page also works when it is opened as a file.
   It needs explorers_common.js. First the mathematics, as pure functions (exported as GenceBatchExplorer and tested
   against the Python package); then the figure. Tables of probabilities are arrays of N rows with K numbers. */
(function (root) {
  "use strict";
  const { sum, digits, brief, share, make, panel, line, to, chart, legend, table, announcer } = root.GenceExplorers;

  // ---- mathematics ------------------------------------------------------------------------------------------------

  // Expected number of the K equally likely classes that a batch of B independent samples lacks.
  const expectedAbsent = (K, B) => K * Math.exp(B * Math.log1p(-1 / K));

  // Probabilities that 0, 1, ..., K classes are absent. One sample after the other is added: it shows a new class, or
  // one that was there. All terms are positive, unlike those of inclusion and exclusion, so nothing cancels.
  function absentDistribution(K, B) {
    let absent = new Array(K + 1).fill(0);
    absent[K] = 1;
    for (let b = 0; b < B; b++) {
      absent = absent.map((x, a) => (x * (K - a)) / K + (a < K ? (absent[a + 1] * (a + 1)) / K : 0));
    }
    return absent;
  }

  // A generator of numbers in [0, 1) that gives the same sequence everywhere (mulberry32).
  function generator(seed) {
    let a = seed >>> 0;
    return () => {
      a = (a + 0x6d2b79f5) >>> 0;
      let t = Math.imul(a ^ (a >>> 15), a | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // A batch with uniformly drawn labels; logits are standard normal noise, plus a margin for the true class.
  function drawBatch(K, B, margin, seed) {
    const random = generator(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const labels = Array.from({ length: B }, () => Math.floor(random() * K));
    const logits = labels.map((y) => Array.from({ length: K }, (_, k) => normal() + (k === y ? margin : 0)));
    return { labels, logits };
  }

  function softmax(logits) {
    return logits.map((row) => {
      const top = Math.max(...row);
      const e = row.map((z) => Math.exp(z - top));
      const total = sum(e);
      return e.map((x) => x / total);
    });
  }

  function counts(labels, K) {
    const n = new Array(K).fill(0);
    for (const y of labels) n[y]++;
    return n;
  }

  function columnSums(p) {
    const c = new Array(p[0].length).fill(0);
    for (const row of p) row.forEach((x, k) => (c[k] += x));
    return c;
  }

  // Strength 0 is cross-entropy, 1 is GenCE.
  function batchLoss(p, labels, strength) {
    const c = columnSums(p);
    return sum(labels.map((y, i) => -Math.log(p[i][y]) + strength * Math.log(c[y]))) / labels.length;
  }

  // Move the share epsilon of every row's mass on present classes to the absent ones, in equal parts.
  function leak(p, labels, epsilon) {
    const n = counts(labels, p[0].length);
    const absent = n.filter((nk) => nk === 0).length;
    if (absent === 0) return p;
    return p.map((row) => {
      const moved = epsilon * sum(row.filter((_, k) => n[k] > 0));
      return row.map((x, k) => (n[k] > 0 ? (1 - epsilon) * x : x + moved / absent));
    });
  }

  // By how much that changes the loss, whatever the batch and the predictions.
  const leakChange = (strength, epsilon) => -(1 - strength) * Math.log1p(-epsilon);

  // Closed form of dL/dz: (p_im - [y_i = m] + s (n_m r_im - p_im w_i)) / N with r_ik = p_ik / C_k, w_i = sum_k n_k r_ik.
  function gradient(p, labels, strength) {
    const [c, n] = [columnSums(p), counts(labels, p[0].length)];
    return p.map((row, i) => {
      const w = sum(row.map((x, k) => (n[k] === 0 ? 0 : (n[k] * x) / c[k])));
      return row.map((x, m) => {
        const ce = x - (labels[i] === m ? 1 : 0);
        const batch = (n[m] === 0 ? 0 : (n[m] * x) / c[m]) - x * w;
        return (ce + strength * batch) / labels.length;
      });
    });
  }

  // The gradient on the output bias of an absent class: summed over the samples, averaged over the absent classes.
  // A positive number means that a step of gradient descent lowers the class. null if no class is absent.
  function absentPush(p, labels, strength) {
    const [c, n] = [columnSums(p), counts(labels, p[0].length)];
    const absent = n.filter((nk) => nk === 0).length;
    if (absent === 0) return null;
    let total = 0;
    for (const row of p) {
      let [w, mass] = [0, 0];
      row.forEach((x, k) => (n[k] === 0 ? (mass += x) : (w += (n[k] * x) / c[k])));
      total += mass * (1 - strength * w);
    }
    return total / labels.length / absent;
  }

  root.GenceBatchExplorer = {
    expectedAbsent, absentDistribution, drawBatch, softmax, columnSums, batchLoss, leak, leakChange, gradient, absentPush,
  };

  // ---- figure -----------------------------------------------------------------------------------------------------

  const host = root.document && root.document.getElementById("batch-explorer");
  if (!host) return;
  const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
  const CLASSES = [2, 3, 5, 10, 20, 50, 100, 200, 500];
  const state = { size: 7, classes: 6, strength: 0.5, epsilon: 0.3, margin: 4, seed: 1 };
  const KINDS = ["ce", "between", "gence"];

  const push = (x) => (Math.abs(x) < 5e-7 ? "0" : (1000 * x).toPrecision(3));

  const controls = panel("bx", [
    { key: "size", name: "batch size B", max: SIZES.length - 1, text: (i) => String(SIZES[i]) },
    { key: "classes", name: "classes K", max: CLASSES.length - 1, text: (i) => String(CLASSES[i]) },
    { key: "strength", name: "strength s", max: 1, step: 0.05, text: (x) => x.toFixed(2) },
    { key: "epsilon", name: "leak ε", max: 0.95, step: 0.05, text: (x) => x.toFixed(2) },
    { key: "margin", name: "margin", max: 12, step: 0.5, text: (x) => x.toFixed(1) },
  ], change);
  const another = make("button", { type: "button" }, "Draw another batch");
  another.addEventListener("click", () => change({ seed: state.seed + 1 }));

  const curve = make("path", { class: "gx-line gx-plain" });
  const here = make("circle", { class: "gx-dot gx-plain", r: 6 });
  const sizeTick = (B) => [SIZES.indexOf(B) / (SIZES.length - 1), String(B)];
  const shares = chart("How many classes does a batch lack?", "batch size B", [1, 4, 16, 64, 256].map(sizeTick),
    "expected share of absent classes", [[0, "0"], [0.5, "½"], [1, "1"]], curve, here);

  const paths = KINDS.map((kind) => make("path", { class: `gx-line gx-${kind}` }));
  const marks = KINDS.map((kind) => make("path", { class: `gx-dot gx-${kind}`, d: shape(kind) }));
  const leaks = chart("What does a leak to absent classes cost?", "leak ε", [0, 0.2, 0.4, 0.6, 0.8].map((e) => [e / 0.95, String(e)]),
    "change of the loss, nats", [0, 1, 2, 3].map((v) => [v / 3, String(v)]), ...paths, ...marks);

  function shape(kind) {
    if (kind === "ce") return "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0-6 0Z";
    return kind === "gence" ? "M-5-5H5V5H-5Z" : "M0-7L7 6H-7Z";
  }

  const bars = KINDS.map((kind) => make("rect", { class: `gx-bar gx-${kind}`, height: 26 }));
  const barNames = KINDS.map(() => make("text", { x: 8, class: "gx-barname" }));
  const zero = make("path", { class: "gx-axis" });
  const pushes = make("svg", { viewBox: "0 0 340 170", class: "gx-chart", role: "img" }, zero, ...bars, ...barNames);
  const pushFigure = make("figure", {},
    make("figcaption", {}, "How hard is an absent class pushed down?",
      make("small", {}, "gradient on its output bias, in thousandths")), pushes);

  const betweenName = make("span");
  const key = legend(KINDS.map((kind, i) => [kind, shape(kind), ["CE (s = 0)", betweenName, "GenCE (s = 1)"][i]]));
  const rows = table("This batch before and after the leak; push in thousandths", ["loss", "before", "after", "change", "push"], KINDS.length);
  const verdict = make("p", { class: "gx-verdict" });
  const live = announcer();
  let drawn = { key: "" };

  function change(update) {
    Object.assign(state, update);
    draw();
  }

  // The batch is drawn again only if what decides it changed; the two sliders for s and epsilon stay light.
  function batch(K, B) {
    const key = [K, B, state.margin, state.seed].join();
    if (drawn.key !== key) {
      const { labels, logits } = drawBatch(K, B, state.margin, state.seed);
      const p = softmax(logits);
      const present = counts(labels, K).filter((n) => n > 0).length;
      drawn = { key, labels, p, absent: K - present, push: [0, 1].map((s) => absentPush(p, labels, s)), missing: 1 - absentDistribution(K, B)[0] };
    }
    return drawn;
  }

  function draw() {
    const [K, B, s, e] = [CLASSES[state.classes], SIZES[state.size], state.strength, state.epsilon];
    controls.show(state);
    const { labels, p, absent, push: [pushCE, pushGenCE], missing } = batch(K, B);
    const strengths = [0, s, 1];
    const names = ["CE", `strength ${s.toFixed(2)}`, "GenCE"];
    betweenName.textContent = `strength ${s.toFixed(2)}`;
    const expected = expectedAbsent(K, B);

    // The push is linear in the strength.
    const push_ = strengths.map((x) => (absent === 0 ? null : (1 - x) * pushCE + x * pushGenCE));
    const leaked = leak(p, labels, e);
    strengths.forEach((x, i) => {
      const [before, after] = [batchLoss(p, labels, x), batchLoss(leaked, labels, x)];
      rows.names[i].textContent = names[i];
      rows.fill(i, absent === 0
        ? [digits(before), "no class to leak to", "–", "–"]
        : [digits(before), digits(after), digits(after - before), push(push_[i])]);
      const points = Array.from({ length: 96 }, (_, j) => j / 100);
      paths[i].setAttribute("d", line(points.map((u) => [u / 0.95, leakChange(x, u) / 3])));
      marks[i].setAttribute("transform", to(e / 0.95, leakChange(x, e) / 3));
    });

    curve.setAttribute("d", line(Array.from({ length: 91 }, (_, j) => [j / 90, expectedAbsent(K, 2 ** (j / 10)) / K])));
    here.setAttribute("transform", to(state.size / (SIZES.length - 1), expected / K));
    shares.picture.setAttribute("aria-label", `Expected share of absent classes against batch size for ${K} classes: ${share(expected / K)} at batch size ${B}.`);
    leaks.picture.setAttribute("aria-label", `Change of the loss against the leak. At ${e.toFixed(2)}: ` +
      strengths.map((x, i) => `${names[i]} ${digits(leakChange(x, e))}`).join(", ") + ".");
    drawBars(names, push_);

    const inBatch = `This batch of ${B} lacks ${absent} of ${K} classes; on average it is ${brief(expected)}, and ${B < K ? "all" : `${share(missing)} of all`} batches lack at least one.`;
    const effect = absent === 0
      ? "Every class is here, so no mass can hide from GenCE."
      : `Moving ${digits(e, 2)} of the mass to them costs ${digits(leakChange(0, e))} under CE, ${digits(leakChange(s, e))} with strength ${s.toFixed(2)}, and nothing under GenCE.`;
    verdict.textContent = `${inBatch} ${effect}`;
    const pushed = absent === 0 ? "" : ` Push on an absent class in thousandths: ${names.map((name, i) => `${name} ${push(push_[i])}`).join(", ")}.`;
    live.say(verdict.textContent + pushed);
  }

  function drawBars(names, values) {
    const none = values[0] === null;
    const largest = none ? 1 : Math.max(...values.map(Math.abs), 1e-12);
    const lowest = none ? 0 : Math.min(...values, 0) / largest; // leave room on the left if a push is negative
    const x = (v) => 8 + ((v / largest - lowest) / (1 - lowest)) * 324;
    zero.setAttribute("d", names.map((_, i) => `M${x(0)} ${20 + 54 * i}v34`).join(""));
    names.forEach((name, i) => {
      const v = none ? 0 : values[i];
      bars[i].setAttribute("x", Math.min(x(0), x(v)));
      bars[i].setAttribute("width", none ? 0 : Math.abs(x(v) - x(0)));
      bars[i].setAttribute("y", 24 + 54 * i);
      barNames[i].setAttribute("y", 17 + 54 * i);
      barNames[i].textContent = none ? `${name}: no absent class` : `${name}: ${push(v)} (${(100 * v / values[0]).toFixed(0)} % of CE)`;
    });
    pushes.setAttribute("aria-label", "Push on an absent class, in thousandths. " + barNames.map((node) => node.textContent).join("; "));
  }

  host.replaceChildren(
    make("div", { class: "gx-columns" },
      make("div", { class: "gx-stack" }, ...controls.rows, make("div", { class: "gx-buttons" }, another)),
      make("div", { class: "gx-stack" }, shares.node)),
    make("div", { class: "gx-columns" }, leaks.node, pushFigure),
    key,
    verdict,
    rows.node,
    live.node,
  );
  draw();
})(globalThis);
