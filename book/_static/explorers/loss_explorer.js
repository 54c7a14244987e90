/* The loss explorer: what a loss rewards, on the simplex of three classes.
   A plain script without imports, so that the page also works when it is opened as a file.
   It needs explorers_common.js. First the mathematics, as pure functions of arrays of probabilities (exported as GenceLossExplorer and tested
   against the Python package); then the figure. */
(function (root) {
  "use strict";
  const { sum, make, slider, table, announcer } = root.GenceExplorers;

  // ---- mathematics ------------------------------------------------------------------------------------------------

  // A loss is {name, t}: t is gamma for focal, the exponent a for L_q, epsilon for label smoothing.
  const LOSSES = {
    ce: { label: "cross-entropy (CE)" },
    brier: { label: "Brier" },
    focal: { label: "focal", symbol: "γ", spoken: "gamma", min: 0, max: 5, step: 0.1, start: 2 },
    lq: { label: "L_q", symbol: "a", spoken: "exponent a", min: 0.05, max: 1, step: 0.05, start: 0.5 },
    smooth: { label: "label smoothing", symbol: "ε", spoken: "epsilon", min: 0, max: 0.9, step: 0.05, start: 0.3 },
  };

  // Weights times values, where a weight of 0 counts as nothing even if the value is infinite.
  const weighted = (w, v) => sum(w.map((wk, k) => (wk === 0 ? 0 : wk * v[k])));
  const isProper = ({ name, t }) => name === "ce" || name === "brier" || (name !== "lq" && t === 0);

  function pointLoss({ name, t }, p, k) {
    if (name === "ce") return -Math.log(p[k]);
    if (name === "brier") return sum(p.map((pj, j) => (pj - (j === k ? 1 : 0)) ** 2));
    if (name === "focal") return -((1 - p[k]) ** t) * Math.log(p[k]);
    if (name === "lq") return (1 - p[k] ** t) / t;
    const target = p.map((_, j) => (j === k ? 1 - t : 0) + t / p.length); // label smoothing
    return -weighted(target, p.map(Math.log));
  }

  // Expected loss of the prediction p when the classes come with probabilities q.
  const risk = (loss, p, q) => weighted(q, p.map((_, k) => (q[k] === 0 ? 0 : pointLoss(loss, p, k))));

  // The prediction with the smallest risk. Every risk here is convex in p, so it is unique, except for L_q at a = 1.
  function minimiser(loss, q) {
    const { name, t } = loss;
    if (isProper(loss)) return q.slice();
    if (name === "smooth") return q.map((qk) => (1 - t) * qk + t / q.length);
    const top = Math.max(...q);
    if (name === "lq") {
      // p_k proportional to q_k^(1/(1-a)); at a = 1 all mass on the likeliest class, ties shared.
      const scores = q.map((qk) => (t < 1 ? (qk / top) ** (1 / (1 - t)) : Number(top - qk < 1e-12)));
      return scores.map((s) => s / sum(scores));
    }
    return focalMinimiser(t, q);
  }

  // Stationarity: q_k * slope(p_k) is the same number for all classes with q_k > 0, where slope = -f' > 0 falls in p
  // for f(p) = -(1-p)^gamma log p. Two nested bisections, over that number and over the logit of each p_k.
  function focalMinimiser(gamma, q) {
    const bisect = (goesUp, low, high) => {
      for (let i = 0; i < 64; i++) {
        const middle = (low + high) / 2;
        if (goesUp(middle)) low = middle;
        else high = middle;
      }
      return (low + high) / 2;
    };
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    const slope = (x) => {
      const [p, rest] = [sigmoid(x), sigmoid(-x)];
      return gamma * rest ** (gamma - 1) * Math.log1p(Math.exp(-x)) + rest ** gamma / p;
    };
    const answer = (logCommon) =>
      q.map((qk) => (qk === 0 ? 0 : sigmoid(bisect((x) => Math.log(slope(x)) > logCommon - Math.log(qk), -40, 40))));
    if (q.filter((qk) => qk > 0).length === 1) return q.slice();
    const p = answer(bisect((logCommon) => sum(answer(logCommon)) > 1, -250, 50));
    return p.map((pk) => pk / sum(p));
  }

  // How much more than the smallest risk p pays.
  const excess = (loss, p, q) => risk(loss, p, q) - risk(loss, minimiser(loss, q), q);

  // The Bregman divergence of a proper loss, from its convex function and not from risks: sum q log q for CE and its
  // relatives, sum q^2 for Brier. No such identity holds for a loss that is not proper: null.
  function bregman(loss, q, p) {
    if (!isProper(loss)) return null;
    if (loss.name === "brier") return sum(q.map((qk, k) => (qk - p[k]) ** 2));
    return sum(q.map((qk, k) => (qk === 0 ? p[k] : qk * Math.log(qk / p[k]) - qk + p[k])));
  }

  // The nearest point of the simplex.
  function project(v) {
    const sorted = v.slice().sort((a, b) => b - a);
    let [total, shift] = [0, 0];
    sorted.forEach((x, i) => {
      total += x;
      if (x - (total - 1) / (i + 1) > 0) shift = (total - 1) / (i + 1);
    });
    return v.map((x) => Math.max(x - shift, 0));
  }

  // Set one probability; the others keep their proportions.
  function setOne(p, k, value) {
    const rest = 1 - p[k];
    return p.map((pj, j) => (j === k ? value : rest > 1e-9 ? (pj / rest) * (1 - value) : (1 - value) / (p.length - 1)));
  }

  // One step of an arrow key: left and right move mass between A and B, up and down in and out of C.
  function arrow(p, key, step) {
    const tidy = (v) => project(v.map((x) => Math.round(x * 1e6) / 1e6));
    let [a, b, c] = p;
    if (key === "ArrowRight" || key === "ArrowLeft") {
      const d = key === "ArrowRight" ? Math.min(step, a) : -Math.min(step, b);
      return tidy([a - d, b + d, c]);
    }
    if (key === "ArrowUp") {
      const d = Math.min(step, a + b);
      const fromA = Math.min(a, Math.max(d / 2, d - b));
      return tidy([a - fromA, b - (d - fromA), c + d]);
    }
    if (key === "ArrowDown") {
      const d = Math.min(step, c);
      return tidy([a + d / 2, b + d / 2, c - d]);
    }
    return null;
  }

  // Line segments, in barycentric coordinates, along which the excess risk equals each level.
  function contours(loss, q, levels, n = 48) {
    const least = risk(loss, minimiser(loss, q), q);
    const at = (i, j) => [i / n, j / n, (n - i - j) / n];
    const inside = (p) => p.map((x) => (x + 2e-4) / (1 + 6e-4)); // the edges may be infinitely bad
    const value = [];
    for (let i = 0; i <= n; i++) {
      value.push([]);
      for (let j = 0; j <= n - i; j++) value[i].push(risk(loss, inside(at(i, j)), q) - least);
    }
    return levels.map((level) => {
      const segments = [];
      const triangle = (corners) => {
        const cuts = [];
        corners.forEach(([i, j], c) => {
          const [k, l] = corners[(c + 1) % 3];
          const [u, v] = [value[i][j], value[k][l]];
          if (u < level === v < level) return;
          const [s, from, to] = [(level - u) / (v - u), at(i, j), at(k, l)];
          cuts.push(from.map((x, m) => x + s * (to[m] - x)));
        });
        if (cuts.length === 2) segments.push(cuts);
      };
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n - i; j++) {
          triangle([[i, j], [i + 1, j], [i, j + 1]]);
          if (i + j < n - 1) triangle([[i + 1, j], [i + 1, j + 1], [i, j + 1]]);
        }
      }
      return segments;
    });
  }

  root.GenceLossExplorer = {
    LOSSES, pointLoss, risk, minimiser, excess, bregman, isProper, project, setOne, arrow, contours,
  };

  // ---- figure -----------------------------------------------------------------------------------------------------

  const host = root.document && root.document.getElementById("loss-explorer");
  if (!host) return;
  const CLASSES = ["A", "B", "C"];
  const LEVELS = [0.01, 0.03, 0.1, 0.3, 1];
  const CORNERS = [[30, 318], [370, 318], [200, 318 - 340 * Math.sqrt(0.75)]];
  const state = { loss: "ce", t: 0, q: [0.5, 0.35, 0.15], p: [0.2, 0.3, 0.5] };

  const number = (x) => (Number.isFinite(x) ? (Math.abs(x) < 5e-4 ? 0 : x).toFixed(3) : "∞");
  const spoken = (p) => CLASSES.map((c, k) => `${c} ${number(p[k])}`).join(", ");
  const toXY = (p) => [0, 1].map((d) => sum(p.map((pk, k) => pk * CORNERS[k][d])));
  const toSimplex = (x, y) => {
    const c = (CORNERS[0][1] - y) / (CORNERS[0][1] - CORNERS[2][1]);
    const b = (x - CORNERS[0][0] - c * (CORNERS[2][0] - CORNERS[0][0])) / (CORNERS[1][0] - CORNERS[0][0]);
    return project([1 - b - c, b, c]);
  };

  // Controls.
  const picker = make("select", { id: "lx-loss" });
  for (const [name, { label }] of Object.entries(LOSSES)) picker.append(make("option", { value: name }, label));
  const strengthName = make("span");
  const { input: strength, output: strengthValue, row: strengthRow } = slider("lx-t", strengthName, {}, (t) => change({ t }));
  const sliders = { q: [], p: [] };
  function threeSliders(which, title) {
    const rows = CLASSES.map((c, k) => {
      const { input, output, row } = slider(`lx-${which}-${c}`, `class ${c}`, { min: 0, max: 1, step: 0.005 }, (value) =>
        change({ [which]: setOne(state[which], k, value) }));
      sliders[which].push({ input, output });
      return row;
    });
    return make("fieldset", {}, make("legend", {}, title), ...rows);
  }
  const button = (text, action) => {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", action);
    return node;
  };

  // The triangle.
  const lines = LEVELS.map((_, i) => make("path", { class: "gx-contour", "stroke-width": 0.8 + 0.35 * i }));
  const levelNames = LEVELS.map((level) => make("text", { class: "gx-level" }, String(level)));
  const distortion = make("path", { class: "gx-distortion" });
  const best = make("path", { class: "gx-best", d: "M-8-8L8 8M-8 8L8-8" });
  const handle = (which, shape, name) =>
    make(
      "g",
      { class: `gx-handle gx-${which}`, tabindex: 0, role: "slider", "aria-label": name, "data-handle": which,
        "aria-valuemin": 0, "aria-valuemax": 1, "aria-describedby": "lx-keys" },
      make("circle", { class: "gx-hit", r: 22 }),
      make("circle", { class: "gx-ring", r: 17 }),
      shape,
    );
  const handles = {
    q: handle("q", make("path", { class: "gx-mark", d: "M0-11L11 0L0 11L-11 0Z" }), "Belief q"),
    p: handle("p", make("circle", { class: "gx-mark", r: 9 }), "Prediction p"),
  };
  const svg = make(
    "svg",
    { viewBox: "0 0 400 350", class: "gx-simplex", role: "group", "aria-label": "Simplex of three classes" },
    make("path", { class: "gx-triangle", d: `M${CORNERS.map((c) => c.join(" ")).join("L")}Z` }),
    ...lines,
    ...levelNames,
    make("text", { x: 14, y: 342 }, "A"),
    make("text", { x: 386, y: 342, "text-anchor": "end" }, "B"),
    make("text", { x: 200, y: 16, "text-anchor": "middle" }, "C"),
    distortion,
    best,
    handles.q,
    handles.p,
  );

  const sign = (kind, shape, text) =>
    make("li", {}, make("svg", { viewBox: "-14 -14 28 28", "aria-hidden": "true", class: kind }, shape), text);
  const legend = make(
    "ul",
    { class: "gx-legend" },
    sign("gx-q", make("path", { class: "gx-mark", d: "M0-11L11 0L0 11L-11 0Z" }), "belief q"),
    sign("gx-p", make("circle", { class: "gx-mark", r: 9 }), "prediction p"),
    sign("", make("path", { class: "gx-best", d: "M-8-8L8 8M-8 8L8-8" }), "best answer p*"),
    sign("", make("path", { class: "gx-contour", d: "M-12 6Q0-10 12 6" }), "equal excess risk"),
  );

  // Numbers.
  const byClass = table("Class by class", ["class", "belief q", "prediction p", "best answer p*", "loss if true"], CLASSES.length);
  CLASSES.forEach((c, k) => (byClass.names[k].textContent = c));
  const values = {};
  const valueRows = [
    ["risk", "risk of p"],
    ["least", "smallest risk, at p*"],
    ["excess", "excess risk of p"],
    ["bregman", "Bregman divergence of q and p"],
    ["truth", "excess risk of answering q"],
  ].map(([key, name]) => {
    values[key] = make("td", { "data-value": key });
    return make("tr", {}, make("th", { scope: "row" }, name), values[key]);
  });
  const totals = make("table", {}, make("caption", {}, "In expectation"), make("tbody", {}, ...valueRows));
  const verdict = make("p", { class: "gx-verdict" });
  const live = announcer();

  function change(update) {
    Object.assign(state, update);
    draw();
  }

  function choose(name) {
    const { start = 0 } = LOSSES[name];
    change({ loss: name, t: start });
  }

  function draw() {
    const loss = { name: state.loss, t: state.t };
    const { p, q } = state;
    const about = LOSSES[state.loss];
    const star = minimiser(loss, q);
    const proper = isProper(loss);

    picker.value = state.loss;
    strengthRow.hidden = !about.symbol;
    if (about.symbol) {
      for (const key of ["min", "max", "step"]) strength[key] = about[key];
      strength.value = state.t;
      strength.setAttribute("aria-valuetext", `${about.spoken} ${state.t}`);
      strengthName.textContent = { focal: "focusing γ", lq: "exponent a", smooth: "smoothing ε" }[state.loss];
      strengthValue.textContent = state.t.toFixed(2);
    }
    for (const which of ["q", "p"]) {
      const point = state[which];
      sliders[which].forEach(({ input, output }, k) => {
        if (Math.abs(Number(input.value) - point[k]) > 0.0025) input.value = point[k];
        input.setAttribute("aria-valuetext", `${CLASSES[k]} ${number(point[k])}; now ${spoken(point)}`);
        output.textContent = number(point[k]);
      });
      handles[which].setAttribute("transform", `translate(${toXY(point).join(" ")})`);
      handles[which].setAttribute("aria-valuenow", number(point[0]));
      handles[which].setAttribute("aria-valuetext", spoken(point));
    }
    const [from, to] = [toXY(q), toXY(star)];
    best.setAttribute("transform", `translate(${to.join(" ")})`);
    distortion.setAttribute("d", `M${from.join(" ")}L${to.join(" ")}`);
    drawContours(loss, q, star);

    CLASSES.forEach((_, k) => byClass.fill(k, [q[k], p[k], star[k], pointLoss(loss, p, k)].map(number)));
    const numbers = {
      risk: risk(loss, p, q),
      least: risk(loss, star, q),
      excess: excess(loss, p, q),
      bregman: bregman(loss, q, p),
      truth: excess(loss, q, q),
    };
    for (const [key, x] of Object.entries(numbers)) values[key].textContent = x === null ? "no such identity" : number(x);
    verdict.textContent = proper ? properVerdict(loss) : improperVerdict(q, star);

    const t = about.symbol ? `, ${about.spoken} ${state.t}` : "";
    live.say(`${about.label}${t}. Belief ${spoken(q)}. Prediction ${spoken(p)}. Best answer ${spoken(star)}. ` +
      `Risk ${number(numbers.risk)}, excess ${number(numbers.excess)}.`);
  }

  function properVerdict(loss) {
    const divergence = loss.name === "brier" ? "the squared distance between q and p" : "KL(q‖p)";
    return `Proper: the best answer is the belief itself. The excess risk is the regret, and equals ${divergence}.`;
  }

  function improperVerdict(q, star) {
    const [honest, said] = [Math.max(...q), Math.max(...star)];
    if (Math.max(...q.map((qk, k) => Math.abs(qk - star[k]))) < 5e-4) {
      return "Not proper, although for this belief the best answer is the belief, to three digits. Move q.";
    }
    const how = said > honest + 5e-4 ? "more" : said < honest - 5e-4 ? "less" : "as";
    return (
      `Not proper: the best answer is not the belief. Its largest probability is ${number(said)} instead of ` +
      `${number(honest)}: ${how} confident ${how === "as" ? "as" : "than"} the belief.`
    );
  }

  function drawContours(loss, q, star) {
    const xy = (p) => toXY(p).map((x) => x.toFixed(1)).join(" ");
    const far = q.indexOf(Math.min(...q));
    const corner = CLASSES.map((_, k) => (k === far ? 0.98 : 0.01));
    const along = (s) => star.map((x, k) => x + s * (corner[k] - x));
    const least = risk(loss, star, q);
    let last = 0;
    contours(loss, q, LEVELS).forEach((segments, i) => {
      lines[i].setAttribute("d", segments.map(([a, b]) => `M${xy(a)}L${xy(b)}`).join(""));
      // The level's name stands where the line from the best answer to the least likely corner crosses it.
      let [low, high] = [0, 1];
      for (let step = 0; step < 30; step++) {
        const middle = (low + high) / 2;
        if (risk(loss, along(middle), q) - least < LEVELS[i]) low = middle;
        else high = middle;
      }
      const [x, y] = toXY(along(high));
      const crowded = high > 0.999 || high - last < 0.09;
      levelNames[i].style.display = crowded ? "none" : "";
      if (!crowded) last = high;
      levelNames[i].setAttribute("x", x.toFixed(1));
      levelNames[i].setAttribute("y", (y + 4).toFixed(1));
    });
  }

  // Pointer and keys.
  const pointOf = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return toSimplex(at.x, at.y);
  };
  for (const [which, node] of Object.entries(handles)) {
    node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      node.focus();
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (node.hasPointerCapture(event.pointerId)) change({ [which]: pointOf(event) });
    });
    node.addEventListener("click", (event) => event.stopPropagation());
    node.addEventListener("keydown", (event) => {
      const next = arrow(state[which], event.key, event.shiftKey ? 0.1 : 0.01);
      if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      change({ [which]: next });
    });
  }
  svg.addEventListener("click", (event) => change({ p: pointOf(event) }));
  picker.addEventListener("change", () => choose(picker.value));

  host.replaceChildren(
    make(
      "div",
      { class: "gx-columns" },
      make("div", { class: "gx-stack" },
        make("div", { class: "gx-row" }, make("label", { for: "lx-loss" }, "Loss"), picker),
        strengthRow,
        svg,
        legend,
        make("p", { class: "gx-hint", id: "lx-keys" },
          "Drag a mark, or tap to place p. With the keyboard: arrow keys move by 0.01, with Shift by 0.1; left and " +
          "right between A and B, up and down to and from C.")),
      make("div", { class: "gx-stack" },
        threeSliders("q", "Belief q"),
        threeSliders("p", "Prediction p"),
        make("div", { class: "gx-buttons" },
          button("Set p to q", () => change({ p: state.q.slice() })),
          button("Set p to p*", () => change({ p: minimiser({ name: state.loss, t: state.t }, state.q) })))),
    ),
    verdict,
    make("div", { class: "gx-columns" }, byClass.node, totals),
    live.node,
  );
  choose("ce");
})(globalThis);
