"""The inputs that all models share, and the loops over the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.requests import Result, digest
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import EvalSuite, Measured, Sample, Task, Verdict
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
    )


def tasks(suite: EvalSuite) -> list[Task]:
    """The tasks of `eval.tasks`, in the order of the page."""
    return [task for task in TASKS if task.name in suite.config.tasks]


def build_samples(suite: EvalSuite) -> dict[str, Sequence[Sample]]:
    """The samples of every task by its name. Raises: DataError."""
    return {task.name: task.samples(suite) for task in tasks(suite)}


def rows(
    suite: EvalSuite,
    samples: Mapping[str, Sequence[Sample]],
    results: Mapping[str, Result],
    base: Mapping[str, Result] | None,
) -> dict[str, Any]:
    """The rows of every task for one model. `results`, `base`: by the digests of the requests."""

    def measured(task: Task) -> Measured:
        names = [digest(sample.request) for sample in samples[task.name]]
        of_base = None if base is None else [base[name] for name in names]
        return Measured(suite, samples[task.name], [results[name] for name in names], of_base)

    return {task.name: task.rows(measured(task)) for task in tasks(suite)}


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
