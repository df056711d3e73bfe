"""The content of results.json, and the samples beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import describe
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.answers import answers
from ropewalk.eval.measure.columns import Column, precision
from ropewalk.eval.measure.forward import how_measured
from ropewalk.eval.measure.inputs import Evaluation, Inputs
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Result, digest, prompt_hash
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import EvalSuite, Sample, Task
from ropewalk.train.rope.plan import hash_of

RESULTS = "results.json"
SCHEMA = 2


def content(
    evaluation: Evaluation, results: Mapping[str, Mapping[str, Result]], rope: dict[str, Any]
) -> dict[str, Any]:
    """The content of `results.json`. `rope`: that of `rope.json`."""
    reference = evaluation.reference
    rows = rows_of(evaluation, results)
    suite = evaluation.inputs[reference].suite
    return {
        "schema": SCHEMA,
        "seed": suite.seed,
        "reference": reference,
        "judged": evaluation.judged,
        "base_window": suite.base_window,
        "length": suite.length,
        "documents": len({window.origin for window in suite.windows}),
        "windows": len(suite.windows),
        "layout": suite.layout,
        "targets": suite.targets,
        "columns": {
            column.label: column_facts(column, evaluation) for column in evaluation.columns
        },
        "models": rows,
        **judgement(evaluation, rows),
        "notes": notes(evaluation, rope),
    }


def judgement(evaluation: Evaluation, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Gates and answers of the judged column; without gates `not_judged` says why."""
    judged, reference, inputs = evaluation.judged, evaluation.reference, evaluation.inputs
    reason = not_judged(evaluation)
    if reason is not None or judged is None:
        facts = answers([], rows.get(judged or "", {}), reason)
        return {"not_judged": reason, "gates": [], "answers": facts}
    same = {label: part for label, part in rows.items() if inputs[label] is inputs[judged]}
    gates = suites.gates(same, inputs[judged].suite, reference, judged)
    inside = inside_only(evaluation)
    if not gates:
        reason = (
            "eval.tasks has no task with a gate; add context_gain, window_loss or short_context"
        )
    facts = answers(gates, rows[judged], inside_only=inside)
    return {"not_judged": reason, "gates": gates, "answers": facts}


def not_judged(evaluation: Evaluation) -> str | None:
    """Why no gate is made."""
    judged, reference, inputs = evaluation.judged, evaluation.reference, evaluation.inputs
    if judged is None:
        return f"there is no column beside {reference} that could be judged"
    if inputs[judged] is not inputs[reference]:
        return f"{judged} has another tokenizer than {reference}, so their tokens are not paired"
    return None


def inside_only(evaluation: Evaluation) -> str | None:
    """Why only the cost inside the window is judged."""
    reference = evaluation.reference
    suite = evaluation.inputs[reference].suite
    if suite.length > suite.base_window:
        return None
    return (
        f"eval.length is {suite.length:,}, no longer than the window of {reference}, "
        f"{suite.base_window:,}: nothing past it is measured"
    )


def rows_of(
    evaluation: Evaluation, results: Mapping[str, Mapping[str, Result]]
) -> dict[str, dict[str, Any]]:
    """The rows by column and task, with differences to the reference where both read the same
    tokens."""
    rows: dict[str, dict[str, Any]] = {}
    for label in results:
        if label in rows:
            continue
        inputs = evaluation.inputs[label]
        group = {key: part for key, part in results.items() if evaluation.inputs[key] is inputs}
        rows |= suites.rows(inputs.suite, inputs.samples, group, evaluation.reference)
    return {label: rows[label] for label in results}


