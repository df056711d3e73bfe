"""The inputs that all models share, and the loops over the tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens, DataArtifacts
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.eval.measure import answers
from ropewalk.eval.measure.columns import Column
from ropewalk.eval.measure.gates import Verdict, judge
from ropewalk.eval.measure.other_tokenizer import OtherTokenizer
from ropewalk.eval.requests import Request, Result, digest
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import (
    ColumnFacts,
    Comparison,
    EvalSuite,
    Measured,
    Sample,
    Task,
    samples_of,
)
from ropewalk.train.rope.plan import RopePlan


def build_suite(
    config: Config, plan: RopePlan, data: DataArtifacts, other: Column | None = None
) -> EvalSuite:
    """The suite of a run. `plan`: of the column that the others are compared with.

    `other`: a column with another tokenizer, which reads the same documents from the same
    characters on.

    Raises: DataError when no held-out document has `eval.length` tokens.
    """
    length = config.eval.length or plan.max_position_embeddings
    heldout, settings = data.heldout_text(config.data), config.eval
    windows = heldout.windows(length, settings.windows, settings.windows_per_document)
    tokenizer = run_tokenizer(config, data)
    if other is not None and other.tokenizer is not None and windows:
        marks = boundary_tokens(config, other.tokenizer)
        change = OtherTokenizer(tokenizer, other.tokenizer, f"eval.models.{other.label}")
        windows = change.windows(windows, heldout, marks, length)
        heldout, tokenizer = change.heldout(heldout, marks), other.tokenizer
    if not windows:
        reader = f" under the tokenizer of {other.label}" if other else ""
        raise DataError(
            f"eval.length is {length}; no held-out document has that many tokens{reader}; raise "
            f"data.heldout_share (now {config.data.heldout_share}), add longer documents or lower "
            "eval.length"
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
        seed=config.seed if settings.seed is None else settings.seed,
        boundary_tokens=heldout.boundary_tokens,
        layout=heldout.layout(windows),
        documents=heldout.documents(),
        bos=tokenizers.bos_id(tokenizer),
        count_bytes=tokenizers.byte_counter(tokenizer),
    )


def run_tokenizer(config: Config, data: DataArtifacts) -> RunTokenizer:
    """The tokenizer that the run's data were made with."""
    trusted = config.model.trust_remote_code
    return tokenizers.load(str(data.tokenizer), trust_remote_code=trusted)


def boundary_tokens(config: Config, tokenizer: RunTokenizer) -> BoundaryTokens:
    """The ids of `data.begin` and `data.end` in a tokenizer. Raises: ConfigError without them."""
    names = {"data.begin": config.data.begin, "data.end": config.data.end}
    ids = {k: None if n is None else tokenizers.token_id(tokenizer, k, n) for k, n in names.items()}
    return BoundaryTokens(ids["data.begin"], ids["data.end"])


def facts_of(plan: RopePlan) -> ColumnFacts:
    return ColumnFacts(plan.max_position_embeddings, plan.short_inv_freq is not None)


def tasks(suite: EvalSuite) -> list[Task]:
    """The tasks of `eval.tasks`, in the order of the page."""
    return [task for task in TASKS if task.name in suite.config.tasks]


def build_samples(suite: EvalSuite) -> dict[str, Sequence[Sample]]:
    """The samples of every task by its name. Raises: DataError."""
    return {task.name: samples_of(task, suite) for task in tasks(suite)}


def requests_of(samples: Mapping[str, Sequence[Sample]], column: str) -> Iterator[Request]:
    """What a column is asked for all tasks."""
    return (s.request for part in samples.values() for s in part if s.is_asked(column))


def rows(
    suite: EvalSuite,
    samples: Mapping[str, Sequence[Sample]],
    results: Mapping[str, Mapping[str, Result]],
    reference: str = "base",
) -> dict[str, dict[str, Any]]:
    """The rows by column and task. `results`: of each column, by the digests of the requests.
    `reference`: the column that the others are compared with."""
    rows_of: dict[str, dict[str, Any]] = {label: {} for label in results}
    for task in tasks(suite):
        columns = {
            label: measured(suite, samples[task.name], by_request, label)
            for label, by_request in results.items()
        }
        for label, column in columns.items():
            of_base = paired_results(column, columns.get(reference))
            context = replace(column, base=of_base, by_column=columns, reference=reference)
            rows_of[label][task.name] = task.rows(context)
    return rows_of


def measured(
    suite: EvalSuite, samples: Sequence[Sample], results: Mapping[str, Result], label: str
) -> Measured:
    """What a column was asked, and its results."""
    asked = [sample for sample in samples if sample.is_asked(label)]
    return Measured(suite, asked, [results[digest(s.request)] for s in asked], label=label)


def paired_results(column: Measured, base: Measured | None) -> list[Result] | None:
    """The reference's results of a column's samples; None of itself, and if it lacks one."""
    if base is None or column.label == base.label:
        return None
    of_base = dict(zip((s.id for s in base.samples), base.results, strict=True))
    names = [sample.id for sample in column.samples]
    return [of_base[name] for name in names] if of_base.keys() >= set(names) else None


def gates(
    models: Mapping[str, Any], suite: EvalSuite, reference: str, judged: str
) -> list[dict[str, Any]]:
    """Pass, fail or undecided of every task. `models`: rows by column and task, of columns that
    read the same tokens; `reference` and `judged` are among them.

    A judged model that is made for no more tokens than the reference is not refused for what it
    does past the window.
    """
    verdicts: list[Verdict] = []
    for task in TASKS:
        rows = {label: model[task.name] for label, model in models.items() if model.get(task.name)}
        if {reference, judged} <= rows.keys():
            pair = Comparison(judged, reference, rows, suite.base_window, suite.length)
            verdicts += task.verdicts(pair)
    if suite.length > suite.base_window:
        verdicts += answers.verdicts(models[judged])
    is_longer = suite.columns[judged].window > suite.columns[reference].window
    deciding = [n for n in suite.config.gates.deciding if is_longer or n == answers.INSIDE]
    return judge(verdicts, deciding)
