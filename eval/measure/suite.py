"""The inputs that all models share, and the loops over the tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.requests import Request, Result, digest
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import ColumnFacts, EvalSuite, Measured, Sample, Task, Verdict
from ropewalk.train.rope.plan import RopePlan


def build_suite(config: Config, plan: RopePlan, data: DataArtifacts) -> EvalSuite:
    """The suite of a run. Raises: DataError when no held-out document has `eval.length` tokens."""
    length = config.eval.length or plan.max_position_embeddings
    heldout = data.heldout_text(config.data)
    windows = heldout.windows(length, config.eval.windows, config.eval.windows_per_document)
    if not windows:
        raise DataError(
            f"eval.length is {length}; no held-out document has that many tokens; raise "
            f"data.heldout_share (now {config.data.heldout_share}), add longer documents or lower "
            "eval.length"
        )
    tokenizer = tokenizers.load(
        str(data.tokenizer), trust_remote_code=config.model.trust_remote_code
    )
    return EvalSuite(
        config=config.eval,
        base_window=plan.base_window,
        length=length,
        windows=windows,
        fillers=heldout.texts(),
        encode=tokenizers.text_encoder(tokenizer),
        decode=tokenizers.text_decoder(tokenizer),
        chat=tokenizers.chat_encoder(tokenizer),
        seed=config.seed,
        boundary_tokens=heldout.boundary_tokens,
        layout=heldout.layout(windows),
        documents=heldout.documents(),
        bos=tokenizers.bos_id(tokenizer),
    )


def facts_of(plan: RopePlan) -> ColumnFacts:
    return ColumnFacts(plan.max_position_embeddings, plan.short_inv_freq is not None)


def tasks(suite: EvalSuite) -> list[Task]:
    """The tasks of `eval.tasks`, in the order of the page."""
    return [task for task in TASKS if task.name in suite.config.tasks]


def build_samples(suite: EvalSuite) -> dict[str, Sequence[Sample]]:
    """The samples of every task by its name. Raises: DataError."""
    return {task.name: task.samples(suite) for task in tasks(suite)}


def requests_of(samples: Mapping[str, Sequence[Sample]], column: str) -> Iterator[Request]:
    """What a column is asked for all tasks."""
    return (s.request for part in samples.values() for s in part if s.is_asked(column))


def rows(
    suite: EvalSuite,
    samples: Mapping[str, Sequence[Sample]],
    results: Mapping[str, Mapping[str, Result]],
) -> dict[str, dict[str, Any]]:
    """The rows by column and task. `results`: of each column, by the digests of the requests."""
    rows_of: dict[str, dict[str, Any]] = {label: {} for label in results}
    for task in tasks(suite):
        columns = {
            label: measured(suite, samples[task.name], by_request, label)
            for label, by_request in results.items()
        }
        for label, column in columns.items():
            of_base = paired_results(column, columns.get("base"))
            rows_of[label][task.name] = task.rows(replace(column, base=of_base, by_column=columns))
    return rows_of


def measured(
    suite: EvalSuite, samples: Sequence[Sample], results: Mapping[str, Result], label: str
) -> Measured:
    """What a column was asked, and its results."""
    asked = [sample for sample in samples if sample.is_asked(label)]
    return Measured(suite, asked, [results[digest(s.request)] for s in asked], label=label)


def paired_results(column: Measured, base: Measured | None) -> list[Result] | None:
    """The base's results of a column's samples; None of the base itself, and if it lacks one."""
    if base is None or column.label == "base":
        return None
    of_base = dict(zip((s.id for s in base.samples), base.results, strict=True))
    names = [sample.id for sample in column.samples]
    return [of_base[name] for name in names] if of_base.keys() >= set(names) else None


def verdicts(models: Mapping[str, Any], window: int, length: int) -> list[Verdict]:
    """The verdicts of every task; empty without a base to compare with or a longer context."""
    if "base" not in models or "extended" not in models or length <= window:
        return []
    checks = []
    for task in TASKS:
        rows = {label: model[task.name] for label, model in models.items() if model.get(task.name)}
        if "base" in rows and "extended" in rows:
            checks += task.verdicts(rows, window, length)
    return checks