def column_facts(column: Column, evaluation: Evaluation) -> dict[str, Any]:
    """What a column is, and how it was measured."""
    config, inputs = evaluation.config, evaluation.inputs[column.label]
    how, suite = how_measured(config), inputs.suite
    return {
        "model": column.model,
        "identity": column.identity,
        "rope": column.plan.method,
        "rope_hash": hash_of(column.plan.json()),
        "window": column.plan.max_position_embeddings,
        "dtype": how["precision"],
        "backend": config.eval.backend,
        "sp_size": config.eval.sp_size,
        "kernel": how["kernel"],
        "device": how["device"],
        "batch_tokens": config.eval.batch_tokens,
        "chunk_tokens": config.eval.chunk_tokens,
        "tokenizer": inputs.tokenizer,
        "begin": suite.boundary_tokens.begin,
        "end": suite.boundary_tokens.end,
        "windows": len(suite.windows),
        "haystack": suite.haystack_hash,
        "prompts": {
            task: prompt_hash(s.request for s in part if s.is_asked(column.label))
            for task, part in inputs.samples.items()
        },
    }


def write_samples(folder: Path, label: str, inputs: Inputs, results: Mapping[str, Result]) -> None:
    """The results of a column sample by sample, which a comparison pairs without the models."""
    store = ResultStore(folder)
    store.extend(results)
    tasks = {task.name: task for task in TASKS}
    lines = [
        _line(tasks[task], sample, inputs.suite, results)
        for task, part in inputs.samples.items()
        for sample in part
        if sample.is_asked(label)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


def _line(
    task: Task, sample: Sample, suite: EvalSuite, results: Mapping[str, Result]
) -> dict[str, Any]:
    """`scores`: of each prompt, where the task scores them."""
    name = digest(sample.request)
    line = {"task": task.name, "id": sample.id, "unit": sample.unit, "request": name}
    scores = task.scores(suite, sample, results[name])
    return {**line, **sample.facts, **({"scores": scores} if scores else {})}


def notes(evaluation: Evaluation, rope: dict[str, Any]) -> list[str]:
    """Caveats that a reader of the numbers must know. `rope`: the content of `rope.json`."""
    config = evaluation.config
    layout = evaluation.inputs[evaluation.reference].suite.layout
    lines = [
        f"Held-out documents are chosen by a hash of their id ({config.data.heldout_share:.0%} of "
        "them); intervals are 95%, bootstrapped over documents.",
        f"Held-out {describe(layout)}.",
    ]
    if config.eval.run_models is not False:
        lines += training_notes(config, rope)
    lines += column_notes(evaluation)
    if evaluation.base.scratch is not None:
        text = "This run makes a base from scratch: there is no model before it to compare with."
        lines.append(text)
    if precision(config) == "bf16":
        lines.append("The models were measured in bf16.")
    return lines


def training_notes(config: Config, rope: dict[str, Any]) -> list[str]:
    """What training and calibration have seen of the measurements."""
    lines, sources = [], config.data.sources
    synthetic = [name for name, source in sources.items() if source.kind in SYNTHETIC]
    if synthetic:
        shares = ", ".join(f"{name} {sources[name].weight:g}" for name in synthetic)
        lines.append(
            f"The training mixture has synthetic retrieval ({shares} of the tokens' weight): "
            "passkey here measures a task of the same form as in training, on text and keys that "
            "training has not seen."
        )
    if documents := rope.get("calibrated_on"):
        lines.append(
            f"The rope plan was calibrated on {len(documents)} of the held-out documents, which "
            "are measured here again; the calibration's own figures are of other documents."
        )
    return lines


def column_notes(evaluation: Evaluation) -> list[str]:
    """Columns that are measured beyond their window, or with another tokenizer."""
    lines, reference = [], evaluation.reference
    shared = evaluation.inputs[reference]
    for label in evaluation.config.eval.models:
        (column,) = (c for c in evaluation.columns if c.label == label)
        inputs, window = evaluation.inputs[label], column.plan.max_position_embeddings
        if inputs.suite.length > window:
            lines.append(
                f"{label} is made for {window:,} tokens and was measured beyond them on purpose, "
                f"up to {inputs.suite.length:,} (eval.models.{label}.beyond_window)."
            )
        if inputs is not shared:
            lines.append(
                f"{label} has another tokenizer than {reference}: the same documents from the same "
                f"characters on, in its own tokens ({len(inputs.suite.windows)} of "
                f"{len(shared.suite.windows)} windows are long enough). Compare it in bits per "
                "byte; its losses and lengths in tokens are not those of the others."
            )
    return lines
