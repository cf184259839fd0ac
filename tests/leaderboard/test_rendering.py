"""What templates leave to functions, for speed, is what a template would write."""

from __future__ import annotations

from leaderboard.charts import template_environment
from leaderboard.rendering import TableCell, table_cells, text_marks
from leaderboard.views.samples import Mark

CELLS = [TableCell("0.512", "0.512345"), TableCell("–"), TableCell('<b>ሰላም</b> & "שלום"', "'x'", "small")]
MARKS = (Mark("valid", off=False), Mark("not valid: <i>ዕብራይስጥ</i>", off=True), Mark("judged 'חיובי'", off=True))


def test_cells_of_a_row():
    loop = '{% for cell in cells %}<td data-v="{{ cell.sort }}">{{ cell.text }}</td>{% endfor %}'
    for cells in (CELLS, CELLS[:1], []):
        assert table_cells(cells) == template_environment().from_string(loop).render(cells=cells)


def test_marks_of_a_text():
    loop = '{% for mark in marks %}<bdi{% if mark.off %} class="off"{% endif %}>{{ mark.words }}</bdi>{% endfor %}'
    for marks in (MARKS, MARKS[:1], ()):
        assert text_marks(marks) == template_environment().from_string(loop).render(marks=marks)
