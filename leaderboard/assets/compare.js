
/* Head to head: any two entries, from means and packed half widths that were computed at build time. */
const Duel = {
  data: JSON.parse(document.getElementById("duel-data").textContent),
  form: one("form.filters"),
  table: document.getElementById("duel"),

  /* Half width of the interval of a pair, null where unknown. */
  half(scope, a, b) {
    const [i, j] = a < b ? [a, b] : [b, a], n = Duel.data.entries.length;
    if (i === j) return 0;
    scope.bytes ??= Uint8Array.from(atob(scope.half), (sign) => sign.charCodeAt(0));
    const at = 2 * (i * n - (i * (i + 1)) / 2 + (j - i - 1));
    const steps = scope.bytes[at] + 256 * scope.bytes[at + 1];
    return steps === 65535 ? null : steps * scope.unit;
  },
  verdict(mean, half) {
    if (mean == null) return "not measured";
    if (half == null) return "no interval";
    if (Math.abs(mean) <= half || mean === 0) return "cannot tell";
    return (mean > 0) !== Duel.data.down ? "A better" : "B better";
  },
  show() {
    const a = Duel.data.entries.indexOf(Duel.form.elements.a.value), b = Duel.data.entries.indexOf(Duel.form.elements.b.value);
    const found = Duel.data.scopes.map((scope) => {
      const known = scope.means[a] != null && scope.means[b] != null;
      return { scope, mean: known ? scope.means[a] - scope.means[b] : null, half: known ? Duel.half(scope, a, b) : null };
    });
    const width = Number(Duel.table.dataset.width);
    const axis = Strips.axis(found.filter(({ mean }) => mean != null).map(({ mean, half }) => [mean, half]));
    Strips.label(axis, width, one(".axis", Duel.table));
    found.forEach(({ scope, mean, half }, i) => {
      const cells = Duel.table.tBodies[0].rows[i].cells;
      cells[1].textContent = Figures.plain(scope.means[a]);
      cells[2].textContent = Figures.plain(scope.means[b]);
      const figure = document.createElement("span");
      figure.className = "figure";
      figure.textContent = mean == null ? "–" : Figures.spanned(mean, half);
      cells[3].replaceChildren(...(mean == null ? [] : [Strips.draw(axis, width, mean, half)]), figure);
      const words = Duel.verdict(mean, half);
      cells[4].textContent = words;
      cells[4].className = `text verdict ${words.replaceAll(" ", "-")}`;
    });
    const counts = (words) => found.slice(1).filter(({ mean, half }) => Duel.verdict(mean, half) === words).length;
    const [name, other] = [Duel.data.names[a], Duel.data.names[b]];
    const over = Duel.verdict(found[0].mean, found[0].half);
    const ends = { "A better": `${name} is better than ${other}`, "B better": `${other} is better than ${name}`, "cannot tell": `${name} and ${other} cannot be told apart` };
    document.getElementById("verdict").textContent = a === b ? "Choose two different entries."
      : `Over all: ${ends[over] ?? over}. In parts: A better in ${counts("A better")}, B better in ${counts("B better")}, cannot tell in ${counts("cannot tell")}.`;
  },
  restore() {
    const state = State.read();
    for (const side of ["a", "b"]) State.choose(Duel.form.elements[side], state.get(side));
    Duel.show();
  },
  changed() {
    Duel.show();
    State.write({ a: Duel.form.elements.a.value, b: Duel.form.elements.b.value });
  },
};
Duel.form.addEventListener("input", Duel.changed);
Duel.form.addEventListener("submit", (event) => event.preventDefault());
one("[data-swap]", Duel.form).addEventListener("click", () => {
  const { a, b } = Duel.form.elements;
  [a.value, b.value] = [b.value, a.value];
  Duel.changed();
});
Duel.restore();
addEventListener("hashchange", Duel.restore);
