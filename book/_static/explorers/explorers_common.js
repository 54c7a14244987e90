/* What the explorers share: elements, sliders, charts and tables.
   A plain script without imports, loaded before them; everything is in GenceExplorers. */
(function (root) {
  "use strict";

  const sum = (v) => v.reduce((a, b) => a + b, 0);

  // Numbers as text.
  const digits = (x, d = 3) => (Math.abs(x) < 0.5 * 10 ** -d ? 0 : x).toFixed(d);
  const brief = (x) => (x === 0 || Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) < 1e-6 ? "< 0.000001" : String(Number(x.toPrecision(3))));
  const share = (x) => (x < 0.0005 ? "under 0.1 %" : x > 0.9995 ? "over 99.9 %" : `${(100 * x).toFixed(1)} %`);

  const SVG = "http://www.w3.org/2000/svg";
  const DRAWN = ["svg", "g", "path", "circle", "text", "rect"];
  function make(tag, attributes = {}, ...children) {
    const node = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // A slider with its name and its value as text.
  function slider(id, name, range, listen) {
    const input = make("input", { type: "range", id, ...range });
    const output = make("output", { for: id, "aria-live": "off" });
    input.addEventListener("input", () => listen(Number(input.value)));
    return { input, output, row: make("div", { class: "gx-row" }, make("label", { for: id }, name), input, output) };
  }

  // One slider for each setting {key, name, max, step, text} of a state; each shows its value as text and speaks it.
  function panel(prefix, settings, change) {
    const all = settings.map(({ key, name, max, step = 1, text }) =>
      ({ key, text, ...slider(`${prefix}-${key}`, name, { min: 0, max, step }, (value) => change({ [key]: value })) }));
    function show(state) {
      for (const { key, input, output, text } of all) {
        input.value = state[key];
        output.textContent = text(state[key]);
        input.setAttribute("aria-valuetext", text(state[key]));
      }
    }
    return { rows: all.map(({ row }) => row), show };
  }

  // One chart: axes with names and ticks, and the marks that the explorer fills in. u and v run from 0 to 1.
  const BOX = { left: 46, right: 326, top: 14, bottom: 176 };
  const across = (u) => BOX.left + u * (BOX.right - BOX.left);
  const up = (v) => BOX.bottom - v * (BOX.bottom - BOX.top);
  const line = (points) => "M" + points.map(([u, v]) => `${across(u).toFixed(1)} ${up(v).toFixed(1)}`).join("L");
  const to = (u, v) => `translate(${across(u)} ${up(v)})`;
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

  // What a line and its mark mean: entries [kind, the mark's path around the origin, name].
  function legend(entries) {
    return make("ul", { class: "gx-legend" }, ...entries.map(([kind, shape, name]) =>
      make("li", {},
        make("svg", { viewBox: "-18 -9 36 18", "aria-hidden": "true", class: "gx-key" },
          make("path", { class: `gx-line gx-${kind}`, d: "M-17 0H17" }),
          make("path", { class: `gx-dot gx-${kind}`, d: shape })),
        name)));
  }

  // A table of n rows whose names and cells the explorer fills in.
  function table(caption, heads, n) {
    const names = Array.from({ length: n }, () => make("th", { scope: "row" }));
    const cells = names.map(() => heads.slice(1).map(() => make("td")));
    const node = make("table", {}, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...names.map((name, i) => make("tr", {}, name, ...cells[i]))));
    const fill = (i, texts) => texts.forEach((text, c) => (cells[i][c].textContent = text));
    return { node, names, fill };
  }

  // A line that is read out, not shown. It waits until a slider rests, so that not every step is spoken.
  function announcer() {
    const node = make("p", { class: "gx-live", role: "status", "aria-live": "polite" });
    let waiting = 0;
    function say(text) {
      clearTimeout(waiting);
      waiting = setTimeout(() => (node.textContent = text), 300);
    }
    return { node, say };
  }

  root.GenceExplorers = {
    sum, digits, brief, share, make, slider, panel, across, up, line, to, chart, legend, table, announcer,
  };
})(globalThis);
