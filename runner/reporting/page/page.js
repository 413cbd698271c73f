"use strict";
// Tables are plain HTML; this makes their headings buttons that sort, and gives them a filter.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  const text = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const words = text.map((cells) => cells.join(" ").toLowerCase());
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim().toLowerCase());
  // "batch_norm" is not meant to find "no_batch_norm": a word is looked for from its beginning; "seed=3" is a cell.
  const finder = (word) => {
    const [key, value] = word.split("=");
    const column = value === undefined ? -1 : headings.indexOf(key);
    if (column >= 0) return (index) => text[index][column].toLowerCase() === value;
    const pattern = new RegExp(`(^|[^\\w.])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`);
    return (index) => pattern.test(words[index]);
  };
  const place = new Map(rows.map((row, index) => [row, index]));
  // "88.20 ± 0.54", "+0.33 [+0.01, +0.66] pp", "<0.001", "12/20": a column of numbers is sorted by the first of each.
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
          if (empty(x) || empty(y)) return empty(x) - empty(y); // what has no value stands last, either way
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
// A folded part would be missing on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
