/* The loss lab: type a loss, see the smallest belief that refutes it.
   A plain script without imports; it needs explorers_common.js, loss_language.js and loss_search.js. */
(function (root) {
  "use strict";
  const { make, table, announcer } = root.GenceExplorers;
  const { parse, LossError } = root.GenceLossLanguage;
  const { search, grid, floats, reduced, tableOf, risksOf } = root.GenceLossSearch;

  const EXAMPLES = [
    ["squared error on the label alone", "(1 - p[y])^2", 3],
    ["log loss", "-log(p[y])", 3],
    ["Brier", "sum((p[k] - (y == k))^2)", 3],
    ["spherical", "-p[y] / sqrt(sum(p[k]^2))", 3],
    ["absolute error", "1 - p[y]", 2],
    ["focal, γ = 2", "-(1 - p[y])^2 * log(p[y])", 2],
    ["L_q, exponent 0.7", "(1 - p[y]^0.7) / 0.7", 2],
    ["label smoothing, ε = 0.1", "-0.9 * log(p[y]) - 0.1 / K * sum(log(p[k]))", 3],
    ["temperature 2", "log(sum(sqrt(p[k]))) - log(p[y]) / 2", 2],
    ["class weights", "-(1 + 2 * (y == 0)) * log(p[y])", 2],
    ["zero-one, ties shared", "1 - (p[y] == max(p[k])) / sum(p[k] == max(p[k]))", 2],
    ["truncated log, at 0.01", "-log(max(p[y], 0.01))", 3],
  ];
  const DEFAULT = { text: EXAMPLES[0][1], K: EXAMPLES[0][2] };

  // ---- words ------------------------------------------------------------------------------------------------------

  // Probabilities as fractions where these are short, else as decimals.
  function spoken(point) {
    const { counts, of } = reduced(point);
    const parts = counts.map((n) => [n, of]).map(([n, d]) => {
      const one = reduced({ counts: [n], of: d });
      return one.of <= 60 ? `${one.counts[0]}/${one.of}` : String(Number((n / d).toFixed(6)));
    });
    return `(${parts.join(", ")})`;
  }

  // Two numbers with as many digits as it takes to tell them apart.
  function apart(a, b = a) {
    const d = [4, 6, 8, 10, 12].find((n) => a.toFixed(n) !== b.toFixed(n)) ?? 4;
    return [a, b].map((x) => (Number(x.toFixed(d)) === 0 ? 0 : x).toFixed(d).replace("-", "−"));
  }

  function temper(belief, cheapest) {
    const [believed, said] = [belief, cheapest].map((point) => Math.max(...floats(point)));
    if (Math.abs(believed - said) < 1e-12) return "The cheapest answer moves probability between classes.";
    return said > believed ? "The cheapest answer is bolder than the belief." : "The cheapest answer is more timid than the belief.";
  }

  // A heading and what it rests on.
  function verdictOf(found, K) {
    const tried = `${found.beliefs} beliefs and ${found.answers} answers`;
    if (found.verdict === "no number") {
      const value = Number.isNaN(found.value) ? "not a number" : "infinite";
      return ["Not a number.", `For the answer p = ${spoken(found.answer)} and the label ${found.label} the loss is ${value}. It must be finite wherever no probability is 0: look for a logarithm or a root of something negative, or a division by 0.`];
    }
    if (found.verdict === "refuted") {
      const [costs, honest] = apart(found.costs, found.honest);
      return ["Not proper.", `For the belief q = ${spoken(found.belief)} the honest answer costs ${honest} on average, and the answer p = ${spoken(found.answer)} costs ${costs}. ${temper(found.belief, found.cheapest)}`];
    }
    const more = K === 2 ? " Some losses only lie from three classes on: try K = 3." : "";
    if (found.verdict === "tied") {
      return ["Not strictly proper; perhaps proper.", `For the belief q = ${spoken(found.belief)} the answer p = ${spoken(found.answer)} is as cheap as honesty. None among ${tried} is cheaper: that is no proof.${more}`];
    }
    return ["No counterexample: now prove it.", `None among ${tried} refutes this loss, and no answer is as cheap as honesty. That is no proof.${more}`];
  }

  // ---- the drawing ------------------------------------------------------------------------------------------------

  const CORNERS = { 2: [[380, 170], [20, 170]], 3: [[30, 318], [370, 318], [200, 318 - 340 * Math.sqrt(0.75)]] };
  const onPaper = (p) => [0, 1].map((d) => p.reduce((total, x, k) => total + x * CORNERS[p.length][k][d], 0));
  const at = (point) => onPaper(floats(point)).map((x) => x.toFixed(1)).join(" ");
  const DIAMOND = "M0-11L11 0L0 11L-11 0Z";
  const belief = (where) => make("path", { class: "ll-belief", d: DIAMOND, ...where });
  const answer = (where) => make("circle", { class: "ll-answer", r: 8, ...where });
  const dots = (kind, points) => make("path", { class: `ll-dots ll-${kind}`, d: points.map((p) => `M${at(p)}h0`).join("") });

  function frame(K) {
    const ends = CORNERS[K];
    const names = K === 2
      ? [[380, 198, "end", "sure of 0"], [20, 198, "start", "sure of 1"]]
      : [[8, 342, "start", "class 0"], [392, 342, "end", "class 1"], [200, 16, "middle", "class 2"]];
    return [
      make("path", { class: "gx-triangle", d: `M${ends.map((c) => c.join(" ")).join("L")}Z` }),
      ...names.map(([x, y, anchor, text]) => make("text", { x, y, "text-anchor": anchor }, text)),
    ];
  }

  // For two classes: the risk over the interval, above it.
  function curve(risks, answers) {
    const [low, high] = [Math.min(...risks), Math.max(...risks)];
    const height = (risk) => (high > low ? 130 - (105 * (risk - low)) / (high - low) : 80);
    const d = answers.map((p, i) => [onPaper(floats(p))[0], height(risks[i])]).sort((a, b) => a[0] - b[0]);
    return make("path", { class: "ll-curve", d: "M" + d.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L") });
  }

  function picture(found, risks, K) {
    const { answers, asked } = grid(K);
    const parts = frame(K);
    const signs = [];
    const sign = (shape, text) => signs.push([shape, text]);
    if (found.belief) {
      const slack = 1e-9 * Math.max(1, Math.abs(found.honest));
      const good = answers.filter((_, i) => (found.verdict === "refuted" ? risks[i] < found.honest - slack : risks[i] <= found.honest + slack));
      if (K === 2) parts.push(curve(risks, answers));
      parts.push(dots("answers", good));
      parts.push(belief({ transform: `translate(${at(found.belief)})` }), answer({ transform: `translate(${at(found.answer)})` }));
      const how = found.verdict === "refuted" ? "cheaper" : "as cheap";
      sign(belief({}), "belief q");
      sign(answer({}), `answer p, ${how}`);
      if (good.length) sign(make("path", { class: "ll-dots ll-answers", d: "M-7-4h0M0-4h0M7-4h0M-4 3h0M4 3h0" }), `all ${good.length} that are ${how}`);
      if (K === 2) sign(make("path", { class: "ll-curve", d: "M-12 6Q0-10 12 6" }), "what an answer costs on average");
    } else if (found.verdict === "no number") {
      parts.push(answer({ transform: `translate(${at(found.answer)})` }));
      sign(answer({}), "answer without a loss");
    } else {
      parts.push(dots("beliefs", asked));
      sign(make("path", { class: "ll-dots ll-beliefs", d: "M-8-3h0M0 4h0M8-3h0" }), "beliefs tried");
    }
    const what = K === 2 ? "Interval of answers for two classes" : "Triangle of answers for three classes";
    const shown = found.belief ? `belief ${spoken(found.belief)}, answer ${spoken(found.answer)}` : signs[0][1];
    const svg = make("svg", { viewBox: K === 2 ? "0 0 400 206" : "0 0 400 350", class: "ll-picture", role: "img", "aria-label": `${what}: ${shown}.` }, ...parts);
    const key = ([shape, text]) => make("li", {}, make("svg", { viewBox: "-14 -14 28 28", "aria-hidden": "true" }, shape), text);
    return make("div", {}, svg, make("ul", { class: "gx-legend" }, ...signs.map(key)));
  }

  function bars({ honest, costs }) {
    const [low, high] = [Math.min(0, honest, costs), Math.max(0, honest, costs)];
    const across = (x) => 4 + (332 * (x - low)) / (high - low || 1);
    const [ofCosts, ofHonest] = apart(costs, honest);
    const bar = (kind, name, value, text, y) => [
      make("text", { x: 4, y }, `${name} costs ${text}`),
      make("rect", { class: `gx-bar ll-bar-${kind}`, x: Math.min(across(0), across(value)), y: y + 6, height: 16, width: Math.max(1, Math.abs(across(value) - across(0))) }),
    ];
    return make("svg", { viewBox: "0 0 340 104", class: "ll-bars", role: "img", "aria-label": `Bars of the two risks: honesty costs ${ofHonest}, the other answer ${ofCosts}.` },
      ...bar("honest", "honesty", honest, ofHonest, 16), ...bar("other", "the other answer", costs, ofCosts, 64),
      make("path", { class: "ll-zero", d: `M${across(0)} 20V40m0 28V88` }));
  }

  function sums(found, loss, K) {
    const { node, names, fill } = table("How the averages come about", ["row", ...Array.from({ length: K }, (_, y) => `label ${y}`), "average"], 3);
    const [honest, costs] = apart(found.honest, found.costs);
    const each = (point) => floats(point).map((_, y) => apart(loss(floats(point), y))[0]);
    const rows = [
      ["chance, by the belief q", [...floats(found.belief).map((x) => apart(x)[0]), ""]],
      [`loss of the honest answer ${spoken(found.belief)}`, [...each(found.belief), honest]],
      [`loss of the answer ${spoken(found.answer)}`, [...each(found.answer), costs]],
    ];
    rows.forEach(([name, cells], i) => {
      names[i].textContent = name;
      fill(i, cells);
    });
    return node;
  }

  // ---- links ------------------------------------------------------------------------------------------------------

  const linkOf = (text, K) => `#loss=${encodeURIComponent(text).replace(/[()'*!]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)}&K=${K}`;

  // The loss that an address holds; null where it holds none.
  function lossOf(hash) {
    if (!hash.startsWith("#loss=")) return null;
    const match = /^#loss=([^&]*)(?:&K=([23]))?$/.exec(hash);
    try {
      if (match) return { text: decodeURIComponent(match[1]), K: Number(match[2] ?? 3) };
    } catch {
      // a per cent sign without its two digits
    }
    return { broken: true };
  }

  root.GenceLossLab = { EXAMPLES, linkOf, lossOf, verdictOf, apart, spoken };

  // ---- the page ---------------------------------------------------------------------------------------------------

  const host = root.document && document.getElementById("loss-lab");
  if (!host) return;

  const field = make("input", {
    id: "ll-loss", class: "ll-loss", type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    "aria-describedby": "ll-error ll-keys",
  });
  const classes = make("select", { id: "ll-classes" }, ...[2, 3].map((K) => make("option", { value: K }, `K = ${K}`)));
  const examples = make("select", { id: "ll-example" }, make("option", { value: "" }, "choose one …"),
    ...EXAMPLES.map(([name], i) => make("option", { value: i }, name)));
  const error = make("p", { class: "ll-error", id: "ll-error", hidden: "" });
  const verdict = make("p", { class: "gx-verdict", "data-part": "verdict" });
  const evidence = make("div", { class: "gx-columns", "data-part": "evidence" });
  const link = make("a", { href: "#loss-lab" }, "Link to this loss");
  const links = make("p", { class: "gx-hint", "data-part": "link" }, link, ": it holds the formula, and opens here with this verdict.");
  const live = announcer();
  const chosen = (label, id, control) => make("div", {}, make("label", { for: id }, label), control);
  const form = make("form", { class: "ll-form" },
    make("label", { for: "ll-loss" }, "Loss of the answer p when the label is y"), field, error,
    make("div", { class: "ll-choices" },
      chosen("Classes", "ll-classes", classes), chosen("Examples", "ll-example", examples), make("button", { type: "submit" }, "Search")),
    make("p", { class: "gx-hint ll-keys", id: "ll-keys" }, "Enter searches, too. Known are p[y], p[k], y, k, K, numbers, + - * / ^, comparisons, log, exp, sqrt, abs, min, max and sum."));

  function show(ok) {
    error.hidden = ok;
    field.setAttribute("aria-invalid", String(!ok));
    for (const part of [verdict, evidence, links]) part.hidden = !ok;
  }

  function complain(message, text, from, to) {
    show(false);
    error.replaceChildren(message);
    if (text.trim()) error.append(make("code", {}, text.slice(0, from), make("mark", {}, text.slice(from, to) || "…"), text.slice(to)));
    live.say(message);
  }

  // Judge what stands in the field; whether it could be read.
  function judge() {
    const [text, K] = [field.value, Number(classes.value)];
    let loss;
    try {
      loss = parse(text, K);
    } catch (e) {
      if (!(e instanceof LossError)) throw e;
      complain(text.trim() ? `At character ${e.from + 1}: ${e.message}` : e.message, text, e.from, e.to);
      return e;
    }
    const found = search(loss, K);
    const [head, rest] = verdictOf(found, K);
    show(true);
    verdict.replaceChildren(make("strong", {}, head), rest);
    const risks = found.belief ? risksOf(tableOf(loss, K), floats(found.belief)) : [];
    if (found.verdict === "tied") found.costs = found.honest;
    evidence.replaceChildren(picture(found, risks, K), ...(found.belief ? [bars(found), sums(found, loss, K)] : []));
    link.href = linkOf(text, K);
    live.say(`${head} ${rest}`);
    return null;
  }

  function take(wanted) {
    examples.value = "";
    if (wanted.broken) return complain("This link holds no loss that can be read. Type one, for example -log(p[y]).", "", 0, 0);
    field.value = wanted.text;
    classes.value = wanted.K;
    return judge();
  }

  // What the reader asks for goes into the address; what the page opens with does not.
  function ask() {
    const refused = judge();
    if (!refused) history.replaceState(null, "", linkOf(field.value, Number(classes.value)));
    return refused;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const refused = ask();
    if (!refused) return;
    field.focus();
    field.setSelectionRange(refused.from, refused.to);
  });
  classes.addEventListener("change", ask);
  field.addEventListener("input", () => (examples.value = ""));
  examples.addEventListener("change", () => {
    if (examples.value === "") return;
    const [, text, K] = EXAMPLES[Number(examples.value)];
    field.value = text;
    classes.value = K;
    ask();
  });
  addEventListener("hashchange", () => {
    const wanted = lossOf(location.hash);
    if (wanted) take(wanted);
  });

  host.replaceChildren(form, verdict, evidence, links, live.node);
  const wanted = lossOf(location.hash);
  take(wanted ?? DEFAULT);
  if (wanted) host.scrollIntoView();
})(globalThis);
