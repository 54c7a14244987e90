/* Questions answered with probabilities. What a reader says stays in this browser: localStorage, one key. */
"use strict";

const GenceQuiz = (() => {
  const KEY = "gence-quiz";
  const ENOUGH = 20; // answers before a reliability diagram says anything
  const BINS = 5;
  const SCORES = ["log", "brier", "linear"];

  // --- scores: per cent for each option, and the place of the right one ------------------------------------------

  const total = values => values.reduce((sum, value) => sum + value, 0);
  const mean = values => total(values) / values.length;

  function scores(percents, right) {
    const p = percents.map(percent => percent / 100);
    return {
      log: -Math.log(p[right]) + 0, // + 0 makes a plain zero of -0
      brier: total(p.map((value, k) => (value - (k === right ? 1 : 0)) ** 2)),
      linear: 1 - p[right],
    };
  }

  function favourite(percents) {
    const place = percents.indexOf(Math.max(...percents));
    return percents.map((_, k) => (k === place ? 100 : 0));
  }

  const equal = percents => percents.map(() => 100 / percents.length);

  // --- sliders that sum to 100 ------------------------------------------------------------------------------------

  // Whole numbers that sum to `sum`, in proportion to weights (equal if all are zero): the largest remainders win.
  function share(sum, weights) {
    const all = total(weights);
    const exact = weights.map(weight => (all > 0 ? (sum * weight) / all : sum / weights.length));
    const whole = exact.map(Math.floor);
    const order = exact.map((_, k) => k).sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]) || a - b);
    for (let left = sum - total(whole), k = 0; left > 0; left--, k++) whole[order[k]] += 1;
    return whole;
  }

  // Set one option. What the reader has set before stays if that is possible, and the others take up the rest.
  function rebalance(percents, touched, place, value) {
    const result = percents.map(() => 0);
    result[place] = value;
    const others = percents.map((_, k) => k).filter(k => k !== place);
    const set = others.filter(k => touched[k]);
    const free = others.filter(k => !touched[k]);
    const kept = total(set.map(k => percents[k]));
    const fits = free.length > 0 && kept <= 100 - value;
    if (fits) set.forEach(k => (result[k] = percents[k]));
    const moving = fits ? free : set.length ? set : free;
    const rest = 100 - value - (fits ? kept : 0);
    share(rest, moving.map(k => percents[k])).forEach((part, k) => (result[moving[k]] = part));
    return result;
  }

  // --- reliability ------------------------------------------------------------------------------------------------

  // The central 95 % of the number of hits, if each of these chances is right: exact, by adding one trial at a time.
  function band(chances) {
    let law = [1];
    for (const chance of chances)
      law = [...law, 0].map((mass, k) => mass * (1 - chance) + (k > 0 ? law[k - 1] * chance : 0));
    const quantile = level => {
      let below = 0;
      for (let k = 0; k < law.length; k++) if ((below += law[k]) >= level - 1e-12) return k;
      return law.length - 1;
    };
    return [quantile(0.025), quantile(0.975)];
  }

  // Every option of every answer is a forecast of an event. Of one question at most one event happens, so the options
  // that fall into one bin are one trial, with the sum of their probabilities as its chance.
  function reliability(answers) {
    const bins = Array.from({ length: BINS }, () => ({ stated: [], came: [], chances: [] }));
    for (const { percents, right } of answers) {
      const chances = Array(BINS).fill(0);
      percents.forEach((percent, k) => {
        const at = Math.min(Math.floor((percent * BINS) / 100), BINS - 1);
        bins[at].stated.push(percent / 100);
        bins[at].came.push(k === right ? 1 : 0);
        chances[at] += percent / 100;
      });
      chances.forEach((chance, at) => chance > 0 && bins[at].chances.push(Math.min(chance, 1)));
    }
    return bins
      .filter(bin => bin.stated.length > 0)
      .map(({ stated, came, chances }) => {
        const [low, high] = band(chances).map(hits => hits / stated.length);
        return { n: stated.length, stated: mean(stated), came: mean(came), low, high };
      });
  }

  // Mean Brier score = reliability - resolution + uncertainty + what the bins hide (forecasts in a bin differ).
  function parts(answers) {
    const bins = reliability(answers);
    const events = total(bins.map(bin => bin.n));
    const base = answers.length / events; // one option in each question is right
    const over = f => total(bins.map(bin => bin.n * f(bin))) / answers.length;
    const found = {
      brier: mean(answers.map(({ percents, right }) => scores(percents, right).brier)),
      reliability: over(bin => (bin.stated - bin.came) ** 2),
      resolution: over(bin => (bin.came - base) ** 2),
      uncertainty: (events * base * (1 - base)) / answers.length,
    };
    return { ...found, within: found.brier - found.reliability + found.resolution - found.uncertainty };
  }

  function summary(answers) {
    const average = change =>
      Object.fromEntries(
        SCORES.map(name => [name, mean(answers.map(a => scores(change(a.percents), a.right)[name]))]),
      );
    return { yours: average(percents => percents), favourite: average(favourite), equal: average(equal) };
  }

  // --- what is kept -----------------------------------------------------------------------------------------------

  const isAnswer = answer =>
    Array.isArray(answer?.percents) &&
    answer.percents.every(percent => Number.isInteger(percent) && percent >= 0) &&
    total(answer.percents) === 100 &&
    answer.percents[answer.right] !== undefined;

  let memory = {}; // for browsers that keep nothing

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
      memory = Object.fromEntries(Object.entries(kept.answers ?? {}).filter(([, answer]) => isAnswer(answer)));
    } catch {
      /* storage is off, or holds something else: what was said on this page remains */
    }
    return memory;
  }

  function keep(answers) {
    memory = answers;
    try {
      if (Object.keys(answers).length) localStorage.setItem(KEY, JSON.stringify({ version: 1, answers }));
      else localStorage.removeItem(KEY);
    } catch {
      /* storage is off */
    }
  }

  const rows = answers =>
    Object.entries(answers)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([question, answer]) => ({ question, ...answer, ...scores(answer.percents, answer.right) }));

  function asJSON(answers) {
    const plain = rows(answers).map(row => ({ ...row, log: Number.isFinite(row.log) ? row.log : "inf" }));
    return JSON.stringify({ version: 1, answers: plain }, null, 2);
  }

  function asCSV(answers) {
    const lines = rows(answers).map(row => {
      const options = [0, 1, 2, 3].map(k => row.percents[k] ?? "");
      const log = Number.isFinite(row.log) ? row.log : "inf";
      return [row.question, row.when, "ABCD"[row.right], ...options, log, row.brier, row.linear].join(",");
    });
    return ["question,when,right,A,B,C,D,log,brier,linear", ...lines].join("\n") + "\n";
  }

  // --- the page ---------------------------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "circle", "text", "g"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const two = value =>
    Number.isFinite(value) ? value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−") : "∞";

  function table(caption, heads, lines) {
    const head = make("tr", {}, ...heads.map(text => make("th", { scope: "col" }, text)));
    const body = lines.map(([name, ...cells]) =>
      make("tr", {}, make("th", { scope: "row" }, name), ...cells.map(cell => make("td", {}, cell))),
    );
    const whole = make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
    return make("div", { class: "pst-scrollable-table-container" }, whole);
  }

  const scoreTable = (caption, lines) =>
    table(
      caption,
      ["", "Log", "Brier", "Linear"].map(text => text || "Answer"),
      lines.map(([name, found]) => [name, ...SCORES.map(score => two(found[score]))]),
    );

  function button(text, act) {
    const made = make("button", { type: "button", class: "quiz-button" }, text);
    made.addEventListener("click", act);
    return made;
  }

  // The sliders of a question.
  function fields(block) {
    const labels = [...block.querySelectorAll("fieldset label")];
    let percents = share(100, labels.map(() => 1));
    const touched = labels.map(() => false);
    const sliders = labels.map((label, k) => {
      const id = `${block.id}-${k}`;
      const slider = make("input", { type: "range", id, min: 0, max: 100, step: 1 });
      const shown = make("output", { for: id });
      label.htmlFor = id;
      // An option that is a formula has no words of its own.
      label.prepend(make("span", { class: "quiz-letter" }, `Answer ${"ABCDEFGH"[k]}: `));
      label.after(make("span", { class: "quiz-slider" }, slider, shown));
      slider.addEventListener("input", () => {
        percents = rebalance(percents, touched, k, Number(slider.value));
        touched[k] = true;
        show();
      });
      return { slider, shown };
    });
    function show() {
      sliders.forEach(({ slider, shown }, k) => {
        slider.value = percents[k];
        slider.setAttribute("aria-valuetext", `${percents[k]} per cent`);
        shown.textContent = `${percents[k]} %`;
      });
    }
    show();
    return {
      percents: () => percents,
      close(final) {
        percents = final ?? percents;
        show();
        sliders.forEach(({ slider }) => (slider.disabled = true));
      },
    };
  }

  function ask(block) {
    const name = block.dataset.question;
    const right = Number(block.dataset.right);
    const answer = block.querySelector("details");
    const form = fields(block);
    const said = make("div", { role: "status" });
    const buttons = make(
      "p",
      {},
      button("This is what I believe", () => {
        const given = { percents: form.percents(), right, when: new Date().toISOString() };
        keep({ ...load(), [name]: given });
        show(given);
        answer.open = true;
        document.dispatchEvent(new Event("gence-quiz"));
      }),
      " ",
      button("Show the answer, do not count it", () => {
        close();
        answer.open = true;
        said.textContent = "Not counted.";
      }),
    );
    function close(percents) {
      form.close(percents);
      buttons.remove();
      answer.hidden = false;
    }
    function show(given) {
      close(given.percents);
      said.replaceChildren(
        scoreTable(`The right answer, ${"ABCD"[given.right]}, had ${given.percents[given.right]} % from you. Low is good.`, [
          ["Yours", scores(given.percents, given.right)],
          ["All on your favourite", scores(favourite(given.percents), given.right)],
          ["Equal shares", scores(equal(given.percents), given.right)],
        ]),
      );
    }
    answer.hidden = true;
    block.insertBefore(said, answer);
    block.insertBefore(buttons, said);
    const before = load()[name];
    if (before) show(before);
    addEventListener("beforeprint", () => {
      answer.hidden = false;
      answer.open = true;
    });
  }

  // --- the reader's own numbers -----------------------------------------------------------------------------------

  function diagram(bins) {
    const [left, top, size] = [44, 10, 250];
    const x = value => left + value * size;
    const y = value => top + (1 - value) * size;
    const marks = [0, 0.2, 0.4, 0.6, 0.8, 1].flatMap(value => [
      make("line", { x1: x(value), x2: x(value), y1: y(0), y2: y(1), class: "quiz-grid" }),
      make("line", { x1: x(0), x2: x(1), y1: y(value), y2: y(value), class: "quiz-grid" }),
      make("text", { x: x(value), y: y(0) + 16, "text-anchor": "middle" }, `${Math.round(100 * value)}`),
      make("text", { x: x(0) - 6, y: y(value) + 4, "text-anchor": "end" }, `${Math.round(100 * value)}`),
    ]);
    const drawn = bins.flatMap(bin => [
      make("line", { x1: x(bin.stated), x2: x(bin.stated), y1: y(bin.low), y2: y(bin.high), class: "quiz-band" }),
      make("circle", { cx: x(bin.stated), cy: y(bin.came), r: 5, class: "quiz-dot" }),
    ]);
    return make(
      "svg",
      { viewBox: "0 0 310 310", role: "img", "aria-label": "Your reliability diagram; the table below has its numbers." },
      ...marks,
      make("line", { x1: x(0), x2: x(1), y1: y(0), y2: y(1), class: "quiz-diagonal" }),
      ...drawn,
      make("text", { x: x(0.5), y: y(0) + 36, "text-anchor": "middle" }, "you said, per cent"),
      make("text", { transform: `translate(12 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }, "it was so, per cent"),
    );
  }

  function reliabilityParts(answers) {
    const bins = reliability(answers);
    const outside = bins.filter(bin => bin.came < bin.low || bin.came > bin.high).length;
    const percent = value => `${Math.round(100 * value)} %`;
    const found = parts(answers);
    const line = (name, value) => [name, two(value)];
    return [
      make("h3", {}, "When you say 70 %"),
      make("figure", {}, diagram(bins),
        make("figcaption", {}, "Every option of every answer is a forecast; a dot stands for a fifth of the scale. On the " +
          "diagonal what you say comes true as often as you say. The bars hold a dot in at least 95 of 100 readers " +
          "whose beliefs are right: that is the noise of so few answers. " +
          `Outside its bar: ${outside} of ${bins.length}.`)),
      table("The diagram in numbers", ["You said", "n", "It was so", "Noise"], bins.map(bin =>
        [percent(bin.stated), bin.n, percent(bin.came), `${percent(bin.low)} to ${percent(bin.high)}`])),
      table("The parts of your Brier score", ["Part", "Mean"], [
        line("Reliability: 70 % that is not 70 %", found.reliability),
        line("Minus resolution: what you tell apart", -found.resolution),
        line("Uncertainty: who only counts options", found.uncertainty),
        line("Spread within bins, not in the diagram", found.within),
        line("Your Brier score, the sum", found.brier),
      ]),
    ];
  }

  function save(name, type, text) {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function results(place) {
    const kept = load();
    const answers = Object.values(kept);
    const n = answers.length;
    const count = make("p", {}, n === 0 ? "No answers yet." : `${n} ${n === 1 ? "answer" : "answers"} in this browser.`);
    if (n === 0) {
      place.replaceChildren(count);
      return;
    }
    const found = summary(answers);
    const erase = button("Erase my answers", () => {
      if (!confirm(`Erase your ${n} answers from this browser?`)) return;
      keep({});
      location.reload();
    });
    place.replaceChildren(
      count,
      scoreTable("Mean scores. Low is good.", [
        ["Yours", found.yours],
        ["All on your favourites", found.favourite],
        ["Equal shares", found.equal],
      ]),
      ...(n < ENOUGH
        ? [make("p", {}, `Your reliability diagram comes after ${ENOUGH} answers: ${ENOUGH - n} to go.`)]
        : reliabilityParts(answers)),
      make("p", {},
        button("Save as JSON", () => save("quiz.json", "application/json", asJSON(load()))), " ",
        button("Save as CSV", () => save("quiz.csv", "text/csv", asCSV(load()))), " ", erase),
    );
  }

  function start() {
    document.querySelectorAll(".quiz").forEach(ask);
    const places = [...document.querySelectorAll(".quiz-results")];
    places.forEach(results);
    document.addEventListener("gence-quiz", () => places.forEach(results));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();

  return { scores, favourite, share, rebalance, band, reliability, parts, summary, asJSON, asCSV };
})();
