/* Explanations of short words and figures: on hover, focus and touch. Escape closes them, and a pointer can enter the
   bubble. Without a script they are plain titles. */
const Tips = {
  owner: null,
  timer: 0,
  touched: false,
  prepare() {
    Tips.bubble = document.createElement("div");
    Tips.bubble.id = "tip";
    Tips.bubble.setAttribute("role", "tooltip");
    Tips.bubble.dir = "auto";
    Tips.bubble.hidden = true;
    one("main").append(Tips.bubble);
    for (const node of all("[title]")) Tips.give(node, node.title);
    for (const title of all("svg a > title, svg g > title")) Tips.give(title.parentNode, title.textContent, title);
    for (const title of all("svg[aria-label] > title")) title.remove();
    document.addEventListener("pointerover", (event) => Tips.over(event));
    document.addEventListener("focusin", (event) => Tips.show(Tips.of(event.target)));
    document.addEventListener("focusout", () => Tips.hide());
    document.addEventListener("pointerdown", (event) => { Tips.touched = event.pointerType === "touch"; });
    document.addEventListener("click", (event) => Tips.click(event), true);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") Tips.hide(); });
    document.addEventListener("scroll", () => Tips.put(), { capture: true, passive: true });
  },
  /* Explain a node; a heading that sorts is explained by its button. */
  give(node, text, title) {
    const owner = node.matches("th") ? one("button", node) ?? node : node;
    if (title) title.remove();
    else node.removeAttribute("title");
    owner.dataset.tip = text;
    if (!owner.matches("a, button, summary, [tabindex]")) owner.tabIndex = 0;
    if (owner.matches("g")) {
      owner.closest("svg").setAttribute("role", "group");
      owner.setAttribute("role", "img");
      owner.setAttribute("aria-label", text);
    } else if (!owner.hasAttribute("aria-label")) owner.setAttribute("aria-description", text);
  },
  of: (target) => target.closest?.("[data-tip]") ?? one("button[data-tip]", target.closest?.("th") ?? document.createElement("i")),
  over(event) {
    if (event.pointerType === "touch" || Tips.bubble.contains(event.target)) return clearTimeout(Tips.timer);
    const owner = Tips.of(event.target);
    clearTimeout(Tips.timer);
    if (owner) Tips.show(owner);
    else if (Tips.owner && Tips.owner !== document.activeElement) Tips.timer = setTimeout(() => Tips.hide(), 200);
  },
  /* A touch shows what a link is before it is followed; a second touch follows it. */
  click(event) {
    const owner = Tips.of(event.target);
    if (!Tips.touched) return;
    if (!owner) return Tips.bubble.contains(event.target) ? undefined : Tips.hide();
    if (owner.matches("svg a, .grid td") && Tips.shown !== owner) event.preventDefault();
    Tips.show(owner);
    Tips.shown = owner;
  },
  show(owner) {
    if (!owner) return;
    Tips.hide();
    Tips.owner = owner;
    Tips.bubble.textContent = owner.dataset.tip;
    Tips.bubble.hidden = false;
    Tips.put();
  },
  hide() {
    clearTimeout(Tips.timer);
    Tips.owner = Tips.shown = null;
    Tips.bubble.hidden = true;
  },
  /* Below its owner, above where there is no room, and always on the screen. */
  put() {
    if (!Tips.owner) return;
    const at = Tips.owner.getBoundingClientRect(), own = Tips.bubble.getBoundingClientRect();
    Tips.bubble.hidden = at.bottom < 0 || at.top > innerHeight || !at.width; // back when it is scrolled back
    const across = document.documentElement.clientWidth;
    const below = at.bottom + 6 + own.height < innerHeight || at.top < own.height + 6;
    Tips.bubble.style.left = `${Math.max(8, Math.min(at.left, across - own.width - 8))}px`;
    Tips.bubble.style.top = `${below ? at.bottom + 6 : at.top - own.height - 6}px`;
  },
};
Tips.prepare();
