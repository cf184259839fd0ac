
/* The overview: filters of rows, the scope of task and language, sorting, all of it in the address. */
class Overview {
  constructor(section, several) {
    this.section = section;
    this.several = several;
    this.form = one("form.filters", section);
    this.table = one("table.ranking", section);
    this.grid = one("table.grid", section);
    this.more = one(".more-columns", section);
    this.axis = one("th[data-key=gain] .axis", this.table);
    this.whole = [...(this.axis?.childNodes ?? [])];
    this.count = one(".count", section);
    this.hint = one(".hint", section);
    this.data = JSON.parse(document.getElementById(`${section.id}-data`).textContent);
    this.place = new Map(this.data.entries.map((name, i) => [name, i]));
    this.columns = [...this.table.tHead.rows[0].cells].map((th) => th.dataset.key);
    this.first = [...this.table.tBodies[0].rows].map((row) => ({ row, cells: [...row.cells].map((cell) => [...cell.childNodes].map((node) => node.cloneNode(true))), values: [...row.cells].map((cell) => cell.dataset.v) }));
    this.form.addEventListener("input", () => this.changed());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => { this.restore(new URLSearchParams()); this.save(); }));
    this.more.addEventListener("change", () => this.save());
    this.table.addEventListener("sorted", () => this.save());
    for (const event of ["mouseover", "focusin"]) {
      this.table.tHead.addEventListener(event, ({ target }) => {
        const th = target.closest("th");
        if (th) this.hint.textContent = th.dataset.hint ?? "";
      });
    }
  }

  value(name) {
    return this.form.elements[name]?.value ?? "";
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
    const task = this.value("task"), language = this.value("language");
    const whole = !task && !language;
    const found = this.data.scopes.find((scope) => scope.task === task && scope.language === language)
      ?? this.data.scopes.find((scope) => (!scope.task || scope.task === task || !task) && (!scope.language || scope.language === language || !language) && !(scope.task && !task) && !(scope.language && !language));
    this.reason = whole || !found ? "" : found.reason;
    if (whole && this.part === undefined) return;
    this.part = whole ? undefined : found;
    if (whole) this.back();
    else this.fill(found);
    const sorted = one("th[aria-sort]", this.table);
    if (sorted) Sorting.sort(this.table, sorted, sorted.getAttribute("aria-sort"));
    else this.order(whole);
  }

  back() {
    this.table.removeAttribute("data-part");
    for (const { row, cells, values } of this.first) {
      [...row.cells].forEach((cell, i) => {
        cell.replaceChildren(...cells[i].map((node) => node.cloneNode(true)));
        if (values[i] === undefined) delete cell.dataset.v;
        else cell.dataset.v = values[i];
      });
    }
    this.axis?.replaceChildren(...this.whole);
  }

  label(scope) {
    const axis = Strips.axis(scope.gain.map((gain, i) => [gain, scope.half[i]]).filter(([gain], i) => gain != null && !this.data.references[i]));
    if (this.axis) Strips.label(axis, Number(this.table.dataset.width), this.axis);
    return axis;
  }

  fill(scope) {
    this.table.dataset.part = "";
    const width = Number(this.table.dataset.width), axis = this.label(scope);
    for (const { row } of this.first) {
      const i = this.place.get(row.dataset.entry);
      this.columns.forEach((key, column) => {
        const cell = row.cells[column];
        if (key === "tier") this.set(cell, scope.tier[i], scope.tier[i] ?? (row.matches(".flagged") ? "flag" : "–"), "tier");
        else if (key === "gain") {
          this.set(cell, scope.gain[i], Figures.spanned(scope.gain[i], scope.half[i]), "figure");
          if (scope.gain[i] != null) cell.prepend(Strips.draw(axis, width, scope.gain[i], scope.half[i]));
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

  /* Without a column chosen: the order of the page, or by the level of the scope. */
  order(whole) {
    this.table.tBodies[0].append(...(whole ? this.first : this.byLevel()).map(({ row }) => row));
    Trimming.apply(this.table);
  }

  byLevel() {
    const column = this.columns.indexOf(this.data.headline);
    const th = this.table.tHead.rows[0].cells[column];
    const last = Number.MAX_VALUE, sign = th.dataset.better === "down" ? 1 : -1;
    const level = ({ row }) => (row.cells[column].dataset.v === "" ? last : sign * Number(row.cells[column].dataset.v));
    return [...this.first].sort((a, b) => level(a) - level(b));
  }

  save() {
    const sorted = one("th[aria-sort]", this.table);
    const pairs = { board: this.several ? this.section.id : "" };
    for (const name of ["q", "task", "language", "model", "setting", "family"]) pairs[name] = this.value(name);
    if (sorted) {
      pairs.sort = sorted.dataset.key;
      pairs.way = sorted.getAttribute("aria-sort") === Sorting.first(sorted) ? "" : "turned";
    }
    pairs.columns = this.more.checked ? "all" : "";
    State.write(pairs);
  }

  restore(state) {
    for (const name of ["q", "task", "language", "model", "setting", "family"]) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.tagName === "SELECT") State.choose(field, state.get(name));
      else field.value = state.get(name) ?? "";
    }
    this.more.checked = state.get("columns") === "all";
    for (const th of all("th[aria-sort]", this.table)) th.removeAttribute("aria-sort");
    delete this.table.dataset.sorted;
    const th = [...this.table.tHead.rows[0].cells].find((cell) => cell.dataset.key === state.get("sort"));
    this.apply();
    if (th) {
      const first = Sorting.first(th);
      const turned = first === "ascending" ? "descending" : "ascending";
      Sorting.sort(this.table, th, state.get("way") === "turned" ? turned : first);
    } else this.order(this.part === undefined);
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
