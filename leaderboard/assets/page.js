"use strict";
/* Every page: what needs a script appears, tables sort, can be walked with arrow keys and saved, texts copied.
   Text is only ever set as text: nothing here makes HTML. */

const all = (query, root = document) => [...root.querySelectorAll(query)];
const one = (query, root = document) => root.querySelector(query);

/* The address: #key=value&... holds the state of a page; any other hash is an anchor. */
const State = {
  read() {
    const hash = location.hash.slice(1);
    return new URLSearchParams(hash.includes("=") ? hash : "");
  },
  write(pairs) {
    const kept = Object.entries(pairs).filter(([, value]) => value !== "" && value != null);
    const text = new URLSearchParams(kept).toString();
    if (text !== State.read().toString()) {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    }
  },
  /* Set a select, where there is one, to a value if it has that; else to what the page opens with. */
  choose(select, value) {
    const options = [...(select?.options ?? [])];
    const chosen = options.find((option) => option.value === value) ?? options.find((option) => option.defaultSelected) ?? options[0];
    if (chosen) chosen.selected = true;
  },
};

/* Sorting: by data-v, as numbers unless the column says text; unknown values last, whichever way. */
const Sorting = {
  prepare(table) {
    for (const th of all("thead th[data-key]", table)) {
      const head = one(".head", th);
      const button = document.createElement("button");
      button.type = "button";
      if (head) {
        head.replaceWith(button);
        button.append(head);
      } else if (!one("a", th)) {
        const text = document.createElement("span");
        text.className = "head";
        for (const node of [...th.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)) text.append(node);
        button.append(text);
        th.prepend(button);
      } else {
        const text = document.createElement("span");
        text.className = "head";
        text.textContent = "↕";
        button.setAttribute("aria-label", `Sort by ${th.textContent.trim()}`);
        button.append(text);
        th.append(" ", button);
      }
      button.addEventListener("click", () => {
        const way = th.getAttribute("aria-sort");
        const first = Sorting.first(th);
        Sorting.sort(table, th, way === first ? (first === "ascending" ? "descending" : "ascending") : first);
        table.dispatchEvent(new CustomEvent("sorted"));
      });
    }
  },
  first(th) {
    return th.hasAttribute("data-text") || th.dataset.better === "down" ? "ascending" : "descending";
  },
  sort(table, th, way) {
    const place = [...th.parentNode.children].indexOf(th);
    const text = th.hasAttribute("data-text");
    const sign = way === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, at) => {
      const raw = row.cells[place].dataset.v ?? row.cells[place].textContent;
      const value = text ? raw : raw === "" ? NaN : Number(raw);
      return { row, at, value, blank: text ? raw === "" : Number.isNaN(value) };
    });
    rows.sort((a, b) => {
      if (a.blank !== b.blank) return a.blank ? 1 : -1;
      if (a.blank) return a.at - b.at;
      const order = text ? a.value.localeCompare(b.value, "en") : a.value - b.value;
      return sign * order || a.at - b.at;
    });
    body.append(...rows.map((item) => item.row));
    for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", way);
    table.dataset.sorted = th.dataset.key;
    Trimming.apply(table);
  },
};

/* Long tables: the first rows, in their order and as filtered; the rest on request. Laying out hundreds of rows
   takes the browser several times as long as sorting them. Without a script, and on paper, all are there. */
