
/* Head to head: any two entries, from means, packed half widths and corrected p that were computed at build time. */
const Comparison = {
  data: JSON.parse(document.getElementById("comparison-data").textContent),
  form: one("form.filters"),
  tables: { metrics: document.getElementById("comparison-metrics"), parts: document.getElementById("comparison") },

  bytes: (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)),
  /* Where a pair stands among all pairs. */
  at(a, b) {
    const [i, j] = a < b ? [a, b] : [b, a], n = Comparison.data.entries.length;
    return i * n - (i * (i + 1)) / 2 + (j - i - 1);
  },
  /* Half width of the interval of a pair, null where unknown. */
  half(row, a, b) {
    if (a === b) return 0;
    row.halves ??= Comparison.bytes(row.half);
    const at = 2 * Comparison.at(a, b), steps = row.halves[at] + 256 * row.halves[at + 1];
    return steps === 65535 ? null : steps * row.unit;
  },
  /* Corrected p of a pair, rounded up, null where unknown. */
  p(row, a, b) {
    if (a === b) return 1;
    row.chances ??= Comparison.bytes(row.p);
    const steps = row.chances[Comparison.at(a, b)];
    return steps === 255 ? null : steps <= 100 ? steps / 1000 : (steps - 90) / 100;
  },
  words: (p) => (p == null ? "–" : p <= 0.001 ? "≤ 0.001" : p.toFixed(3)),
  verdict({ mean, p, row }) {
    if (mean == null) return "not measured";
    if (p == null) return "no interval";
    if (p > Comparison.data.level || mean === 0) return "inconclusive";
    return `${(mean > 0) !== (row.way === "down") ? "A" : "B"} ${row.way === "none" ? "higher" : "better"}`;
  },
  find(row, a, b) {
    const known = row.means[a] != null && row.means[b] != null;
    const found = { row, mean: known ? row.means[a] - row.means[b] : null };
    found.half = known ? Comparison.half(row, a, b) : null;
    found.p = known ? Comparison.p(row, a, b) : null;
    found.verdict = Comparison.verdict(found);
    return found;
  },
  show() {
    const a = Comparison.data.entries.indexOf(Comparison.form.elements.a.value), b = Comparison.data.entries.indexOf(Comparison.form.elements.b.value);
    const found = {};
    for (const [name, rows] of Object.entries(Comparison.data.tables)) {
      found[name] = rows.map((row) => Comparison.find(row, a, b));
      if (Comparison.tables[name]) Comparison.fill(Comparison.tables[name], found[name], a, b);
    }
    const counts = (where, rows) => {
      const said = ["A better", "B better", "inconclusive"].map((words) => `${words} in ${rows.filter(({ verdict }) => verdict === words).length}`);
      return rows.length ? ` ${where}: ${said.join(", ")}.` : "";
    };
    const [name, other] = [Comparison.data.names[a], Comparison.data.names[b]];
    one("[data-name=a]").textContent = name;
    one("[data-name=b]").textContent = other;
    const over = found.metrics[0]?.verdict ?? "not measured";
    const ends = { "A better": `${name} is better than ${other}`, "B better": `${other} is better than ${name}`, "inconclusive": `${name} and ${other} cannot be distinguished` };
    document.getElementById("verdict").textContent = a === b ? "Choose two different entries."
      : `Overall: ${ends[over] ?? over}.${counts("In parts", found.parts)}${counts("In other metrics", found.metrics.slice(1))}`;
  },
  /* The cells of a table: A, B, difference, p, verdict; strips where it has an axis. */
  fill(table, found, a, b) {
    const width = Number(table.dataset.width), on = one(".axis", table);
    const axis = on && Strips.axis(found.filter(({ mean }) => mean != null).map(({ mean, half }) => [mean, half]));
    if (on) Strips.label(axis, width, on);
    found.forEach(({ row, mean, half, p, verdict }, i) => {
      const cells = table.tBodies[0].rows[i].cells;
      cells[1].textContent = Figures.plain(row.means[a], row.digits);
      cells[2].textContent = Figures.plain(row.means[b], row.digits);
      const figure = document.createElement("span");
      figure.className = "figure";
      figure.textContent = mean == null ? "–" : Figures.spanned(mean, half, row.digits);
      cells[3].replaceChildren(...(mean == null || !on ? [] : [Strips.draw(axis, width, mean, half)]), figure);
      cells[4].textContent = Comparison.words(p);
      cells[5].textContent = verdict;
      cells[5].className = `text verdict ${verdict.replaceAll(" ", "-")}`;
    });
  },
  restore() {
    const state = State.read();
    for (const side of ["a", "b"]) State.choose(Comparison.form.elements[side], state.get(side));
    Comparison.show();
  },
  changed() {
    Comparison.show();
    State.write({ a: Comparison.form.elements.a.value, b: Comparison.form.elements.b.value });
  },
};
Comparison.form.addEventListener("input", Comparison.changed);
Comparison.form.addEventListener("submit", (event) => event.preventDefault());
one("[data-swap]", Comparison.form).addEventListener("click", () => {
  const { a, b } = Comparison.form.elements;
  [a.value, b.value] = [b.value, a.value];
  Comparison.changed();
});
Comparison.restore();
addEventListener("hashchange", Comparison.restore);
