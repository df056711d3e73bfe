"""Accuracy by length and depth as an HTML table for each model: length across, depth down."""

from collections.abc import Mapping
from typing import Any

from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.style import MODEL_TITLES, MODELS, Rows

TEMPLATE = """\
  <div class="maps">
{% for m in MODELS %}
{% set grid = grids[m] %}
    <div class="map">
{% if grid.lengths %}
      <table>
        <caption><span class="model {{ m }}">{{ titles[m] }}</span> <small>n = {{ grid.n }} per cell</small></caption>
        <thead><tr><th></th>{% for length in grid.lengths %}<th>{{ length|integer }}</th>{% endfor %}</tr></thead>
        <tbody>
{% for depth in grid.depths %}
          <tr><th scope="row">{{ depth|percent(0) }}</th>
{%- for length in grid.lengths %}
{% set cell = grid.cells[(length, depth)] %}
<td{% if cell %} class="{{ "full" if cell.accuracy > 0.7 }}" style="--v: {{ "%.3f"|format(cell.accuracy) }}" title="{{ cell.low|fixed(2) }} to {{ cell.high|fixed(2) }}, n = {{ cell.n|integer }}"{% endif %}>{{ cell.accuracy|fixed(2) }}</td>
{%- endfor %}</tr>
{% endfor %}
        </tbody></table>
{% else %}
      <p><span class="model {{ m }}">{{ titles[m] }}</span></p><p class="notrun"><b>Not run.</b></p>
{% endif %}
    </div>
{% endfor %}
  </div>
  <div class="scale"><span>0</span><i></i><span>1</span><span>{{ legend }}</span></div>
"""  # noqa: E501


def heat_maps(rows: Mapping[str, Rows], legend: str) -> str | None:
    """`rows` by model: length, depth, n, accuracy, low, high. None without any."""
    if not rows:
        return None
    grids = {name: _grid(rows.get(name, [])) for name in MODELS}
    template = formats.environment().from_string(TEMPLATE)
    return template.render(MODELS=MODELS, titles=MODEL_TITLES, grids=grids, legend=legend)


def _grid(rows: Rows) -> dict[str, Any]:
    """Lengths, depths, and the cell of each pair that was run."""
    tries = sorted({row["n"] for row in rows})
    return {
        "lengths": sorted({row["length"] for row in rows}),
        "depths": sorted({row["depth"] for row in rows}),
        "cells": {(row["length"], row["depth"]): row for row in rows},
        "n": " to ".join(f"{n:,}" for n in sorted({*tries[:1], *tries[-1:]})),
    }
