"""The report: a run folder's artifacts in, one self-contained HTML page out.

Nothing is measured here. A missing value is shown as "not run" or a dash;
an artifact that cannot be read is refused by name. Every sentence is computed from the same
numbers as its figure.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from ropewalk.conf.errors import DataError
from ropewalk.eval.report import anchors, formats
from ropewalk.eval.report import results as tables
from ropewalk.eval.report.answers import answers
from ropewalk.eval.report.figures import calibration, data, rope, training
from ropewalk.eval.report.figures.columns import column_styles, column_title, page_columns
from ropewalk.eval.report.figures.style import Drawing, narrow_figures
from ropewalk.eval.report.sentences import model_line
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.context_gain import reference_context

SCHEMA, RESULTS_SCHEMA = 1, 2
ARTIFACTS = {"data": "ledger", "rope": "rope", "train": "metrics", "eval": "results"}
"""Name of the artifact of each stage in `load`."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Report:
    html: str
    figures: dict[str, str]

    def write(self, folder: Path) -> None:
        """index.html, and figures/NAME.svg and NAME.png of every figure."""
        (folder / "index.html").write_text(self.html, encoding="utf-8")
        (folder / "figures").mkdir(exist_ok=True)
        drawings = {n: d for n, d in self.figures.items() if isinstance(d, Drawing)}
        for name, drawing in drawings.items():
            for suffix, content in drawing.files().items():
                (folder / "figures" / f"{name}.{suffix}").write_bytes(content)


def make(run_dir: Path, leave_out: Sequence[str] = (), phone: bool = True) -> Report:
    """The report of one run folder; the same artifacts give the same bytes.

    `leave_out`: stages whose artifacts are not shown (train, eval, calibration).
    `phone`: whether each figure is also drawn for a narrow screen.
    Raises: DataError when an artifact cannot be read.
    """
    run = load(run_dir, leave_out)
    values = derived(run, phone)
    figures: dict[str, str] = values["figures"]
    inline = {name: Markup(drawing) for name, drawing in figures.items()}
    template = formats.template("ropewalk.eval.report", "report.html.j2")
    return Report(template.render(**{**run, **values, "figures": inline}), figures)


def render(run_dir: Path, leave_out: Sequence[str] = ()) -> str:
    """The page for a wide screen."""
    return make(run_dir, leave_out, phone=False).html


def source_files() -> list[Path]:
    """Code and template that decide the page, so that a change of them renders it again."""
    folders = ("ropewalk.eval.report", "ropewalk.eval.report.figures", "ropewalk.eval.tasks")
    paths = [Path(str(path)) for name in folders for path in resources.files(name).iterdir()]
    paths.append(Path(str(resources.files("ropewalk.eval").joinpath("anchors.yaml"))))
    return sorted(path for path in paths if path.suffix in (".py", ".j2", ".yaml"))


def load(run_dir: Path, leave_out: Sequence[str] = ()) -> Json:
    """Every artifact by its name; a missing one is empty."""
    config_text = _text(run_dir / "config.yaml")
    config, manifest = _config(config_text), _artifact(run_dir / "manifest.json")
    trained = "train" not in leave_out
    earlier = (manifest.get("phases") or []) if trained else []
    last = _phase(run_dir, config.get("name"), trained)
    all_phases = [*(_phase(run_dir / phase["folder"], phase["name"]) for phase in earlier), last]
    results = {
        folder: {} if folder in leave_out else _artifact(run_dir / folder / "results.json", schema)
        for folder, schema in (("eval", RESULTS_SCHEMA), ("calibration", SCHEMA))
    }
    return {
        **last,
        "name": config.get("name") or run_dir.resolve().name,
        "config_text": config_text,
        "config": config,
        "metrics": training.join_metrics([phase["metrics"] for phase in all_phases]),
        "phases": [training.phase_row(phase) for phase in all_phases] if earlier else [],
        "results": results["eval"],
        "calibration": results["calibration"],
        "manifest": manifest,
    }


def _config(text: str) -> Json:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(
            f"config.yaml is not YAML ({error}); it must be the run's frozen config; restore it"
        ) from None
    return config if isinstance(config, dict) else {}


def _phase(folder: Path, name: str | None, trained: bool = True) -> Json:
    """The artifacts of one phase that the page shows; `repeated`: metrics lines written again."""
    metrics, repeated = _metrics(folder / "train" / "metrics.jsonl") if trained else ([], 0)
    return {
        "name": name,
        "rope": _artifact(folder / "rope.json"),
        "ledger": _artifact(folder / "data" / "ledger.json"),
        "metrics": metrics,
        "repeated": repeated,
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _without_nulls(entries: Json) -> Json:
    """The entries that are not null: a null means the same as a missing key.

    Beside a reason it means that the value cannot be measured, and stays.
    """
    if entries.get("reason"):
        return entries
    return {key: value for key, value in entries.items() if value is not None}


def _parse(text: str, name: str) -> Json:
    try:
        value = json.loads(text, object_hook=_without_nulls)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name} is not JSON ({error}); it must be as its stage wrote it; run that stage again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{name} is {type(value).__name__}; it must be a JSON object; run its stage again"
        )
    return value


