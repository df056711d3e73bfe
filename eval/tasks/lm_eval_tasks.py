"""Tasks of lm-evaluation-harness, asked through our engine: its prompts, few-shot examples, filters
and metrics; our forward passes, which are kept, resumed and dealt over the ranks as all others.

Its evaluator is called twice on a model that computes nothing: once to note what is asked, before
a model is loaded, and once to answer from the results.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts.digests import file_digest
from ropewalk.conf.errors import ConfigError, DataError, RopewalkError
from ropewalk.conf.eval_short_context import LmEvalConfig
from ropewalk.eval.requests import Prompt, Prompts, Reply, Result, digest
from ropewalk.eval.tasks.task import EvalSuite, Sample

PREFERRED = ("acc_norm", "acc", "exact_match")
"""Metrics in the order in which one is chosen; else the first that a task has."""


@dataclass(frozen=True)
class Item:
    """The score of one document of a task."""

    key: str
    """Task, number and content of the document: what columns are joined by."""
    metric: str
    score: float


def identity(settings: LmEvalConfig) -> dict[str, str]:
    """Digests of the files below `include_path` by name, for a fingerprint: a task that changes
    asks other questions. Raises: ConfigError without such a folder."""
    if settings.include_path is None:
        return {}
    folder = Path(settings.include_path).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"eval.short_context.lm_eval.include_path is {settings.include_path}; it must be a "
            "folder with YAML files of tasks; correct it"
        )
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        file.relative_to(folder).as_posix(): file_digest(file)
        for file in files
        if "__pycache__" not in file.parts
    }


def samples(suite: EvalSuite) -> list[Sample]:
    """What the tasks of `eval.short_context.lm_eval` ask. Raises: ConfigError, DataError."""
    asked: dict[str, Prompts] = {}
    for task in suite.config.short_context.lm_eval.tasks:
        model = _model(suite, task, None)
        _evaluate(suite, task, model)
        asked |= {digest(group): group for group in model.asked}
    return [
        Sample(f"lm_eval/{number:06}", f"lm_eval/{number:06}", group, {"task": "lm_eval"})
        for number, group in enumerate(asked.values())
    ]


def items(suite: EvalSuite, task: str, results: Mapping[str, Result]) -> dict[str, Item]:
    """The score of every document of a task. `results`: by the digests of their requests."""
    output = _evaluate(suite, task, _model(suite, task, results))
    by_key: dict[str, Item] = {}
    for leaf, rows in output["samples"].items():
        first = rows[0]["filter"]
        for row in rows:
            if row["filter"] == first:
                key = f"{leaf} {row['doc_id']} {row['doc_hash']}"
                metric = next((m for m in PREFERRED if m in row["metrics"]), row["metrics"][0])
                by_key[key] = Item(key, metric, float(row[metric]))
    return by_key


def _evaluate(suite: EvalSuite, task: str, model: Any) -> dict[str, Any]:
    """Raises: ConfigError, DataError where the task is not to be had."""
    from lm_eval import simple_evaluate

    settings = suite.config.short_context.lm_eval
    try:
        return simple_evaluate(  # type: ignore[no-any-return]
            model=model,
            tasks=[task],
            task_manager=suite.once("lm_eval", lambda: _task_manager(settings)),
            limit=settings.limit,
            num_fewshot=settings.num_fewshot,
            bootstrap_iters=0,
            log_samples=True,
        )
    except RopewalkError:
        raise
    except Exception as error:  # of the harness, its data sets and the hub
        text = " ".join(str(error).split())[:300]
        raise DataError(
            f"eval.short_context.lm_eval.tasks has {task}; lm-eval cannot make it "
            f"({type(error).__name__}: {text}); correct its name, give its data by "
            "eval.short_context.lm_eval.include_path, or leave it out"
        ) from error


def _task_manager(settings: LmEvalConfig) -> Any:
    """Of the user's own tasks alone where these are all: to list the harness's takes seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if settings.include_path is None:
        return TaskManager()
    folder = str(Path(settings.include_path).expanduser())
    own = TaskManager(include_path=folder, include_defaults=False)
    return own if set(settings.tasks) <= set(own.all_tasks) else TaskManager(include_path=folder)


def _model(suite: EvalSuite, task: str, results: Mapping[str, Result] | None) -> Any:
    """A model of the harness. Without results it notes what it is asked, and answers nothing.

    Raises: ConfigError without lm-eval.
    """
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError:
        raise ConfigError(
            f"eval.short_context.lm_eval.tasks has {task}; it needs lm-eval, which is not "
            "installed; pip install 'ropewalk[eval]', or leave it out"
        ) from None

    class AnsweredModel(TemplateLM):  # type: ignore[misc]
        asked: list[Prompts] = []

        @property
        def eot_token_id(self) -> int:
            return _prefix(suite)

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: Any
        ) -> list[int]:
            return [int(i) for i in suite.encode(string)]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            groups = _groups(suite, task, [(context, answer) for _, context, answer in requests])
            if results is None:
                self.asked = [*self.asked, *groups]
                return [(0.0, False)] * len(requests)
            return [pair for group in groups for pair in _answers(group, results[digest(group)])]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise _refused(task, "loglikelihood_rolling")

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise _refused(task, "generate_until")

    return AnsweredModel()


def _prefix(suite: EvalSuite) -> int:
    """The token before an answer whose prompt is empty."""
    marks = suite.boundary_tokens
    known = [
        *([] if suite.bos is None else [suite.bos]),
        *marks.begin_ids[-1:],
        *marks.end_ids[-1:],
    ]
    if not known:
        raise DataError(
            "eval.short_context.lm_eval.tasks has a task with an empty prompt; the tokenizer must "
            "have a BOS token, or data.begin a token; leave the task out"
        )
    return int(known[0])


def _refused(task: str, kind: str) -> ConfigError:
    return ConfigError(
        f"eval.short_context.lm_eval.tasks has {task}; it is a task of {kind}, and short text is "
        "judged by the likelihood of answers; choose multiple_choice or loglikelihood tasks"
    )


def _groups(
    suite: EvalSuite, task: str, pairs: Sequence[tuple[list[int], list[int]]]
) -> list[Prompts]:
    """Questions with their answers; neighbours of one question share its pass."""
    groups: list[list[Prompt]] = []
    before: list[int] | None = None
    for context, answer in pairs:
        prompt = _prompt(suite, task, context, answer)
        if context != before:
            groups.append([])
        groups[-1].append(prompt)
        before = context
    return [Prompts(tuple(group)) for group in groups]


def _prompt(suite: EvalSuite, task: str, context: list[int], answer: list[int]) -> Prompt:
    """Raises: DataError for one that the base's window does not hold."""
    begin = suite.boundary_tokens.begin
    starts = begin is None or context[0] == begin
    ids = np.array(context if starts else [begin, *context], np.int64)
    tokens = len(ids) + len(answer)
    if tokens > suite.base_window:
        raise DataError(
            f"eval.short_context.lm_eval.tasks has {task}; a question of it has {tokens:,} tokens, "
            f"and every model is asked inside the base's window of {suite.base_window:,}; lower "
            "eval.short_context.lm_eval.num_fewshot or leave the task out"
        )
    return Prompt(ids, np.array(answer, np.int64), context=len(ids) - 1)


def _answers(group: Prompts, result: Result) -> list[tuple[float, bool]]:
    """Log-likelihood of each answer, and whether greedy decoding gives it."""
    replies: Sequence[Reply] = result  # type: ignore[assignment]
    pairs = zip(group.prompts, replies, strict=True)
    return [(-reply.nll, reply.correct == len(prompt.answer)) for prompt, reply in pairs]
