/* Entries as points between a figure and their gain: the drawing of the build, for any part, as wide as the screen. */
const Plots = {
  height: 380, left: 62, right: 18, top: 18, bottom: 48, most: 14, longest: 34, dot: 7,
  rings: [10, 20, 32, 46, 62],
  ways: [[1, 0], [-1, 0], [0.7, -1], [0.7, 1], [-0.7, -1], [-0.7, 1], [0, -1.2], [0, 1.2]],
  shapes: {
    control: (x, y) => ["path", { d: `M${x} ${y - 6}l5.5 10h-11z` }],
    prompting: (x, y) => ["path", { d: `M${x} ${y + 6}l5.5 -10h-11z` }],
    baseline: (x, y) => ["rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9 }],
    reference: (x, y) => ["path", { d: `M${x} ${y - 6}l6 6-6 6-6-6z` }],
  },
  /* Within Tukey's outer fences, as at build time. */
  inner(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const at = (share) => {
      const place = share * (sorted.length - 1), low = Math.floor(place);
      return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
    };
    const reach = 3 * (at(0.75) - at(0.25));
    const inner = sorted.filter((value) => value >= at(0.25) - reach && value <= at(0.75) + reach);
    const squashed = sorted.at(-1) - sorted[0] > 2 * (inner.at(-1) - inner[0]);
    return sorted.length >= 6 && reach && squashed ? inner : sorted;
  },
  scale(values, from, to) {
    const low = Math.min(...values), high = Math.max(...values), ticks = to > from && to - from < 400 ? 2 : 4;
    const span = Math.max(high - low, 1e-3 * Math.max(Math.abs(low), Math.abs(high), 1e-3));
    const power = 10 ** Math.floor(Math.log10(span / ticks));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= 2 * ticks) ?? 10 * power;
    const start = Math.floor(low / step + 1e-9) * step, end = Math.ceil(high / step - 1e-9) * step;
    const stop = end > start ? end : start + step, slack = 1e-9 * (stop - start);
    const count = Math.round((stop - start) / step), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const at = (value) => from + ((Math.min(Math.max(value, start), stop) - start) / (stop - start)) * (to - from);
    return {
      at,
      beyond: (value) => (value < start - slack ? -1 : value > stop + slack ? 1 : 0),
      ticks: Array.from({ length: count + 1 }, (_, i) => [at(start + i * step), Figures.plain(start + i * step, digits)]),
    };
  },
  /* Those that no other equals or beats in both and beats in one, from left to right. */
  front(items, right, up) {
    const found = [];
    for (const item of [...items].sort((a, b) => right * (b.x - a.x) || up * (b.y - a.y))) {
      const last = found.at(-1);
      if (!last || up * item.y > up * last.y || (item.x === last.x && item.y === last.y)) found.push(item);
    }
    return found.sort((a, b) => a.x - b.x || a.y - b.y);
  },
  /* Items have x, y, low, high, name, kind, href, words. */
  draw(svg, items, better, base) {
    const width = Math.max(300, Math.min(736, svg.parentNode.clientWidth || 560)), { height, left, right, top, bottom } = Plots;
    const titles = all("text.title", svg);
    const written = items.filter((item) => item.kind !== "reference"), eligible = written.filter((item) => item.kind !== "flagged");
    const field = eligible.length > 1 ? eligible : written;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!field.length) return svg.replaceChildren(...titles);
    const x = Plots.scale(Plots.inner(field.map((item) => item.x)), left, width - right);
    const y = Plots.scale(Plots.inner(field.flatMap((item) => [item.y, item.low, item.high].filter((end) => end != null))), height - bottom, top);
    const front = Plots.front(eligible, better.x, better.y), best = new Set(front);
    const make = (tag, attributes, text) => {
      const node = Strips.make(tag, attributes);
      if (text !== undefined) node.textContent = text;
      return node;
    };
    const nodes = x.ticks.flatMap(([at, text]) => [make("path", { class: "rule", d: `M${at} ${top}V${height - bottom}` }), make("text", { class: "tick", x: at, y: height - bottom + 22, "text-anchor": "middle" }, text)]);
    nodes.push(...y.ticks.flatMap(([at, text]) => [make("path", { class: "rule", d: `M${left} ${at}H${width - right}` }), make("text", { class: "tick", x: left - 8, y: at + 4, "text-anchor": "end" }, text)]));
    titles[0].setAttribute("x", (left + width - right) / 2);
    if (front.length) nodes.push(make("polyline", { class: "front", points: front.map((item) => `${x.at(item.x)},${y.at(item.y)}`).join(" ") }));
    svg.replaceChildren(...titles, ...nodes);
    const drawn = [...items].sort((a, b) => best.has(a) - best.has(b) || (a.kind !== "reference") - (b.kind !== "reference"));
    const taken = drawn.map((item) => [x.at(item.x) - Plots.dot, y.at(item.y) - Plots.dot, x.at(item.x) + Plots.dot, y.at(item.y) + Plots.dot]);
    const links = new Map(drawn.map((item) => [item, Plots.point(svg, make, item, x, y, best.has(item), base)]));
    const sorted = [...front, ...written.filter((item) => !best.has(item)).sort((a, b) => better.y * (b.y - a.y))];
    const named = written.length <= Plots.most ? sorted : sorted.slice(0, Plots.most);
    for (const item of [...named, ...items.filter(({ kind }) => kind === "reference")]) {
      Plots.label(links.get(item), make, item, x, y, taken, width);
    }
  },
  point(svg, make, item, x, y, best, base) {
    const px = x.at(item.x), py = y.at(item.y), off = x.beyond(item.x) || y.beyond(item.y);
    const link = make("a", { href: base + item.href, class: `point ${item.kind}${best ? " best" : ""}`, "aria-label": item.words });
    link.dataset.tip = item.words + (off ? " (off the axes)" : "");
    if (item.low != null) {
      const low = y.at(item.low), high = y.at(item.high);
      link.append(make("path", { class: "span", d: `M${px} ${low}V${high}M${px - 3} ${low}h6M${px - 3} ${high}h6` }));
    }
    const [tag, attributes] = Plots.shapes[item.kind]?.(px, py) ?? ["circle", { cx: px, cy: py, r: 5 }];
    link.append(make(tag, { class: "dot", ...attributes }));
    svg.append(link);
    return link;
  },
  label(link, make, item, x, y, taken, width) {
    const px = x.at(item.x), py = y.at(item.y), right = x.beyond(item.x), up = y.beyond(item.y);
    const letters = [...item.name], name = letters.length <= Plots.longest ? item.name : `${letters.slice(0, Plots.longest - 1).join("")}…`;
    const arrow = { 1: "↖↑↗", 0: "← →", "-1": "↙↓↘" }[up][right + 1].trim();
    const text = make("text", {}, arrow ? `${name} ${arrow}` : name);
    link.append(text);
    const wide = text.getComputedTextLength();
    for (const ring of Plots.rings) {
      for (const [across, down] of Plots.ways) {
        const at = px + across * ring, base = py + 4 + down * ring;
        const start = across > 0 ? at : across < 0 ? at - wide : at - wide / 2;
        const box = [start, base - 13, start + wide, base + 4];
        const inside = box[0] >= Plots.left && box[2] <= width && box[1] >= 0 && box[3] <= Plots.height - Plots.bottom;
        if (!inside || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
        taken.push(box);
        for (const [key, value] of Object.entries({ x: at, y: base, "text-anchor": across > 0 ? "start" : across < 0 ? "end" : "middle" })) text.setAttribute(key, value);
        if (ring > Plots.rings[0]) link.prepend(make("path", { class: "leader", d: `M${px} ${py}L${at} ${base - 4}` }));
        return;
      }
    }
    text.remove();
  },
};
