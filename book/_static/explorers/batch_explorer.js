/* The batch explorer: what happens to the classes that a batch lacks.
   A plain script without imports, so that the page also works when it is opened as a file.
   First the mathematics, as pure functions (exported as GenceBatchExplorer and tested against the Python package);
   then the figure. Tables of probabilities are arrays of N rows with K numbers. */
(function (root) {
  "use strict";

  // ---- mathematics ------------------------------------------------------------------------------------------------

  const sum = (v) => v.reduce((a, b) => a + b, 0);

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

  const digits = (x, d = 3) => (Math.abs(x) < 0.5 * 10 ** -d ? 0 : x).toFixed(d);
  const brief = (x) => (x === 0 || Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) < 1e-6 ? "< 0.000001" : String(Number(x.toPrecision(3))));
  const push = (x) => (Math.abs(x) < 5e-7 ? "0" : (1000 * x).toPrecision(3));
  const share = (x) => (x < 0.0005 ? "under 0.1 %" : x > 0.9995 ? "over 99.9 %" : `${(100 * x).toFixed(1)} %`);

  const SVG = "http://www.w3.org/2000/svg";
  const DRAWN = ["svg", "g", "path", "circle", "text", "rect"];
  function make(tag, attributes = {}, ...children) {
    const node = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // Controls: each shows its value as text and speaks it.
  const controls = [
    { key: "size", name: "batch size B", max: SIZES.length - 1, text: (i) => String(SIZES[i]) },
    { key: "classes", name: "classes K", max: CLASSES.length - 1, text: (i) => String(CLASSES[i]) },
    { key: "strength", name: "strength s", max: 1, step: 0.05, text: (x) => x.toFixed(2) },
    { key: "epsilon", name: "leak ε", max: 0.95, step: 0.05, text: (x) => x.toFixed(2) },
    { key: "margin", name: "margin", max: 12, step: 0.5, text: (x) => x.toFixed(1) },
  ].map((control) => {
    const id = `bx-${control.key}`;
    control.input = make("input", { type: "range", id, min: 0, max: control.max, step: control.step || 1 });
    control.output = make("output", { for: id, "aria-live": "off" });
    control.row = make("div", { class: "gx-row" }, make("label", { for: id }, control.name), control.input, control.output);
    control.input.addEventListener("input", () => change({ [control.key]: Number(control.input.value) }));
    return control;
  });
  const another = make("button", { type: "button" }, "Draw another batch");
  another.addEventListener("click", () => change({ seed: state.seed + 1 }));

  // One chart: axes with names and ticks, and the marks that draw() fills in.
  const BOX = { left: 46, right: 326, top: 14, bottom: 176 };
  const across = (u) => BOX.left + u * (BOX.right - BOX.left);
  const up = (v) => BOX.bottom - v * (BOX.bottom - BOX.top);
  function chart(title, xName, xTicks, yName, yTicks, ...marks) {
    const tick = ([u, text]) => make("text", { x: across(u), y: BOX.bottom + 17, "text-anchor": "middle" }, text);
    const rung = ([v, text]) => make("text", { x: BOX.left - 6, y: up(v) + 4, "text-anchor": "end" }, text);
    const grid = yTicks.map(([v]) => `M${across(0)} ${up(v)}H${across(1)}`).join("");
    const picture = make(
      "svg", { viewBox: "0 0 340 216", class: "gx-chart", role: "img" },
      make("path", { class: "gx-grid", d: grid }),
      make("path", { class: "gx-axis", d: `M${across(0)} ${up(1)}V${up(0)}H${across(1)}` }),
      ...xTicks.map(tick), ...yTicks.map(rung),
      make("text", { x: across(0.5), y: 210, "text-anchor": "middle" }, xName), ...marks);
    return { picture, node: make("figure", {}, make("figcaption", {}, title, make("small", {}, yName)), picture) };
  }

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
  const legend = make("ul", { class: "gx-legend" }, ...KINDS.map((kind, i) =>
    make("li", {},
      make("svg", { viewBox: "-18 -9 36 18", "aria-hidden": "true", class: "gx-key" },
        make("path", { class: `gx-line gx-${kind}`, d: "M-17 0H17" }),
        make("path", { class: `gx-dot gx-${kind}`, d: shape(kind) })),
      [ "CE (s = 0)", betweenName, "GenCE (s = 1)" ][i])));

  const cells = KINDS.map(() => [0, 1, 2, 3].map(() => make("td")));
  const rowNames = KINDS.map(() => make("th", { scope: "row" }));
  const heads = ["loss", "before", "after", "change", "push"];
  const table = make("table", {}, make("caption", {}, "This batch before and after the leak; push in thousandths"),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...KINDS.map((_, i) => make("tr", {}, rowNames[i], ...cells[i]))));
  const verdict = make("p", { class: "gx-verdict" });
  const live = make("p", { class: "gx-live", role: "status", "aria-live": "polite" });
  let announcement = 0;
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
    for (const { key, input, output, text } of controls) {
      input.value = state[key];
      output.textContent = text(state[key]);
      input.setAttribute("aria-valuetext", text(state[key]));
    }
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
      rowNames[i].textContent = names[i];
      const row = absent === 0
        ? [digits(before), "no class to leak to", "–", "–"]
        : [digits(before), digits(after), digits(after - before), push(push_[i])];
      row.forEach((text, c) => (cells[i][c].textContent = text));
      const points = Array.from({ length: 96 }, (_, j) => j / 100);
      paths[i].setAttribute("d", "M" + points.map((u) => `${across(u / 0.95).toFixed(1)} ${up(leakChange(x, u) / 3).toFixed(1)}`).join("L"));
      marks[i].setAttribute("transform", `translate(${across(e / 0.95)} ${up(leakChange(x, e) / 3)})`);
    });

    const line = Array.from({ length: 91 }, (_, j) => [j / 90, expectedAbsent(K, 2 ** (j / 10)) / K]);
    curve.setAttribute("d", "M" + line.map(([u, v]) => `${across(u).toFixed(1)} ${up(v).toFixed(1)}`).join("L"));
    here.setAttribute("transform", `translate(${across(state.size / (SIZES.length - 1))} ${up(expected / K)})`);
    shares.picture.setAttribute("aria-label", `Expected share of absent classes against batch size for ${K} classes: ${share(expected / K)} at batch size ${B}.`);
    leaks.picture.setAttribute("aria-label", `Change of the loss against the leak. At ${e.toFixed(2)}: ` +
      strengths.map((x, i) => `${names[i]} ${digits(leakChange(x, e))}`).join(", ") + ".");
    drawBars(names, push_);

    const inBatch = `This batch of ${B} lacks ${absent} of ${K} classes; on average it is ${brief(expected)}, and ${B < K ? "all" : `${share(missing)} of all`} batches lack at least one.`;
    const effect = absent === 0
      ? "Every class is here, so no mass can hide from GenCE."
      : `Moving ${digits(e, 2)} of the mass to them costs ${digits(leakChange(0, e))} under CE, ${digits(leakChange(s, e))} with strength ${s.toFixed(2)}, and nothing under GenCE.`;
    verdict.textContent = `${inBatch} ${effect}`;
    clearTimeout(announcement);
    announcement = setTimeout(() => {
      const pushed = absent === 0 ? "" : ` Push on an absent class in thousandths: ${names.map((name, i) => `${name} ${push(push_[i])}`).join(", ")}.`;
      live.textContent = verdict.textContent + pushed;
    }, 300);
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
      make("div", { class: "gx-stack" }, ...controls.map((control) => control.row), make("div", { class: "gx-buttons" }, another)),
      make("div", { class: "gx-stack" }, shares.node)),
    make("div", { class: "gx-columns" }, leaks.node, pushFigure),
    legend,
    verdict,
    table,
    live,
  );
  draw();
})(globalThis);
