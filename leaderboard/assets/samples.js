
/* Texts side by side: two entries, one seed, one task or all. Everything is on the page; the rest is hidden. */
const Texts = {
  form: one("form.filters"),
  fields: ["a", "b", "task", "seed"],
  show() {
    const value = (name) => Texts.form.elements[name]?.value ?? "";
    const every = Texts.form.elements.all.checked;
    for (const block of all(".block")) {
      block.hidden = (value("task") && block.dataset.task !== value("task")) || (value("seed") && block.dataset.seed !== value("seed"));
      const articles = all("article", block);
      for (const article of articles) {
        const side = article.dataset.entry === value("a") ? 1 : article.dataset.entry === value("b") ? 2 : 0;
        article.hidden = !every && side === 0;
        article.style.order = every ? "" : side;
      }
    }
    for (const name of ["a", "b"]) Texts.form.elements[name].disabled = every;
  },
  restore() {
    const state = State.read();
    for (const name of Texts.fields) State.choose(Texts.form.elements[name], state.get(name));
    const { a, b } = Texts.form.elements;
    if (state.get("a") && !state.get("b")) { // a link to one entry: beside it stands its zero-shot, or any other
      State.choose(b, a.selectedOptions[0].dataset.base);
      if (b.value === a.value) b.value = [...b.options].find((option) => option.value !== a.value).value;
    }
    Texts.form.elements.all.checked = state.get("all") === "1";
    Texts.show();
  },
  changed() {
    Texts.show();
    const pairs = Object.fromEntries(Texts.fields.map((name) => [name, Texts.form.elements[name]?.value ?? ""]));
    State.write({ ...pairs, all: Texts.form.elements.all.checked ? "1" : "" });
  },
};
for (const text of all(".sample p")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy this text");
  text.after(button);
}
if (Texts.form) {
  Texts.form.addEventListener("input", Texts.changed);
  Texts.form.addEventListener("submit", (event) => event.preventDefault());
  Texts.restore();
  addEventListener("hashchange", Texts.restore);
}
