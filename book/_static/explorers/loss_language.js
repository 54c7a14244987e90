/* The language of the loss lab: a formula in p and y as a function, or an error that says where, why and what to do.
   A plain script without imports. The parser is written by hand and nothing is ever handed to `eval`: a formula comes
   with a link from anybody. Everything is in GenceLossLanguage. */
(function (root) {
  "use strict";

  const LONGEST = 400; // characters; also keeps the parser's recursion shallow
  const DEEPEST = 2; // sums in sums: each multiplies the work by K
  const ALLOWED = "p[y], p[k], y, k, K, numbers, + - * / ^, == != < <= > >=, log, exp, sqrt, abs, min, max, sum";

  class LossError extends Error {
    constructor(message, from, to) {
      super(message);
      this.from = from;
      this.to = Math.max(to, from + 1);
    }
  }

  // ---- words ------------------------------------------------------------------------------------------------------

  const SLIPS = {
    "**": "A power is written ^, as in p[y]^2.",
    "=": "To compare, write two signs: y == k.",
    "&": "There is no “and”: multiply two comparisons.",
    "|": "The size of a number is abs(...).",
    "{": "Brackets are round; [ ] only follow p.",
    "}": "Brackets are round; [ ] only follow p.",
    ",": "A decimal is written with a point, and a comma only parts the arguments of max and min.",
    "−": "This is the long minus of a text: type - instead.",
    "–": "This is the long dash of a text: type - instead.",
    "×": "Times is written *.",
    "·": "Times is written *.",
    "²": "A square is written ^2.",
    "√": "A root is written sqrt(...).",
    "Σ": "A sum over the classes is written sum(...), with k inside.",
    "∑": "A sum over the classes is written sum(...), with k inside.",
  };
  const OTHER_NAMES = {
    ln: "The natural logarithm is log.",
    log2: "Write log(...) / log(2).",
    log10: "Write log(...) / log(10).",
    pow: "A power is written ^, as in p[y]^2.",
    mean: "Write sum(...) / K.",
    q: "A loss sees the answer p and the label y. The belief q is what the lab looks for.",
    p_y: "The probability of the label is p[y].",
    py: "The probability of the label is p[y].",
    p_k: "Write p[k], inside sum(...).",
    i: "Inside sum(...) the class is called k.",
    j: "Inside sum(...) the class is called k.",
    Y: "The label is y.",
    P: "The answer is p.",
    n: "The number of classes is K.",
  };
  const TOKEN = /\s+|(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_][A-Za-z_0-9]*)|(\*\*|==|!=|<=|>=|[-+*/^()[\],<>])/y;

  function words(text) {
    if (text.length > LONGEST) throw new LossError(`A loss has at most ${LONGEST} characters; this one has ${text.length}.`, LONGEST, text.length);
    const found = [];
    let at = 0;
    while (at < text.length) {
      TOKEN.lastIndex = at;
      const match = TOKEN.exec(text);
      if (!match) {
        const sign = String.fromCodePoint(text.codePointAt(at));
        throw new LossError(`“${sign}” has no meaning here. ${SLIPS[sign] ?? `Allowed are ${ALLOWED}.`}`, at, at + sign.length);
      }
      const [all, number, name, sign] = match;
      if (sign === "**") throw new LossError(`“**” has no meaning here. ${SLIPS["**"]}`, at, at + 2);
      const kind = number ? "number" : name ? "name" : sign;
      if (kind) found.push({ kind, text: all, from: at, to: at + all.length });
      at += all.length;
    }
    found.push({ kind: "end", text: "", from: text.length, to: text.length });
    return found;
  }

  // ---- meanings: each is a function of (p, y, k) ------------------------------------------------------------------

  const OPERATIONS = {
    "+": (a, b) => (p, y, k) => a(p, y, k) + b(p, y, k),
    "-": (a, b) => (p, y, k) => a(p, y, k) - b(p, y, k),
    "*": (a, b) => (p, y, k) => a(p, y, k) * b(p, y, k),
    "/": (a, b) => (p, y, k) => a(p, y, k) / b(p, y, k),
    "^": (a, b) => (p, y, k) => a(p, y, k) ** b(p, y, k),
    "==": (a, b) => (p, y, k) => Number(a(p, y, k) === b(p, y, k)),
    "!=": (a, b) => (p, y, k) => Number(a(p, y, k) !== b(p, y, k)),
    "<": (a, b) => (p, y, k) => Number(a(p, y, k) < b(p, y, k)),
    "<=": (a, b) => (p, y, k) => Number(a(p, y, k) <= b(p, y, k)),
    ">": (a, b) => (p, y, k) => Number(a(p, y, k) > b(p, y, k)),
    ">=": (a, b) => (p, y, k) => Number(a(p, y, k) >= b(p, y, k)),
  };
  const COMPARISONS = ["==", "!=", "<", "<=", ">", ">="];
  const OF_ONE = { log: Math.log, exp: Math.exp, sqrt: Math.sqrt, abs: Math.abs };
  // Over the classes with one argument; max and min also of several.
  const FOLDS = { sum: (a, b) => a + b, max: Math.max, min: Math.min };
  const knownOf = (table, name) => Object.hasOwn(table, name);

  // The known name that is a slip of one letter away, if there is one.
  function nearest(name) {
    const near = (a, b) => {
      if (Math.abs(a.length - b.length) > 1) return false;
      let [i, end] = [0, 0];
      while (i < Math.min(a.length, b.length) && a[i] === b[i]) i++;
      while (end < Math.min(a.length, b.length) - i && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
      return Math.max(a.length, b.length) - i - end <= (a.length === b.length && [...a].sort().join() === [...b].sort().join() ? 2 : 1);
    };
    return [...Object.keys(OF_ONE), ...Object.keys(FOLDS)].find((known) => near(name.toLowerCase(), known));
  }

  // ---- grammar ----------------------------------------------------------------------------------------------------

  function parse(text, K) {
    const all = words(text);
    let place = 0;
    let inFold = 0;
    const now = () => all[place];
    const is = (...kinds) => kinds.includes(now().kind);
    const refuse = (message, token = now()) => {
      throw new LossError(message, token.from, token.to);
    };

    function need(kind, message) {
      if (!is(kind)) refuse(message);
      return all[place++];
    }

    function comparison() {
      const left = sums();
      if (!is(...COMPARISONS)) return left;
      const sign = all[place++];
      const right = sums();
      if (is(...COMPARISONS)) refuse("Compare two things at a time: put one comparison in ( ).");
      return OPERATIONS[sign.kind](left, right);
    }

    function chain(signs, part) {
      let left = part();
      while (is(...signs)) {
        const sign = all[place++];
        left = OPERATIONS[sign.kind](left, part());
      }
      return left;
    }
    const sums = () => chain(["+", "-"], products);
    const products = () => chain(["*", "/"], signed);

    function signed() {
      if (!is("+", "-")) return power();
      const minus = all[place++].kind === "-";
      const value = signed();
      return minus ? (p, y, k) => -value(p, y, k) : value;
    }

    function power() {
      const base = atom();
      if (!is("^")) return base;
      place++;
      return OPERATIONS["^"](base, signed()); // from the right, and before a minus on the left: -a^b is -(a^b)
    }

    function atom() {
      if (is("number")) {
        const value = Number(all[place++].text);
        return () => value;
      }
      if (is("(")) {
        const open = all[place++];
        const value = comparison();
        if (!is(")")) unclosed(open);
        place++;
        return value;
      }
      if (is("name")) return named();
      if (is("end")) return refuse(place === 0 ? "There is no loss yet. Type one, for example -log(p[y])." : `Something is missing after “${all[place - 1].text}”: a number, p[y] or a bracket.`);
      return refuse(`Here a number, p[y] or a bracket is due, not “${now().text}”.${is(",") ? ` ${SLIPS[","]}` : ""}`);
    }

    function unclosed(open) {
      if (is("end")) refuse("This bracket is never closed: add ).", open);
      unexpected();
    }

    function unexpected() {
      const { kind, text: word } = now();
      if (kind === ")") refuse("This bracket was never opened: take it away, or add ( before.");
      if (kind === ",") refuse(`A comma is not due here. ${SLIPS[","]}`);
      if (kind === "[") refuse("[ ] only follow p, as in p[y].");
      if (["name", "number", "("].includes(kind)) refuse(`A sign is missing before “${word}”. Times is written *, as in 2 * p[y].`);
      refuse(`“${word}” is not due here.`);
    }

    function named() {
      const token = all[place++];
      const name = token.text;
      if (name === "p") return probability(token);
      if (name === "K") return () => K;
      if (name === "y") return (p, y) => y;
      if (name === "k") {
        if (!inFold) refuse("k runs over the classes inside sum(...), max(...) or min(...), and has no value outside. Perhaps y?", token);
        return (p, y, k) => k;
      }
      if (knownOf(OF_ONE, name) || knownOf(FOLDS, name)) return call(token);
      const fix = knownOf(OTHER_NAMES, name) ? OTHER_NAMES[name] : nearest(name) ? `Perhaps ${nearest(name)}?` : "";
      return refuse(`“${name}” is not known here. ${fix}${fix ? " " : ""}Allowed are ${ALLOWED}.`, token);
    }

    function probability(token) {
      if (!is("[")) refuse("p is a list of K probabilities. Take one: p[y] for the label's, p[k] inside sum(...), or p[0].", token);
      place++;
      const index = all[place++];
      const classes = Array.from({ length: K }, (_, c) => c);
      if (index.kind === "number" && !classes.includes(Number(index.text)))
        refuse(`There is no class ${index.text} when K = ${K}: the classes are ${classes.join(", ")}.`, index);
      if (index.text === "k" && !inFold) refuse("k runs over the classes inside sum(...), max(...) or min(...). Outside, write p[y].", index);
      if (index.kind !== "number" && !["y", "k"].includes(index.text))
        refuse(`In the brackets of p stands a class: y, k or one of ${classes.join(", ")}.`, index);
      need("]", "This bracket of p is not closed: add ].");
      if (index.text === "y") return (p, y) => p[y];
      if (index.text === "k") return (p, y, k) => p[k];
      const c = Number(index.text);
      return (p) => p[c];
    }

    function call(token) {
      const name = token.text;
      const open = need("(", `${name} needs its argument in round brackets, as in ${name}(${knownOf(FOLDS, name) ? "p[k]" : "p[y]"}).`);
      if (is(")")) refuse(`${name} needs an argument, as in ${name}(${knownOf(FOLDS, name) ? "p[k]" : "p[y]"}).`);
      // Whether k is bound is only known when the arguments are counted: one is over the classes, several are not.
      const alone = knownOf(FOLDS, name) && (name === "sum" || !severalFollow());
      if (alone && inFold === DEEPEST) refuse(`A sum, max or min over the classes holds at most one other: ${DEEPEST} deep, not ${DEEPEST + 1}.`, token);
      inFold += alone;
      const values = [comparison()];
      while (is(",")) {
        place++;
        values.push(comparison());
      }
      inFold -= alone;
      if (!is(")")) unclosed(open);
      place++;
      if (values.length > 1 && !["max", "min"].includes(name)) refuse(`${name} takes one argument, not ${values.length}. ${SLIPS[","]}`, token);
      if (knownOf(OF_ONE, name)) {
        const [f, value] = [OF_ONE[name], values[0]];
        return (p, y, k) => f(value(p, y, k));
      }
      const fold = FOLDS[name];
      if (!alone) return (p, y, k) => values.map((value) => value(p, y, k)).reduce((a, b) => fold(a, b));
      return (p, y) => {
        let total = values[0](p, y, 0);
        for (let k = 1; k < K; k++) total = fold(total, values[0](p, y, k));
        return total;
      };
    }

    // Whether a comma stands at this depth before the bracket closes.
    function severalFollow() {
      let depth = 0;
      for (const { kind } of all.slice(place)) {
        if (kind === "(" || kind === "[") depth++;
        if (kind === ")" || kind === "]") depth--;
        if (depth < 0) return false;
        if (kind === "," && depth === 0) return true;
      }
      return false;
    }

    const value = comparison();
    if (!is("end")) unexpected();
    return (p, y) => value(p, y, NaN);
  }

  root.GenceLossLanguage = { parse, LossError, ALLOWED };
})(globalThis);