def _artifact(path: Path, schema: int = SCHEMA) -> Json:
    text = _text(path)
    value = _parse(text, path.name) if text else {}
    if value.get("schema", schema) != schema:
        eval_ = schema == RESULTS_SCHEMA
        way_out = "measure again with ropewalk eval" if eval_ else "use the version that wrote it"
        raise DataError(
            f"{path.name} schema is {value['schema']}; this report reads {schema}; {way_out}"
        )
    return value


def _metrics(path: Path) -> tuple[list[Json], int]:
    """The last line of each step, and how many lines a resumed run repeated; events are skipped."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    rows = [_parse(line, f"{path.name} line {number}") for number, line in enumerate(lines, 1)]
    rows = [row for row in rows if "event" not in row]
    steps = {row["step"]: row for row in rows}
    return [steps[step] for step in sorted(steps)], len(rows) - len(steps)


def derived(run: Json, phone: bool = True) -> Json:
    """Figures, sentences and tables that are computed from the artifacts."""
    results, metrics = run["results"], run["metrics"]
    columns, window = tables.shown(results), results.get("base_window")
    rows = {task.name: tables.rows_by_column(results, columns, task.name) for task in TASKS}
    sections = tables.sections(rows, run["config"])
    dimensions, width = rope.dimensions(run["rope"]), max(1, len(metrics) // 20)

    def figures() -> Json:
        of_tasks = {task.name: task.figure(rows[task.name], window) for task in TASKS}
        drawn = {**_figures(run, dimensions, width), **of_tasks}
        return {name: drawing for name, drawing in drawn.items() if drawing}

    with page_columns(columns):
        wide = figures()
        with narrow_figures():
            drawn = figures() if phone else {}
        readings = {
            **_readings(run, dimensions, width),
            **{task.name: task.reading(rows[task.name], window) for task in TASKS},
        }
    return {
        "columns": columns,
        "styles": column_styles(columns),
        "title": column_title,
        "facts": tables.column_facts(results),
        "sections": [task for task in sections if task.name not in tables.OWN_SECTIONS],
        "own_sections": {task.name for task in sections} & set(tables.OWN_SECTIONS),
        "unmeasured": [task.title for task in TASKS if task not in sections],
        "rows": rows,
        "answers": answers(results),
        "checks": [row for row in results.get("gates") or [] if not row.get("question")],
        "anchors": {task.name: anchors.beside(rows[task.name]) for task in TASKS},
        "tables": {task.name: tables.table(rows[task.name]) for task in TASKS},
        "models": results.get("models") or {},
        "window": window,
        "reference": reference_context(rows["context_gain"], window),
        "dimensions": dimensions,
        "width": width,
        "model_line": model_line(run["config"], run["rope"]),
        "figures": wide,
        "narrow": {n: Markup(svg) for n, svg in drawn.items() if svg.startswith("<svg")},
        "readings": readings,
        "lengths": sorted({n for values in rows["perplexity"].values() for n in values}, key=float),
        "stages": stage_rows(run),
        "methods": calibration.rows(run["calibration"]),
        "left_out": data.left_out(run["ledger"]),
        "cleaning": data.cleaning(run["ledger"]),
    }


def _figures(run: Json, dimensions: list[Json], width: int) -> Json:
    """Figures of everything but the tasks, by name."""
    return {
        "rope": rope.wavelengths(run["rope"], dimensions),
        "training": training.curves(run["metrics"], width),
        "by_position": training.by_position(run["metrics"], width),
        **calibration.figures(run["calibration"]),
        **data.figures(run["ledger"]),
    }


def _readings(run: Json, dimensions: list[Json], width: int) -> Json:
    """Sentences of everything but the tasks, by the names of their figures."""
    return {
        "rope": rope.reading(dimensions),
        "calibration": calibration.reading(run["calibration"]),
        "lengths": data.lengths_reading(run["ledger"]),
        "own": data.own_reading(run["ledger"]),
        "training": training.loss_reading(run["metrics"], width),
        "by_position": training.reading(run["metrics"]),
    }


def stage_rows(run: Json) -> list[Json]:
    """The recorded stages in their order, then the expected ones that are not recorded."""
    recorded = run["manifest"].get("stages") or {}
    rows = [{"name": name, "state": "done", **entry} for name, entry in recorded.items()]
    for name, artifact in ARTIFACTS.items():
        if name not in recorded:
            rows.append({"name": name, "state": "not recorded" if run[artifact] else "not run"})
    return rows
