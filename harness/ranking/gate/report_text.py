"""What the gate says, for people: in the terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, print_table
from harness.ranking.gate.report import GateReport, GateRow, GateVerdict
from harness.ranking.render import escaped
from harness.ranking.summary import digits_of, format_interval, format_number, format_signed, p_value, strip_control

HEADS = ("entry", "metric", "baseline", "run", "difference [95 %]", "p", "bound", "visible", "verdict")

_WORDS = {"entry", "metric", "verdict"}
_DROPPED = {"p": 1, "bound": 2, "visible": 3, "baseline": 4, "run": 4}  # what is left out where it is narrow
_STYLES = {"better": "green", "worse": "bold red", "cannot tell": "yellow"}
_MARKS: dict[GateVerdict, str] = {"worse": "❌", "cannot tell": "❓", "better": "✅", "same": "✅"}
_ORDER: tuple[GateVerdict, ...] = ("worse", "cannot tell", "better", "same")
_MOST = 60_000  # characters; GitHub takes 65,536 in a comment

EXPLAINED = (
    "worse or better: p, one-sided and corrected for the number of lines by Holm, is at most 0.05, and the "
    "difference exceeds the bound, which 19 of 20 pairs of equal runs stay below. visible: the smallest loss "
    "that would have been found in 80 of 100 such runs; where it is above the tolerance, the line cannot "
    "tell. Losses of the headline metric are corrected by themselves and have 3/5 of the 0.05; what the "
    "other metrics could not have seen does not decide."
)
_ASIDE = "does not decide"


def count_verdicts(report: GateReport) -> str:
    """Return how many lines have which verdict, in words."""
    counts = Counter(_said(line) for line in report.lines)
    return ", ".join(f"{counts[words]} {words}" for words in sorted(counts, key=_rank))


def _said(line: GateRow) -> str:
    """Return the verdict of a line, and whether it does not decide."""
    return line.verdict if line.decides or line.verdict != "cannot tell" else f"{line.verdict} ({_ASIDE})"


def _rank(words: str) -> tuple[int, bool]:
    return next(i for i, verdict in enumerate(_ORDER) if words.startswith(verdict)), words.endswith(")")


def cells(line: GateRow) -> tuple[str, ...]:
    """Return a line as words under ``HEADS``; names are as they were given."""
    digits = digits_of(line.metric.name)
    visible = "–" if line.findable is None or line.findable == float("inf") else format_number(line.findable, digits)
    return (
        line.entry,
        line.metric.title,
        format_number(line.base, digits),
        format_number(line.new, digits),
        format_interval(line.difference, digits),
        p_value(line.p),
        format_number(line.bound, digits),
        visible,
        f"{_said(line)}: {line.reason}" if line.reason else _said(line),
    )


def remarks(report: GateReport) -> Iterator[str]:
    """Yield, in words, all that is no line."""
    for name, words in report.flags:
        yield f"worse: new flag of {name}: {words}"
    for name in report.absent:
        yield f"cannot tell: the run lacks {name}, which the baseline has"
    if report.fresh:
        yield f"without a baseline, not judged: {', '.join(report.fresh)}"
    identical = [line for line in report.lines if line.reason == "identical"]
    if identical:
        yield f"identical in every cell: {len(identical)} of {len(report.lines)} lines"
    hows = dict.fromkeys(line.how for line in report.lines if line.how)
    if hows:
        yield f"seeds: {'; '.join(hows)}"
    yield from _chances(report)
    yield from report.notes
    yield from (f"{what}: {one} → {other}" for what, one, other in report.environment)


def _chances(report: GateReport) -> Iterator[str]:
    """Yield what more seeds would change: of a metric that decides, for the entry with the least chance."""
    least: dict[str, GateRow] = {}
    for line in report.lines:
        if line.chances and line.decides:
            least.setdefault(line.metric.name, line)
            least[line.metric.name] = min(line, least[line.metric.name], key=lambda each: each.chances[0][1])
    for line in least.values():
        (now, first), *more = line.chances
        loss = format_number(line.tolerance, digits_of(line.metric.name))
        words = [f"with {seeds} in {_of_100(found)}" for seeds, found in more]
        yield (
            f"{line.metric.title}: with {now} seeds a loss of {loss} would be found in {_of_100(first)} of "
            f"100 runs, {', '.join(words)} (of all entries, {line.entry} has the least chance)"
        )


def _of_100(chance: float) -> int:
    return int(100 * chance + 1e-9)


def shown(report: GateReport) -> list[GateRow]:
    """Return the lines that have something to say, the worst first."""
    lines = [line for line in report.lines if line.reason != "identical"]
    return sorted(lines, key=lambda line: _rank(_said(line)))


def headline(report: GateReport) -> str:
    """Return the verdict in one line."""
    why = report.reason or count_verdicts(report)
    return f"{report.verdict}: {why}" if why else report.verdict


def print_report(console: Console, report: GateReport) -> None:
    """Print the verdict, the lines that are not identical, and remarks."""
    console.print(Text(f"run: {strip_control(report.run)}\nbaseline: {strip_control(report.against)}"))
    lines = shown(report)
    if lines:
        columns = [TerminalColumn(head, words=head in _WORDS, drop=_DROPPED.get(head, 0)) for head in HEADS]
        rows: list[list[str | Text]] = []
        for line in lines:
            *first, verdict = (strip_control(cell) for cell in cells(line))
            rows.append([*first, Text(verdict, style=_STYLES.get(line.verdict, ""))])
        print_table(console, columns, rows)
    for remark in remarks(report):
        console.print(Text(f"- {strip_control(remark)}"))
    if lines:
        console.print(Text(EXPLAINED, style="dim"))
    console.print(Text(f"gate: {strip_control(headline(report))}", style=_STYLES.get(report.verdict, "bold")))


def as_markdown(report: GateReport) -> str:
    """Return the report as GitHub's Markdown, short enough for a comment; names can form no markup."""
    lines = shown(report)
    loud = [_row(line) for line in lines if line.verdict != "same"]
    quiet = [_row(line) for line in lines if line.verdict == "same"]
    head = [f"| {' | '.join(HEADS)} |", f"|---|---|{'---:|' * (len(HEADS) - 3)}---|"]
    text = [
        f"### {_MARKS[report.verdict]} gate: {report.verdict}",
        "",
        f"{escaped(report.suite)}, {escaped(report.run)} against {escaped(report.against)}: "
        f"{escaped(report.reason or count_verdicts(report))}.",
        "",
    ]
    text += [f"- {escaped(remark)}" for remark in remarks(report)]
    foot = ["", f"<sub>{EXPLAINED}</sub>"] if lines else []
    if loud:
        text += ["", *head, *_fitting(loud, _MOST // 2)]
    if quiet:
        rows = _fitting(quiet, _MOST // 3)
        text += ["", "<details><summary>same</summary>", "", *head, *rows, "", "</details>"]
    return "\n".join([*text, *foot]) + "\n"


def _row(line: GateRow) -> str:
    first, second, *numbers, verdict = cells(line)
    return f"| {' | '.join([escaped(first), escaped(second), *numbers, escaped(verdict)])} |"


def _fitting(rows: list[str], room: int) -> list[str]:
    """Return as many rows as fit, and a last one that says how many do not."""
    kept: list[str] = []
    for i, row in enumerate(rows):
        room -= len(row) + 1
        if room < 0:
            return [*kept, f"| and {len(rows) - i} more {'| ' * (len(HEADS) - 1)}|"]
        kept.append(row)
    return kept


def notable_rows(report: GateReport) -> Iterator[tuple[str, str]]:
    """Yield verdict and words of what a reviewer must see, the worst first."""
    yield from (("worse", f"{name}: {words}") for name, words in report.flags)
    for line in shown(report):
        if line.verdict == "worse" or (line.verdict == "cannot tell" and line.decides):
            yield line.verdict, f"{line.entry}, {line.metric.title}: {describe_row(line)}"
    yield from (("cannot tell", f"the run lacks {name}") for name in report.absent)
    if report.reason:
        yield "cannot tell", report.reason


def describe_row(line: GateRow) -> str:
    """Return what a line says, in words."""
    digits = digits_of(line.metric.name)
    if line.reason:
        return line.reason
    change = f"{format_number(line.base, digits)} → {format_number(line.new, digits)}"
    return f"{change} ({format_interval(line.difference, digits)}, bound {format_signed(line.bound, digits)})"
