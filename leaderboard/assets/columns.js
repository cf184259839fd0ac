/* Which columns of a ranking are shown: chosen ones, all, or as many of the default ones as fit the screen. */
class Columns {
  constructor(section, table, changed) {
    this.section = section;
    this.table = table;
    this.heads = [...table.tHead.rows[0].cells];
    this.keys = this.heads.map((th) => th.dataset.key);
    this.every = one(".more-columns", section);
    this.menu = one(".columns", section);
    this.said = one(".fitted", section);
    this.boxes = all("input", this.menu);
    this.chosen = null;
    this.style = document.createElement("style");
    document.head.append(this.style);
    this.every.addEventListener("change", () => { this.chosen = null; this.fit(); changed(); });
    this.menu.addEventListener("change", () => {
      this.every.checked = false;
      this.chosen = new Set(this.boxes.filter((box) => box.checked).map((box) => box.value));
      this.fit();
      changed();
    });
  }

  state() {
    return this.every.checked ? "all" : this.chosen ? [...this.chosen].join(",") || "none" : "";
  }

  restore(text) {
    const known = text.split(",").filter((key) => this.keys.includes(key));
    this.every.checked = text === "all";
    this.chosen = known.length || text === "none" ? new Set(known) : null;
  }

  shown(th) {
    const key = th.dataset.key;
    if (key === "tier" || key === "entry" || this.every.checked) return true;
    return this.chosen ? this.chosen.has(key) : !th.matches(".more");
  }

  hide(heads, screen) {
    const rules = heads.map((th) => `#${CSS.escape(this.table.id)} .${[...th.classList].find((name) => name.startsWith("k-"))}`);
    const rule = rules.length ? `${rules.join(", ")} { display: none; }` : "";
    return screen && rule ? `@media screen { ${rule} }` : rule;
  }

  /* On paper all default columns stand; on the screen those at the end go until the rest can be seen at once. */
  fit() {
    this.section.classList.add("choosing");
    const off = this.heads.filter((th) => !this.shown(th)), rule = this.hide(off, false), gone = [];
    this.style.textContent = rule;
    if (!this.chosen && !this.every.checked) {
      const scroll = this.table.closest(".scroll");
      let over = this.table.offsetWidth - scroll.clientWidth;
      const can = this.heads.filter((th) => !off.includes(th) && th.offsetWidth && !["tier", "entry", "gain"].includes(th.dataset.key));
      while (over > 0 && can.length) {
        const th = can.pop();
        over -= th.offsetWidth;
        gone.push(th);
      }
      this.style.textContent = rule + this.hide(gone, true);
    }
    this.said.textContent = gone.length ? `${gone.length} default ${gone.length === 1 ? "column does" : "columns do"} not fit this screen` : "";
    const part = this.table.hasAttribute("data-part");
    for (const box of this.boxes) {
      const th = this.heads[this.keys.indexOf(box.value)];
      box.checked = !off.includes(th) && !gone.includes(th);
      box.disabled = part && th.matches(".whole");
    }
  }
}
