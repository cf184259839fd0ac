/* The overview: filters of rows, the scope of task and languages, columns, sorting, all of it in the address. */
class Overview {
  constructor(section, several) {
    this.section = section;
    this.several = several;
    this.form = one("form.filters", section);
    this.table = one("table.ranking", section);
    this.grid = one("table.grid", section);
    this.axis = one("th[data-key=gain] .axis", this.table);
    this.whole = [...(this.axis?.childNodes ?? [])];
    this.count = one(".count", section);
    this.data = JSON.parse(document.getElementById(`${section.id}-data`).textContent);
    this.index = new Map(this.data.entries.map((name, i) => [name, i]));
    this.columns = new Columns(section, this.table, () => this.save());
    this.first = [...this.table.tBodies[0].rows].map((row) => ({
      row, opens: row.matches(".opens"), cells: [...row.cells].map((cell) => [...cell.childNodes]),
      values: [...row.cells].map((cell) => cell.dataset.v), tips: [...row.cells].map((cell) => cell.dataset.tip),
    }));
    this.form.addEventListener("input", () => this.changed());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => { this.restore(new URLSearchParams()); this.save(); }));
    this.table.addEventListener("sorted", () => this.save());
  }

  value(name) {
    return this.form.elements[name]?.value ?? "";
  }

  /* The languages chosen; none for all of them. */
  languages() {
    const boxes = all("[name=language]", this.form), chosen = boxes.filter((box) => box.checked);
    return chosen.length === boxes.length ? [] : chosen.map((box) => box.value);
  }

  changed() {
    this.apply();
    this.save();
  }

  apply() {
    const words = this.value("q").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row } of this.first) {
      const text = `${row.cells[1].textContent} ${row.dataset.model} ${row.dataset.setting}`.toLowerCase();
      const fits = words.every((word) => text.includes(word))
        && ["model", "setting", "family"].every((name) => !this.value(name) || row.dataset[name] === this.value(name));
      row.hidden = !fits;
      shown += fits;
    }
    if (this.grid) {
      const hidden = new Set(this.first.filter(({ row }) => row.hidden).map(({ row }) => row.dataset.entry));
      for (const row of this.grid.tBodies[0].rows) row.hidden = hidden.has(row.dataset.entry);
      Trimming.apply(this.grid);
      Walking.stop(this.grid);
    }
    for (const table of [this.table, this.grid]) if (table) table.closest(".scroll").hidden = !shown;
    this.scope();
    Trimming.apply(this.table);
    const total = this.first.length;
    const parts = [shown === total ? `${total} entries` : `${shown} of ${total} entries`];
    if (shown < total) parts.push("tiers and corrections stay those of all");
    if (shown === 0) parts[0] = "no entry fits: reset the filters";
    if (this.reason) parts.push(`not ranked here: ${this.reason}`);
    this.count.textContent = parts.join("; ");
  }

  scope() {
    const task = this.value("task"), languages = this.languages(), whole = this.data.scopes[0];
    const found = languages.length > 1 ? this.together(task, languages) : this.of(task, languages[0] ?? "");
    this.part = found === whole ? undefined : found;
    this.reason = this.part?.reason ?? "";
    if (this.part) this.fill(found);
    else this.back();
    this.say(found, task, languages);
    this.plots(found);
    const sorted = one("th[aria-sort]", this.table);
    if (sorted) Sorting.sort(this.table, sorted, sorted.getAttribute("aria-sort"));
    else this.order();
    this.columns.fit();
  }

  /* A suite of one task or one language has what would be the same once, in the wider scope. */
  of(task, language) {
    const fits = (scope, axis, value) => scope[axis] === value || (value && !scope[axis] && !this.data.scopes.some((other) => other[axis]));
    return this.data.scopes.find((scope) => fits(scope, "task", task) && fits(scope, "language", language)) ?? this.nothing(task);
  }

  nothing(task) {
    const none = this.data.entries.map(() => null), { axis, levels } = this.data.scopes[0];
    return {
      task, axis, cells: 0, gain: none, half: none, tier: none, marked: [], note: "", ranking: "", rules: "",
      levels: Object.fromEntries(Object.keys(levels).map((key) => [key, none])),
      reason: "the suite does not have this task there",
      verdict: "Inconclusive",
      words: "the suite does not have this task in every language that is chosen.",
    };
  }

  /* Several languages: means alone. An interval needs how they vary together, which is not in the page; tiers as well. */
  together(task, languages) {
    const scopes = languages.map((code) => this.of(task, code)), cells = scopes.reduce((sum, scope) => sum + scope.cells, 0);
    if (scopes.some((scope) => !scope.cells)) return this.nothing(task);
    const mean = (list) => this.data.entries.map((_, i) => {
      const values = scopes.map((scope) => list(scope)[i]);
      return values.includes(null) ? null : values.reduce((sum, value, k) => sum + value * scopes[k].cells, 0) / cells;
    });
    const none = this.data.entries.map(() => null), gain = mean((scope) => scope.gain);
    const sign = this.data.better === "down" ? -1 : 1;
    const best = this.data.kinds.map((kind, i) => i).filter((i) => this.data.kinds[i] === "steering" && gain[i] != null)
      .sort((a, b) => sign * (gain[b] - gain[a]))[0];
    const [start, stop, step] = [Math.min(...scopes.map(({ axis }) => axis[0])), Math.max(...scopes.map(({ axis }) => axis[1])), Math.max(...scopes.map(({ axis }) => axis[2]))];
    return {
      task, gain, half: none, tier: none, marked: [], note: "",
      levels: Object.fromEntries(Object.keys(scopes[0].levels).map((key) => [key, mean((scope) => scope.levels[key])])),
      axis: [start, stop, step],
      reason: "intervals and tiers are of one language or of all",
      verdict: "Inconclusive",
      words: "intervals and tiers are computed for one language or for all, not for a choice of several.",
      ranking: best === undefined ? "No steering has all its cells here." : `The largest mean gain of steering: ${this.data.names[best]}, ${Figures.signed(gain[best])}.`,
      rules: "Means of several languages: no interval, no tier.",
    };
  }

  say(found, task, languages) {
    const names = languages.map((code) => one(`[name=language][value="${CSS.escape(code)}"]`, this.form).parentNode.textContent.trim());
    const write = (query, text) => {
      const node = one(query, this.section);
      if (node && node.textContent !== text) node.textContent = text;
    };
    write(".sentence .verdict", found.verdict);
    write(".sentence .part", this.part ? ` (${[task, names.join(", ")].filter(Boolean).join(" in ")})` : "");
    write(".sentence .words", found.words);
    write(".sentence .lead-entry", found.ranking);
    write(".rules", `${found.rules} ${found.note}`.trim());
    write(".pick summary", names.length === 0 ? "all" : names.length === 1 ? names[0] : `${names.length} languages`);
    for (const node of all(".of-all", this.section)) node.hidden = !this.part;
  }

  plots(found) {
    for (const figure of all("figure[data-plot]", this.section)) {
      const key = figure.dataset.plot, x = key === "seconds" ? this.data.seconds : found.levels[key] ?? [];
      const figured = (value) => (key === "seconds" ? Math.round(value).toLocaleString("en") : Figures.plain(value, this.data.digits[key]));
      const items = this.data.entries.map((_, i) => {
        const zero = this.data.zero[i] && found.levels[this.data.headline][i] != null;
        const y = found.gain[i] ?? (zero ? 0 : null), half = found.half[i];
        const said = zero && found.gain[i] == null ? "0 by definition" : Figures.spanned(y, half);
        return {
          x: key === "seconds" && this.data.kinds[i] === "reference" ? null : x[i] ?? null, y, low: half == null ? null : y - half, high: half == null ? null : y + half,
          name: this.data.names[i], kind: this.data.kinds[i], href: this.data.pages[i],
          words: `${this.data.names[i]}: ${figure.dataset.words.replace("#", figured(x[i]))}, gain ${said}`,
        };
      }).filter((item) => item.x != null && item.y != null);
      Plots.draw(one("svg.plot", figure), items, { x: figure.dataset.better === "up" ? 1 : -1, y: this.data.better === "down" ? -1 : 1 }, `${this.section.id}/`);
    }
  }

  back() {
    if (!this.table.hasAttribute("data-part")) return;
    this.table.removeAttribute("data-part");
    for (const { row, cells, values, tips, opens } of this.first) {
      row.classList.toggle("opens", opens);
      [...row.cells].forEach((cell, i) => {
        cell.replaceChildren(...cells[i]);
        for (const [key, value] of [["v", values[i]], ["tip", tips[i]]]) {
          if (value === undefined) delete cell.dataset[key];
          else cell.dataset[key] = value;
        }
      });
    }
    this.axis?.replaceChildren(...this.whole);
  }

  fill(scope) {
    this.table.dataset.part = "";
    const width = Number(this.table.dataset.width), [start, stop, step] = scope.axis, axis = { start, stop, step };
    const marked = new Set(scope.marked);
    if (this.axis) Strips.label(axis, width, this.axis);
    for (const { row } of this.first) {
      const i = this.index.get(row.dataset.entry), flagged = row.matches(".flagged");
      this.columns.keys.forEach((key, column) => {
        const cell = row.cells[column];
        if (key === "tier") {
          this.set(cell, scope.tier[i], scope.tier[i] ?? (flagged ? "flag" : "–"), "tier");
          if (!flagged) delete cell.dataset.tip;
        } else if (key === "gain") {
          this.set(cell, scope.gain[i], Figures.spanned(scope.gain[i], scope.half[i]), "figure");
          if (scope.gain[i] != null) cell.prepend(Strips.draw(axis, width, scope.gain[i], scope.half[i]));
          if (marked.has(i)) this.mark(cell, scope.note);
        } else if (key in scope.levels) {
          this.set(cell, scope.levels[key][i], Figures.plain(scope.levels[key][i], this.data.digits[key]), "figure");
        }
      });
    }
  }

  set(cell, value, text, kind) {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    cell.replaceChildren(span);
    cell.dataset.v = value ?? "";
  }

  mark(cell, note) {
    const sign = document.createElement("span");
    sign.className = "dagger";
    sign.textContent = "†";
    Tips.give(sign, note);
    cell.append(sign);
  }

  /* Without a column chosen: the order of the page, or by what ranks the scope. Rules stand where a tier begins. */
  order() {
    const rows = (this.part ? this.byRank() : this.first).map(({ row }) => row);
    this.table.tBodies[0].append(...rows);
    Trimming.apply(this.table);
    if (!this.part) return;
    let tier = null;
    for (const row of rows) {
      const own = this.part.tier[this.index.get(row.dataset.entry)];
      row.classList.toggle("opens", own != null && own !== tier);
      tier = own ?? tier;
    }
  }

  byRank() {
    const { gain, levels } = this.part, relative = this.data.relative;
    const sign = this.data.better === "down" ? 1 : -1;
    const value = ({ row }) => {
      const i = this.index.get(row.dataset.entry), level = levels[this.data.headline][i];
      const by = relative ? gain[i] ?? (this.data.zero[i] && level != null ? 0 : null) : level;
      return by == null ? Number.MAX_VALUE : sign * by;
    };
    return [...this.first].sort((a, b) => value(a) - value(b));
  }

  save() {
    const sorted = one("th[aria-sort]", this.table);
    const pairs = { board: this.several ? this.section.id : "" };
    for (const name of ["q", "task", "language", "model", "setting", "family"]) {
      pairs[name] = name === "language" ? this.languages().join(",") : this.value(name);
    }
    if (sorted) {
      pairs.sort = sorted.dataset.key;
      pairs.way = sorted.getAttribute("aria-sort") === Sorting.first(sorted) ? "" : "turned";
    }
    pairs.columns = this.columns.state();
    State.write(pairs);
  }

  restore(state) {
    for (const name of ["q", "task", "model", "setting", "family"]) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.tagName === "SELECT") State.choose(field, state.get(name));
      else field.value = state.get(name) ?? "";
    }
    const chosen = new Set((state.get("language") ?? "").split(","));
    for (const box of all("[name=language]", this.form)) box.checked = chosen.has(box.value);
    this.columns.restore(state.get("columns") ?? "");
    for (const th of all("th[aria-sort]", this.table)) th.removeAttribute("aria-sort");
    delete this.table.dataset.sorted;
    const th = [...this.table.tHead.rows[0].cells].find((cell) => cell.dataset.key === state.get("sort"));
    this.apply();
    if (!th) return;
    const first = Sorting.first(th);
    const turned = first === "ascending" ? "descending" : "ascending";
    Sorting.sort(this.table, th, state.get("way") === "turned" ? turned : first);
  }
}

const sections = all("section.board");
const overviews = sections.map((section) => new Overview(section, sections.length > 1));
function restoreAll() {
  const state = State.read();
  for (const view of overviews) {
    const own = !state.get("board") || state.get("board") === view.section.id;
    view.restore(own ? state : new URLSearchParams());
    if (own && state.get("board")) view.section.scrollIntoView();
  }
}
restoreAll();
addEventListener("hashchange", () => { if (location.hash.includes("=") || location.hash === "") restoreAll(); });
let across = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === across) return;
  across = innerWidth;
  for (const view of overviews) view.scope();
});