const Trimming = {
  most: 40,
  prepare(table) {
    const count = table.tBodies[0].rows.length;
    if (count <= Trimming.most) return;
    const note = document.createElement("p"), button = document.createElement("button");
    note.className = "rest";
    button.type = "button";
    button.addEventListener("click", () => {
      table.toggleAttribute("data-every");
      Trimming.apply(table);
    });
    note.append(button);
    table.closest(".scroll").after(note);
    Trimming.buttons.set(table, button);
    Trimming.apply(table);
  },
  buttons: new Map(),
  apply(table) {
    const button = Trimming.buttons.get(table);
    if (!button) return;
    const every = table.hasAttribute("data-every");
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    rows.forEach((row, i) => row.classList.toggle("beyond", !every && i >= Trimming.most));
    button.parentNode.hidden = rows.length <= Trimming.most;
    button.textContent = every ? `Show the first ${Trimming.most} rows` : `Show all ${rows.length} rows`;
    if (table.matches(".grid")) Walking.stop(table);
  },
  /* A row that is linked to is shown, wherever it stands. */
  reveal(row) {
    const table = row.closest("table");
    table.toggleAttribute("data-every", true);
    Trimming.apply(table);
    row.scrollIntoView();
  },
};

/* Wide tables (data-fit: how many columns always stay): those at the end that the screen would cut off go, and all
   are there on request, on paper and without a script. */
const Fitting = {
  prepare(table) {
    const scroll = table.closest(".scroll"), button = document.createElement("button"), note = document.createElement("p");
    const it = { table, scroll, button, note, style: document.createElement("style"), width: -1 };
    note.className = "rest";
    button.type = "button";
    button.addEventListener("click", () => {
      table.toggleAttribute("data-wide");
      Fitting.apply(it);
    });
    note.append(button);
    scroll.before(note);
    document.head.append(it.style);
    new ResizeObserver(() => {
      if (scroll.clientWidth !== it.width) Fitting.apply(it);
    }).observe(scroll);
    Fitting.apply(it);
  },
  apply(it) {
    const heads = [...it.table.tHead.rows[0].cells], gone = [], wide = it.table.hasAttribute("data-wide");
    it.style.textContent = "";
    it.width = it.scroll.clientWidth;
    for (let left = heads.length; !wide && left > Number(it.table.dataset.fit) && it.table.offsetWidth > it.width; left -= 1) {
      gone.unshift(left);
      it.style.textContent = `@media screen { ${gone.map((k) => `#${CSS.escape(it.table.id)} tr > :nth-child(${k})`).join(", ")} { display: none; } }`;
    }
    it.note.hidden = !wide && !gone.length;
    it.button.textContent = wide ? "Show only the columns that fit" : `Show all ${heads.length} columns (${gone.length} not on this screen)`;
  },
};

/* Grids: one stop for the tab key, then arrow keys. */
const Walking = {
  gone: (row) => row.hidden || row.matches(".beyond"),
  rows: (table) => [...table.tBodies[0].rows].filter((row) => !Walking.gone(row)),
  /* Keep exactly one stop, in a row that is shown. */
  stop(table) {
    const [kept, ...others] = all("td[tabindex='0']", table);
    for (const cell of others) cell.tabIndex = -1;
    if (kept && !Walking.gone(kept.parentNode)) return;
    if (kept) kept.tabIndex = -1;
    const first = Walking.rows(table)[0];
    if (first) one("td", first).tabIndex = 0;
  },
  prepare(table) {
    const cells = all("tbody td", table);
    if (!cells.length) return;
    for (const cell of cells) cell.tabIndex = -1;
    for (const link of all("tbody td a", table)) link.tabIndex = -1; // the cell is the stop: Enter follows its link
    Walking.stop(table);
    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td");
      if (cell === event.target && event.key === "Enter") one("a", cell)?.click();
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const step = steps[event.key];
      if (!cell || !step) return;
      const rows = Walking.rows(table);
      const row = rows[rows.indexOf(cell.parentNode) + step[0]];
      const next = row && row.cells[cell.cellIndex + step[1]];
      if (!next || next.tagName !== "TD") return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  },
};

