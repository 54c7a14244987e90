/* The search of the loss lab: the smallest belief in round numbers for which honesty is not the cheapest answer.
   It is gence/course/small.py again, in the same order and with the same tolerances; the tests compare the two on a
   zoo of losses. A plain script without imports; everything is in GenceLossSearch.
   A point is {counts, of}: its probabilities are counts / of, whole numbers, so that it is the same on every machine. */
(function (root) {
  "use strict";

  const FINE = 60; // answers tried: all small denominators divide it
  const DENOMINATORS = [2, 3, 4, 5, 10]; // of the beliefs
  const CHEAPER = 1e-9; // on the grid
  const CLOSE = 1e-12; // on the slope, and for two answers that cost the same

  const floats = ({ counts, of }) => counts.map((n) => n / of);
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  function reduced({ counts, of }) {
    const common = counts.reduce(gcd, of);
    return { counts: counts.map((n) => n / common), of: of / common };
  }
  const name = (point) => {
    const { counts, of } = reduced(point);
    return `${counts.join(",")}/${of}`;
  };

  // All distributions with this denominator and no zero, the evenest first.
  function lattice(K, of) {
    const found = [];
    (function fill(counts, left) {
      if (counts.length === K - 1) return found.push({ counts: [...counts, left], of });
      for (let n = 1; n <= left - (K - counts.length - 1); n++) fill([...counts, n], left - n);
    })([], of);
    const top = ({ counts }) => Math.max(...counts);
    return found.sort((a, b) => top(a) - top(b)); // stable: those that are as even stay in the order of their counts
  }

  function beliefs(K) {
    const all = DENOMINATORS.filter((of) => of >= K).flatMap((of) => lattice(K, of));
    const names = all.map(name);
    return all.filter((_, i) => names.indexOf(names[i]) === i);
  }

  // What all answers cost with each label, and where the beliefs lie among the answers: once for each K.
  const grids = {};
  function grid(K) {
    if (!grids[K]) {
      const answers = lattice(K, FINE);
      const place = new Map(answers.map((p, i) => [name(p), i]));
      const asked = beliefs(K);
      grids[K] = { answers, points: answers.map(floats), asked, plain: asked.map((q) => place.get(name(q))) };
    }
    return grids[K];
  }

  // Plain loops: all beliefs times all answers pass here, and a search should be felt as at once.
  function mean(q, costs) {
    let total = 0;
    for (let k = 0; k < q.length; k++) total += q[k] * costs[k];
    return total;
  }

  // The first of some answers whose risk is the least of theirs.
  function cheapestOf(some, risks) {
    let least = Infinity;
    for (const i of some) if (risks[i] < least) least = risks[i];
    return some.find((i) => risks[i] <= least + CLOSE);
  }

  const tableOf = (loss, K) => grid(K).points.map((p) => p.map((_, y) => loss(p, y)));
  function risksOf(table, q) {
    const risks = new Float64Array(table.length);
    for (let i = 0; i < table.length; i++) risks[i] = mean(q, table[i]);
    return risks;
  }

  /* What the search says of a loss(p, y) of K classes:
       {verdict: "no number", answer, label, value}       the loss is not finite there
       {verdict: "refuted", belief, answer, costs, honest, cheapest}
       {verdict: "tied", belief, answer, honest}          no answer is cheaper, and another one is as cheap
       {verdict: "open"}                                  neither, and nothing is proved
     each with the numbers of beliefs and answers tried. */
  function search(loss, K) {
    const { answers, asked, plain } = grid(K);
    const tried = { beliefs: asked.length, answers: answers.length };
    const table = tableOf(loss, K);
    for (let i = 0; i < table.length; i++) {
      const label = table[i].findIndex((x) => !Number.isFinite(x));
      if (label >= 0) return { verdict: "no number", answer: answers[i], label, value: table[i][label], ...tried };
    }
    const every = answers.map((_, i) => i);
    const order = [...plain, ...every];
    let tie = null;
    for (const [n, belief] of asked.entries()) {
      const q = floats(belief);
      const risks = risksOf(table, q);
      const honest = risks[plain[n]];
      const scale = Math.max(1, Math.abs(honest));
      for (const some of [plain, every]) { // round numbers first
        const at = cheapestOf(some, risks);
        if (risks[at] < honest - CHEAPER * scale)
          return { verdict: "refuted", belief, answer: answers[at], costs: risks[at], honest, cheapest: answers[cheapestOf(every, risks)], ...tried };
      }
      const near = closeBy(loss, belief, honest);
      if (near) return { verdict: "refuted", belief, ...near, honest, cheapest: near.answer, ...tried };
      const twin = tie ? undefined : order.find((i) => i !== plain[n] && risks[i] <= honest + CLOSE * scale);
      if (twin !== undefined) tie = { verdict: "tied", belief, answer: answers[twin], honest, ...tried };
    }
    return tie ?? { verdict: "open", ...tried };
  }

  // A small distortion hides between the points of a grid: follow the slope of the risk at the belief.
  function closeBy(loss, belief, honest) {
    const PARTS = 10_000;
    const q = floats(belief);
    for (let i = 0; i < q.length; i++) {
      for (let j = i + 1; j < q.length; j++) {
        const moved = (t) => ({
          counts: belief.counts.map((n, k) => n * PARTS + (k === i ? t : k === j ? -t : 0) * belief.of),
          of: belief.of * PARTS,
        });
        const risk = (t) => {
          const p = floats(moved(t));
          return mean(q, p.map((_, y) => loss(p, y)));
        };
        let t = risk(1) < risk(-1) ? 1 : -1;
        if (!(risk(t) < honest - CLOSE * Math.max(1, Math.abs(honest)))) continue;
        while (Math.min(...moved(2 * t).counts) > 0 && risk(2 * t) < risk(t)) t *= 2;
        return { answer: moved(t), costs: risk(t) };
      }
    }
    return null;
  }

  root.GenceLossSearch = { search, grid, floats, reduced, tableOf, risksOf };
})(globalThis);
