// Tables, figures and formulas that are wider than the text: each scrolls in a frame of its own, the frame has what a
// keyboard and a screen reader need, and a wide table may use the free margin first.
(() => {
  "use strict";

  const TABLE = "article .pst-scrollable-table-container";
  const KINDS = [
    // Where the frames are, what they hold, their role, and whether a line above says that there is more.
    { at: TABLE, kind: "Table", role: "region", more: "More columns: scroll the table sideways \u2192" },
    { at: "article .figure-frame", kind: "Figure", role: "region", more: "Scroll the figure sideways \u2192" },
    // A formula on a line of its own scrolls from the first pixel; one in the text is a pixel wider than its box by rounding.
    { at: "article div.math mjx-container", kind: "Formula", role: "group", spare: 0 },
    { at: "article span.math", kind: "Formula", role: "group" },
  ];

  // Tables that the theme does not wrap, for example those written as HTML, get the same box.
  const wrap = () => {
    for (const table of document.querySelectorAll("article table")) {
      if (table.closest(".pst-scrollable-table-container, .gx")) continue;
      const box = document.createElement("div");
      box.className = "pst-scrollable-table-container";
      table.replaceWith(box);
      box.append(table);
    }
  };

  const nameOf = (box) => {
    const table = box.querySelector("table");
    if (!table) return box.querySelector("img")?.alt ?? "";
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    return table.caption?.textContent.trim() || heads.filter(Boolean).join(", ");
  };

  const widen = (free) => {
    for (const box of document.querySelectorAll(TABLE)) {
      box.classList.remove("wraps");
      if (free && box.scrollWidth > box.clientWidth + 1) box.classList.add("wraps");
    }
  };

  // Tables with the same heads are told apart by a number.
  const unique = (label) => {
    const taken = new Set([...document.querySelectorAll("[aria-label]")].map((box) => box.getAttribute("aria-label")));
    let name = label;
    for (let n = 2; taken.has(name); n++) name = `${label} (${n})`;
    return name;
  };

  // A formula as wide as the page is cut there, be it by a pixel; in a line with room a pixel is a rounding.
  const fills = (box) => box.offsetWidth > 0.8 * document.querySelector("article").clientWidth;

  // What scrolls can be reached by the keyboard and has a name; what does not is no stop on the way.
  const mark = (box, { kind, role, more, spare = 1 }) => {
    const excess = box.scrollWidth - box.clientWidth;
    const scrolls = excess > spare || (excess > 0 && fills(box));
    if (scrolls) box.tabIndex = 0; // the theme sets this, too, at times of its own
    if (scrolls === (box.getAttribute("role") === role)) return;
    if (!scrolls) {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      if (box.previousElementSibling?.matches("p.scroll-hint")) box.previousElementSibling.remove();
      return;
    }
    const name = nameOf(box);
    box.setAttribute("role", role);
    const label = `${kind}, scrolls sideways${name ? `: ${name}` : ""}`;
    box.setAttribute("aria-label", role === "region" ? unique(label) : label);
    if (!more) return;
    const hint = document.createElement("p");
    hint.className = "scroll-hint";
    hint.setAttribute("aria-hidden", "true");
    hint.textContent = more;
    box.before(hint);
  };

  const measure = () => {
    const article = document.querySelector("article");
    const content = document.querySelector(".bd-content");
    const sidebar = document.querySelector(".bd-sidebar-secondary");
    if (!article || !content) return;
    const beside = sidebar && getComputedStyle(sidebar).position !== "fixed" && sidebar.offsetWidth > 0;
    const free = beside ? content.getBoundingClientRect().right - article.getBoundingClientRect().right : 0;
    article.style.setProperty("--free-margin", `${Math.max(0, Math.floor(free))}px`);
    widen(free);
    for (const kind of KINDS) {
      for (const box of document.querySelectorAll(kind.at)) {
        if (box.offsetWidth > 0) mark(box, kind); // what lies in a closed fold is measured when it opens
      }
    }
  };

  // Once for all that changed within a frame of the screen.
  let due = 0;
  const measureSoon = () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(measure);
  };

  // The list of contents stands in the margin that a wide table uses: it hides while such a table is in view.
  const makeWay = () => {
    const sidebar = document.querySelector(".bd-sidebar-secondary");
    if (!sidebar) return;
    const near = new Set();
    const cover = () => {
      const edge = sidebar.getBoundingClientRect().left;
      sidebar.classList.toggle("covered", [...near].some((box) => box.getBoundingClientRect().right > edge));
    };
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) near[isIntersecting ? "add" : "delete"](target);
      cover();
    });
    for (const box of document.querySelectorAll(TABLE)) watch.observe(box);
    addEventListener("resize", cover);
  };

  const start = () => {
    wrap();
    measure();
    makeWay();
    addEventListener("resize", measureSoon);
    addEventListener("load", () => window.MathJax?.startup?.promise?.then(measure));
    // A table or its box also changes when formulas are set, when a fold opens, when the theme moves its sidebars.
    const sizes = new ResizeObserver(measureSoon);
    for (const box of document.querySelectorAll(`${TABLE}, article .figure-frame`)) {
      for (const part of [box, box.firstElementChild]) sizes.observe(part);
    }
    document.addEventListener("toggle", measureSoon, true);
  };

  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