/* Saving what is on the screen: visible rows and columns, as they are ordered now. */
const Saving = {
  seen(element) {
    return !element.hidden && getComputedStyle(element).display !== "none";
  },
  cell(cell) {
    const clone = cell.cloneNode(true);
    for (const node of all("svg, .chip, .way, .out, .dagger, .notes", clone)) node.remove();
    const human = one("small", clone);
    const beside = human ? human.textContent.trim() : "";
    if (human) human.remove();
    const text = clone.textContent.replace(/\s+/g, " ").trim();
    return beside ? `${text} (${beside})` : text;
  },
  rows(table) {
    const head = [...table.tHead.rows[0].cells];
    const shown = head.map((cell) => Saving.seen(cell));
    const bodies = [...table.tBodies].flatMap((body) => [...body.rows]).concat(table.tFoot ? [...table.tFoot.rows] : []);
    const rows = bodies.filter((row) => Saving.seen(row)).map((row) => [...row.cells]);
    return [head, ...rows].map((cells) => cells.filter((_, i) => shown[i]).map(Saving.cell));
  },
  csv(rows) {
    /* A cell that a spreadsheet would take for a formula is made text. */
    const number = /^[+-]?[\d.,]+( \[[^\]]*\])?( [▲▼])?( \([\d.,]+\))?$/;
    const safe = (text) => (/^[=+\-@＝＋－＠]/.test(text) && !number.test(text) ? `'${text}` : text);
    const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return rows.map((row) => row.map((text) => quoted(safe(text))).join(",")).join("\r\n") + "\r\n";
  },
  json([head, ...rows]) {
    return JSON.stringify(rows.map((row) => Object.fromEntries(head.map((name, i) => [name, row[i] ?? ""]))), null, 1) + "\n";
  },
  tex(rows) {
    const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "▲": "$\\blacktriangle$", "▼": "$\\blacktriangledown$", "≥": "$\\geq$" };
    const safe = (text) => text.replace(/[\\&%$#_{}~^−↑↓▲▼≥]/g, (sign) => signs[sign] ?? `\\${sign}`);
    const [head, ...body] = rows.map((row) => row.map(safe).join(" & ") + " \\\\");
    const columns = "l" + "r".repeat(Math.max(rows[0].length - 1, 0));
    return ["% needs \\usepackage{booktabs, amssymb}", `\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  },
  save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
  click(button) {
    const kind = button.dataset.save;
    if (kind === "bib") {
      const text = JSON.parse(document.getElementById(button.dataset.bib).textContent);
      Saving.save(`${button.dataset.name}.bib`, text, "text/x-bibtex");
      return;
    }
    const rows = Saving.rows(document.getElementById(button.dataset.table));
    const types = { csv: "text/csv", json: "application/json", tex: "text/x-tex" };
    Saving.save(`${button.dataset.name}.${kind}`, Saving[kind](rows), types[kind]);
  },
};

const Copying = {
  async copy(text, button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.dataset.words ??= button.textContent;
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = button.dataset.words; }, 1500);
  },
};

/* One strip of an interval, on an axis from start to stop; the same drawing as at build time. */
const Strips = {
  make(tag, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  },
  axis(intervals) {
    const ends = [0];
    for (const [mean, half] of intervals) ends.push(mean - (half ?? 0), mean + (half ?? 0));
    if (!ends.some((end) => end)) ends.push(-0.01, 0.01);
    const low = Math.min(...ends), high = Math.max(...ends), ticks = 2;
    const span = Math.max(high - low, 1e-6);
    const power = 10 ** Math.floor(Math.log10(span / ticks));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= 2 * ticks) ?? 10 * power;
    const start = Math.floor(low / step + 1e-9) * step;
    let stop = Math.ceil(high / step - 1e-9) * step;
    if (stop <= start) stop = start + step;
    return { start, stop, step };
  },
  at(axis, width, value) {
    const share = (Math.min(Math.max(value, axis.start), axis.stop) - axis.start) / (axis.stop - axis.start);
    return Math.round((8 + share * (width - 16)) * 10) / 10;
  },
  draw(axis, width, mean, half) {
    const svg = Strips.make("svg", { class: "strip", viewBox: `0 0 ${width} 20`, width, height: 20, "aria-hidden": "true" });
    const x = (value) => Strips.at(axis, width, value);
    svg.append(Strips.make("path", { class: "zero", d: `M${x(0)} 0V20` }));
    if (half) svg.append(Strips.make("path", { class: "span", d: `M${x(mean - half)} 10H${x(mean + half)}` }));
    const slack = 1e-6 * (axis.stop - axis.start);
    if (half && mean - half < axis.start - slack) svg.append(Strips.make("path", { class: "open", d: "M6 6l-4 4 4 4" }));
    if (half && mean + half > axis.stop + slack) svg.append(Strips.make("path", { class: "open", d: `M${width - 6} 6l4 4-4 4` }));
    if (mean > axis.stop) svg.append(Strips.make("path", { class: "arrow", d: `M${width - 7} 4l7 6-7 6z` }));
    else if (mean < axis.start) svg.append(Strips.make("path", { class: "arrow", d: "M7 4l-7 6 7 6z" }));
    else svg.append(Strips.make("circle", { cx: x(mean), cy: 10, r: 4.5 }));
    return svg;
  },
  label(axis, width, svg) {
    svg.replaceChildren();
    const digits = Math.max(0, -Math.floor(Math.log10(axis.step) + 1e-9));
    for (let i = Math.ceil(axis.start / axis.step - 1e-9); i <= axis.stop / axis.step + 1e-9; i += 1) {
      const value = i * axis.step;
      const text = Strips.make("text", { x: Strips.at(axis, width, value), y: 11, "text-anchor": "middle" });
      text.textContent = Figures.plain(value, digits);
      svg.append(text);
    }
  },
};

const Figures = {
  /* What rounds to zero has no sign. */
  sized: (value, digits) => Math.abs(value).toFixed(digits),
  sign: (value, digits, plus) => (Number(Figures.sized(value, digits)) === 0 ? "" : value < 0 ? "−" : plus),
  plain: (value, digits = 3) => (value == null ? "–" : Figures.sign(value, digits, "") + Figures.sized(value, digits)),
  signed: (value, digits = 3) => (value == null ? "–" : Figures.sign(value, digits, "+") + Figures.sized(value, digits)),
  spanned: (mean, half, digits = 3) =>
    half == null ? Figures.signed(mean, digits)
      : `${Figures.signed(mean, digits)} [${Figures.signed(mean - half, digits)}, ${Figures.signed(mean + half, digits)}]`,
};

/* A table that is wider than the screen fades at the side where it goes on. */
for (const scroll of all(".scroll")) {
  const fade = () => scroll.toggleAttribute("data-on", scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft > 2);
  scroll.addEventListener("scroll", fade, { passive: true });
  new ResizeObserver(fade).observe(scroll);
  if (one("table", scroll)) new ResizeObserver(fade).observe(one("table", scroll));
}
for (const element of all("[data-js]")) element.hidden = false;
for (const element of all("[data-nojs]")) element.hidden = true;
for (const table of all("table.sortable")) Sorting.prepare(table);
for (const table of all("table.grid")) Walking.prepare(table);
for (const table of all("table.sortable")) Trimming.prepare(table);
for (const table of all("table[data-fit]")) Fitting.prepare(table);
function reveal() {
  const row = document.getElementById(location.hash.slice(1));
  if (row?.matches("tr.beyond")) Trimming.reveal(row);
}
reveal();
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.save) Saving.click(button);
  if (button.matches(".copy")) Copying.copy(button.previousElementSibling.textContent, button);
  if (button.matches(".copy-code")) Copying.copy(button.previousElementSibling.textContent, button);
  if (button.hasAttribute("data-link")) Copying.copy(location.href, button);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of all("details.menu[open]")) {
    menu.open = false;
    one("summary", menu).focus();
  }
});
