"""Draw the packages and their imports, from the code: ``python tests/support/architecture.py > docs/architecture.svg``.

Arrows that follow from others are left out (transitive reduction), so the picture shows the order of the packages.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# From the bottom up. A package may import from lower floors, and on its own floor from those before it.
FLOORS = [
    ["core"],
    ["data"],
    ["engine", "scoring"],
    ["methods", "ranking"],
    ["runner"],
    ["tracks", "submissions"],
    ["leaderboard"],
    ["cli"],
]
CONTENT = {
    "core": "errors, files, records, store, cells",
    "data": "suites, human text, prompts",
    "engine": "models, hooks, sampling, generation",
    "scoring": "metrics, scorers, classifiers",
    "methods": "contract, registry, built-in methods",
    "ranking": "statistics, tiers, compare, gate",
    "runner": "plan, fit, generate, score, tune",
    "tracks": "understanding, forcing, separation",
    "submissions": "card, pack, check, lockfile",
    "leaderboard": "pages, charts, downloads, serve",
    "cli": "the command line",
}
STAGES = [  # a record's way: stage, what it reads, what it writes, the package whose code does it
    ("plan", "suite.yaml", "manifest.json", "runner"),
    ("generate", "manifest.json", "generations.jsonl", "engine"),
    ("score", "generations.jsonl", "scores.json", "scoring"),
    ("rank", "scores.json", "tables", "ranking"),
    ("render", "tables", "site/", "leaderboard"),
]
WIDTH, HEIGHT, GAP = 230, 46, 30


def package_of(module: str) -> str:
    """Return the package of a module; empty for the public API."""
    first, _, rest = module.partition(".")
    second = rest.split(".")[0]
    return first if first == "leaderboard" else second if first == "harness" else ""


def imports_of(tree: ast.AST) -> set[str]:
    """Return the absolute names of all imported modules, those inside of functions included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module but ``harness/__init__.py``, which re-exports the API."""
    found = {}
    for path in sorted([*ROOT.glob("harness/*/**/*.py"), *ROOT.glob("leaderboard/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_tasks" not in parts:
            name = ".".join(part for part in parts if part != "__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def package_imports() -> dict[str, set[str]]:
    """Return for every package which others it imports."""
    edges: dict[str, set[str]] = {name: set() for floor in FLOORS for name in floor}
    for name, tree in modules().items():
        own = package_of(name)
        edges[own] |= {package_of(other) for other in imports_of(tree)} - {own, ""}
    return edges


def reduced(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the edges of an acyclic graph that do not follow from others."""

    def below(name: str) -> set[str]:
        return edges[name].union(*(below(other) for other in edges[name]))

    return [(a, b) for a in edges for b in sorted(edges[a]) if not any(b in below(c) for c in edges[a] - {b})]


def draw() -> str:
    """Return the SVG."""
    at, parts = {}, []
    for floor, names in enumerate(reversed(FLOORS)):
        for i, name in enumerate(names):
            at[name] = (20 + 135 + (i * 2 - len(names) + 1) * (WIDTH + GAP) // 2, 20 + floor * (HEIGHT + GAP))
    for a, b in reduced(package_imports()):
        (x1, y1), (x2, y2) = at[a], at[b]
        start, end = (x1 + WIDTH // 2, y1 + HEIGHT), (x2 + WIDTH // 2, y2)
        if y1 == y2:  # neighbours on one floor: from side to side
            right = x1 < x2
            start = (x1 + WIDTH * right, y1 + HEIGHT // 2)
            end = (x2 + WIDTH * (not right), y2 + HEIGHT // 2)
        parts.append(f'<path class="a" d="M{start[0]} {start[1]} L{end[0]} {end[1]}" marker-end="url(#h)"/>')
    for name, (x, y) in at.items():
        parts.append(f'<rect class="p" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>')
        parts.append(f'<text class="n" x="{x + WIDTH // 2}" y="{y + 19}">{name}</text>')
        parts.append(f'<text class="c" x="{x + WIDTH // 2}" y="{y + 36}">{CONTENT[name]}</text>')
    left, step = 600, 120
    for i, (stage, source, target, package) in enumerate(STAGES):
        y = 20 + i * step
        if i == 0:
            parts.append(f'<text class="f" x="{left + 115}" y="{y + 12}">{source}</text>')
        parts.append(f'<path class="a" d="M{left + 115} {y + 18} v14" marker-end="url(#h)"/>')
        parts.append(f'<rect class="s" x="{left}" y="{y + 38}" width="{WIDTH}" height="{HEIGHT}" rx="23"/>')
        parts.append(f'<text class="n" x="{left + 115}" y="{y + 57}">{i + 1}. {stage}</text>')
        parts.append(f'<text class="c" x="{left + 115}" y="{y + 74}">in {package}</text>')
        parts.append(f'<path class="a" d="M{left + 115} {y + 84} v18" marker-end="url(#h)"/>')
        parts.append(f'<text class="f" x="{left + 115}" y="{y + 118 + 14}">{target}</text>')
    height = 20 + len(STAGES) * step + 30
    style = (
        "text{font:12px system-ui,sans-serif;text-anchor:middle;fill:#222}.n{font-weight:600;font-size:14px}"
        ".c{fill:#555}.f{font-family:monospace}.p{fill:#eef3fb;stroke:#4a6fa5}.s{fill:#f3f7ee;stroke:#6a8f3c}"
        ".a{stroke:#777;fill:none}@media (prefers-color-scheme:dark){svg{background:#fff}}"
    )
    head = (
        '<marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#777"/></marker>'
    )
    title = "Packages of steerboard and their imports, and the five stages that a generation record goes through"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" role="img" aria-label="{title}">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n<defs>{head}</defs>\n" + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    print(draw(), end="")
