"""The results of the evaluation as the page shows them: columns, the five questions, tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ropewalk.eval.report.figures.columns import in_order
from ropewalk.eval.report.figures.style import MODELS
from ropewalk.eval.report.formats import as_text
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import Task

Json = Mapping[str, Any]

OWN_SECTIONS = ("nll_by_position", "perplexity", "context_gain", "passkey")
"""Tasks with a section of their own in report.html.j2."""
PROTOCOL = (
    *("unit", "protocol", "interval", "draws", "data", "haystack", "haystack_hash", "prompt_hash"),
    *("words_hash", "seed", "dtype", "backend", "chunk", "rope_hash", "tokenizer", "shots", "bos"),
)
"""Keys of a row that say how it was measured; the page shows them under the table."""
MOST_VALUES = 4  # of one such key
MOST_ITEMS = 8  # of a list in a cell


def shown(results: Json) -> list[str]:
    """The columns of the page in order: those of a run always, others where they were measured."""
    measured = list(results.get("models") or {})
    return in_order(measured if set(measured) - set(MODELS) else MODELS)


def rows_by_column(results: Json, columns: Iterable[str], task: str) -> dict[str, Any]:
    """The rows of a task by column, without empty ones."""
    models = results.get("models") or {}
    rows = {name: (models.get(name) or {}).get(task) for name in columns}
    return {name: value for name, value in rows.items() if value}


def column_facts(results: Json) -> list[str]:
    """Keys of what each column is, but for values that are no single text or number."""
    facts = [row for row in (results.get("columns") or {}).values() if row]
    keys = dict.fromkeys(key for row in facts for key in row)
    return [key for key in keys if not any(isinstance(r.get(key), list | dict) for r in facts)]


def sections(rows: Mapping[str, Any], config: Json) -> list[Task]:
    """The tasks with a section: those measured, and those that the run asks for.

    A run that does not say what it asks for is taken to ask for those of OWN_SECTIONS.
    """
    asked = (config.get("eval") or {}).get("tasks") or OWN_SECTIONS
    return [task for task in TASKS if rows[task.name] or task.name in asked]


@dataclass(frozen=True)
class Table:
    """Rows of any task as text: equal protocols are said once, under the table."""

    head: list[str]
    body: dict[str, list[list[str]]]
    """By column. A cell that a row lacks is empty."""
    protocol: dict[str, str]
    reasons: list[str]
    """Why values are not measurable."""


def table(rows: Mapping[str, Any]) -> Table | None:
    """`rows` by column: lists of flat dicts. None without any, or for rows of another form."""
    lists = {name: part for name, part in rows.items() if isinstance(part, list)}
    every = [row for row in chain.from_iterable(lists.values()) if isinstance(row, Mapping)]
    if not every:
        return None
    keys = list(dict.fromkeys(key for row in every for key in row))
    intervals = [key for key in keys if key.endswith("low") and f"{key[:-3]}high" in keys]
    hidden = {*intervals, *(f"{key[:-3]}high" for key in intervals), "reason", "keys"}
    hidden |= {*PROTOCOL, *_equal_texts(every, keys)}
    values = [key for key in keys if key not in hidden]
    shown_keys = _with_intervals(values, intervals)
    reasons = dict.fromkeys(_reason(row) for row in every if row.get("reason"))
    return Table(
        head=[_title(key) for key in shown_keys],
        body={name: [_cells(row, shown_keys) for row in part] for name, part in lists.items()},
        protocol=_protocol(every, [*PROTOCOL, *_equal_texts(every, keys)]),
        reasons=list(reasons),
    )


def _reason(row: Json) -> str:
    return str(row["reason"]).removeprefix("not measurable: ")


def _with_intervals(values: Sequence[str], intervals: Sequence[str]) -> list[str]:
    """Each interval `X_low` behind its value X; that of `low` behind the value that it is of."""
    keys = list(values)
    for interval in intervals:
        prefix = interval[:-4]
        index = keys.index(prefix) + 1 if prefix in keys else len(keys)
        keys.insert(index, interval)
    return keys


def _title(key: str) -> str:
    if key.endswith("low"):
        return f"{key[:-4]} interval".strip().replace("_", " ")
    return key.replace("_", " ")


def _cells(row: Json, keys: Sequence[str]) -> list[str]:
    return [_interval(row, key) if key.endswith("low") else _cell(row, key) for key in keys]


def _cell(row: Json, key: str) -> str:
    """Text of a value: empty where the row has no such key, and "not measurable" for a null."""
    if key not in row:
        return ""
    value = row[key]
    if value is None:
        return "not measurable" if row.get("reason") else ""
    if isinstance(value, list | dict) and len(value) > MOST_ITEMS or _is_nested(value):
        return f"{len(value):,} lists" if _is_nested(value) else f"{len(value):,} values"
    return as_text(value)


def _is_nested(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(part, list | dict) for part in value)


def _interval(row: Json, key: str) -> str:
    low, high = row.get(key), row.get(f"{key[:-3]}high")
    return "" if low is None or high is None else f"{as_text(low)} to {as_text(high)}"


def _equal_texts(rows: Sequence[Json], keys: Sequence[str]) -> list[str]:
    """Keys of texts that are the same in every row: they say how all were measured."""

    def is_equal(key: str) -> bool:
        values = {row.get(key) if isinstance(row.get(key), str) else None for row in rows}
        return len(values) == 1 and None not in values

    return [key for key in keys if key not in (*PROTOCOL, "reason", "text") and is_equal(key)]


def _protocol(rows: Sequence[Json], keys: Sequence[str]) -> dict[str, str]:
    """Each key with its values; of many, how many there are."""
    texts = {}
    for key in keys:
        values = list(dict.fromkeys(as_text(r[key]) for r in rows if r.get(key) not in (None, "")))
        if values:
            many = len(values) > MOST_VALUES
            texts[key.replace("_", " ")] = f"{len(values)} values" if many else "; ".join(values)
    if unit := texts.get("unit"):
        texts["intervals"] = f"95%, by {unit}"
    if counts := [row["n"] for row in rows if isinstance(row.get("n"), int) and row["n"]]:
        ends = sorted({min(counts), max(counts)})
        texts["n"] = " to ".join(f"{count:,}" for count in ends)
    return texts
