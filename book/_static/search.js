// The search page: pages that say most about the words come first (book/_ext/book_search.py puts them in this order into
// the index), letters of formulas are found by name or sign, and excerpts show formulas as plain text.
(() => {
  "use strict";

  const LETTERS = {
    alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", varepsilon: "ε", zeta: "ζ", eta: "η", theta: "θ",
    kappa: "κ", lambda: "λ", mu: "μ", nu: "ν", xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", varphi: "φ",
    chi: "χ", psi: "ψ", omega: "ω", Delta: "Δ", Sigma: "Σ", Phi: "Φ", Omega: "Ω", simplex: "Δ", ell: "ℓ",
  };
  const SIGNS = {
    le: "≤", leq: "≤", ge: "≥", geq: "≥", ne: "≠", neq: "≠", approx: "≈", sim: "~", in: "∈", infty: "∞", to: "→",
    rightarrow: "→", mapsto: "↦", cdot: "·", times: "×", pm: "±", mid: "|", sum: "∑", prod: "∏", partial: "∂",
    nabla: "∇", propto: "∝", equiv: "≡", ll: "≪", gg: "≫", dots: "…", ldots: "…", cdots: "…", lVert: "‖", rVert: "‖",
    left: "", right: "", big: "", Big: "", quad: " ", qquad: " ", log: "log", exp: "exp", max: "max", min: "min",
    arg: "arg", KL: "KL", E: "E",
  };
  const NAMES = Object.fromEntries(Object.entries(LETTERS).reverse().map(([name, letter]) => [letter, name]));
  // The pages say it short.
  const SHORT = [
    [/\badaptive temperature scaling\b/gi, "ATS"],
    [/\bout[- ]of[- ]distribution\b/gi, "OOD"],
    [/\bgenerative cross[- ]entropy\b/gi, "GenCE"],
    [/[α-ωΑ-Ω]/gu, (letter) => NAMES[letter] ?? letter],
  ];
  const TYPEFACE = /\\(?:math\w+|operatorname\*?|text\w*|boldsymbol|hat|tilde|bar)\s*\{([^{}]*)\}/g;
  const LONGEST = 40;

  // A formula as a line of text; one that does not fit into a line, as dots.
  const readable = (latex) => {
    const text = latex
      .replace(/^\s*\\[([]|\\[)\]]\s*$/g, "")
      .replace(TYPEFACE, "$1")
      .replace(TYPEFACE, "$1")
      .replace(/\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}/g, "$1/$2")
      .replace(/\\([a-zA-Z]+)/g, (all, name) => LETTERS[name] ?? SIGNS[name] ?? all)
      .replace(/\\[,;:! |]/g, " ")
      .replace(/[{}]/g, "")
      .trim();
    return text.includes("\\") || text.length > LONGEST ? "…" : text;
  };

  const htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article.bd-article");
    if (!article) return "";
    for (const part of article.querySelectorAll(".headerlink, script, style, p.freshness, summary")) part.remove();
    for (const formula of article.querySelectorAll(".math")) formula.replaceWith(readable(formula.textContent));
    const place = anchor ? page.getElementById(anchor.slice(1)) : null;
    return (place ?? article).textContent.replace(/\s+/g, " ");
  };

  const asList = (files) => (files === undefined ? [] : [files].flat());

  // How well each page answers one word.
  const answers = (word, { terms, titleterms, titles: names, docnames }) => {
    const found = new Map();
    const add = (file, score) => found.set(file, (found.get(file) ?? 0) + score);
    const alike = (known) => (word.length > 2 ? Object.keys(known).filter((term) => term.includes(word)) : []);
    const texts = Object.hasOwn(terms, word) ? [word] : alike(terms);
    const titles = Object.hasOwn(titleterms, word) ? [word] : alike(titleterms);
    for (const term of texts) {
      const files = asList(terms[term]);
      files.forEach((file, rank) => add(file, (14 * (1 - rank / files.length)) / texts.length));
    }
    // A word of some heading; of the title of the page, or of its address.
    for (const term of titles) for (const file of asList(titleterms[term])) add(file, 4 / titles.length);
    const stemmer = new Stemmer();
    for (const file of found.keys()) {
      const called = splitQuery(`${names[file]} ${docnames[file].split("/").pop().replaceAll("_", " ")}`.toLowerCase());
      if (called.some((name) => stemmer.stemWord(name) === word)) add(file, 12);
    }
    return found;
  };

  // The pages that have all words; a word that no page has is left out.
  const performTermsSearch = (words) => {
    const { docnames, titles, filenames } = Search._index;
    const found = [...words].map((word) => answers(word, Search._index)).filter((pages) => pages.size);
    if (!found.length) return [];
    return [...found[0].keys()]
      .filter((file) => found.every((pages) => pages.has(file)))
      .map((file) => {
        const score = found.reduce((sum, pages) => sum + pages.get(file), 0) / found.length;
        return [docnames[file], titles[file], "", null, score, filenames[file]];
      });
  };

  // Before Sphinx starts the search of this page, on the same event.
  document.addEventListener("DOMContentLoaded", () => {
    Object.assign(Search, { htmlToText, performTermsSearch });
    const plain = splitQuery;
    splitQuery = (query) => plain(SHORT.reduce((words, [long, short]) => words.replace(long, short), query));
  });
})();
