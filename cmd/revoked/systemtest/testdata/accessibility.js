// Returns the accessibility faults of the page, as texts. The rules are those of WCAG 2.2 AA that a
// program can check. Each text begins with the number of its rule.
(() => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (e) => e.checkVisibility() && e.getClientRects().length > 0;
  const name = (e) => {
    const by = (e.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent || "").join(" ");
    return (by || e.getAttribute("aria-label") || [...(e.labels || [])].map((l) => l.textContent).join(" ") ||
      (e.matches("input, select, textarea") ? "" : e.textContent)).trim();
  };
  const say = (rule, e) => faults.push(rule + ": " + (e ? e.outerHTML.slice(0, 120) : ""));

  if (!document.documentElement.lang) say("3.1.1 no language");
  if (!document.title.trim()) say("2.4.2 no title");
  if (all("main").length !== 1) say("1.3.1 not one main");
  if (all("h1").length !== 1) say("1.3.1 not one h1");
  for (const e of document.body.children) {
    if (!e.matches("header, main, footer, nav, .skip, script")) say("1.3.1 content outside of landmarks", e);
  }
  const skip = document.querySelector("a[href^='#']");
  if (!skip || !document.getElementById(skip.hash.slice(1))) say("2.4.1 no way to skip to the content");

  let level = 0;
  for (const h of all("h1, h2, h3, h4")) {
    if (+h.tagName[1] > level + 1) say("1.3.1 a heading level is skipped", h);
    if (!h.textContent.trim()) say("2.4.6 empty heading", h);
    level = +h.tagName[1];
  }
  for (const e of all("input:not([type=hidden]), select, textarea, button, a[href], progress, [role=img], [role=region], nav")) {
    if (!name(e)) say("4.1.2 no name", e);
  }
  const ids = all("[id]").map((e) => e.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => say("4.1.2 id used twice " + id));
  for (const e of all("[aria-labelledby], label[for]")) {
    for (const id of (e.getAttribute("aria-labelledby") || e.htmlFor).split(" ")) {
      if (!document.getElementById(id)) say("1.3.1 names no element: " + id, e);
    }
  }
  for (const table of all("table")) {
    if (!table.querySelector("thead th[scope=col]")) say("1.3.1 table without headings", table);
  }
  for (const e of all("[tabindex]")) if (e.tabIndex > 0) say("2.4.3 order of focus", e);
  for (const e of all(".scroll")) if (e.scrollWidth > e.clientWidth && e.tabIndex !== 0) say("2.1.1 cannot be scrolled by keyboard", e);

  const numbers = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
  };
  for (const e of all("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!shown(e) || !(own || e.matches("input, select, textarea"))) continue;
    const style = getComputedStyle(e);
    const svg = e.closest("svg");
    const back = svg ? numbers(getComputedStyle(svg.querySelector(".region")).fill).slice(0, 3) : behind(e);
    const front = numbers(svg ? style.fill : style.color).slice(0, 3);
    const is = ratio(front, back);
    if (is < 4.5) say("1.4.3 contrast " + is.toFixed(2), e);
  }
  for (const e of all("input:not([type=hidden]), select, textarea, button")) {
    if (!shown(e)) continue;
    const line = ratio(numbers(getComputedStyle(e).borderTopColor).slice(0, 3), behind(e.parentElement));
    if (line < 3) say("1.4.11 contrast of the border " + line.toFixed(2), e);
    const box = e.getBoundingClientRect();
    if (e.type !== "checkbox" && (box.width < 24 || box.height < 24)) say("2.5.8 target is too small", e);
  }
  if (document.documentElement.scrollWidth > innerWidth) {
    say("1.4.10 wider than the window: " + document.documentElement.scrollWidth);
    for (const e of all("body *")) {
      if (!e.closest(".scroll, .skip, svg") && e.getBoundingClientRect().right > innerWidth + 1) say("1.4.10 too wide", e);
    }
  }
  return faults;
})()
