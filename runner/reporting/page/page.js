"use strict";
// The tables are plain HTML. This script turns their headings into buttons that sort, and adds a filter.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  const text = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const words = text.map((cells) => cells.join(" ").toLowerCase());
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim().toLowerCase());
  // A word matches the beginning of a word, so that "batch_norm" does not find "no_batch_norm". "seed=3" matches a cell.
  const finder = (word) => {
    const [key, value] = word.split("=");
    const column = value === undefined ? -1 : headings.indexOf(key);
    if (column >= 0) return (index) => text[index][column].toLowerCase() === value;
    const pattern = new RegExp(`(^|[^\\w.])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`);
    return (index) => pattern.test(words[index]);
  };
  const place = new Map(rows.map((row, index) => [row, index]));
  // "88.20 ± 0.54", "+0.33 [+0.01, +0.66] pp", "<0.001", "12/20": these cells are sorted by their first number.
  const number = (cell) => {
    const found = /^[<+]?\s*(-?\d*\.?\d+(?:e[-+]?\d+)?)/i.exec(cell);
    return found ? Number(found[1]) : NaN;
  };
  const empty = (cell) => cell === "" || cell === "–" || cell === "nan";

  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    const numeric = text.every((cells) => empty(cells[column]) || !Number.isNaN(number(cells[column])));
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")];
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const ordered = [...rows];
      if (next !== "none") {
        ordered.sort((a, b) => {
          const [x, y] = [text[place.get(a)][column], text[place.get(b)][column]];
          if (empty(x) || empty(y)) return empty(x) - empty(y); // cells without a value come last in both directions
          return sign * (numeric ? number(x) - number(y) : x.localeCompare(y, "en", { numeric: true }));
        });
      }
      body.append(...ordered);
    });
  });

  const tools = document.querySelector(`.tools[data-for="${table.id}"]`);
  const count = tools.querySelector(".count");
  tools.hidden = false;
  tools.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase().split(/\s+/).filter(Boolean).map(finder);
    let kept = 0;
    rows.forEach((row, index) => {
      const keep = wanted.every((found) => found(index));
      row.hidden = !keep;
      kept += keep;
    });
    count.textContent = wanted.length ? `${kept} of ${rows.length} rows` : "";
  });
}
// Open all folded parts before printing, or they would be missing on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
