// Tables: the free margin that a wide one may use, and what a keyboard and a screen reader need where it still scrolls.
(() => {
  "use strict";

  const boxes = () => document.querySelectorAll("article .pst-scrollable-table-container");

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

  const nameOf = (table) =>
    table.caption?.textContent.trim() ||
    [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim()).filter(Boolean).join(", ");

  const measure = () => {
    const article = document.querySelector("article");
    const content = document.querySelector(".bd-content");
    const sidebar = document.querySelector(".bd-sidebar-secondary");
    if (!article || !content) return;
    const beside = sidebar && getComputedStyle(sidebar).position !== "fixed" && sidebar.offsetWidth > 0;
    const free = beside ? content.getBoundingClientRect().right - article.getBoundingClientRect().right : 0;
    article.style.setProperty("--free-margin", `${Math.max(0, Math.floor(free))}px`);
    for (const box of boxes()) {
      if (box.offsetWidth === 0) continue; // inside a closed fold: measured when it opens
      box.classList.remove("wraps");
      if (free && box.scrollWidth > box.clientWidth + 1) box.classList.add("wraps");
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      if (scrolls) box.tabIndex = 0; // the theme sets this, too, at times of its own
      if (scrolls === (box.getAttribute("role") === "region")) continue;
      if (scrolls) {
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", `Table, scrolls sideways: ${nameOf(box.querySelector("table"))}`);
        const hint = document.createElement("p");
        hint.className = "scroll-hint";
        hint.setAttribute("aria-hidden", "true");
        hint.textContent = "More columns: scroll the table sideways \u2192";
        box.before(hint);
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
        if (box.previousElementSibling?.matches("p.scroll-hint")) box.previousElementSibling.remove();
      }
    }
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
    for (const box of boxes()) watch.observe(box);
    addEventListener("resize", cover);
  };

  const start = () => {
    wrap();
    measure();
    makeWay();
    addEventListener("resize", measure);
    // A table or its box also changes when formulas are set, when a fold opens, when the theme moves its sidebars.
    const sizes = new ResizeObserver(measure);
    for (const box of boxes()) for (const part of [box, box.querySelector("table")]) sizes.observe(part);
  };

  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
