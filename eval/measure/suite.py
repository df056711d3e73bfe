"""The inputs that all models share, and the loops over the task registry."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure.score import ModelScorer
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import EvalSuite, Verdict
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
    return EvalSuite(
        config=config.eval,
        base_window=plan.base_window,
        length=length,
        windows=windows,
        fillers=heldout.texts(),
        encode=tokenizers.text_encoder(
            tokenizers.load(str(data.tokenizer), trust_remote_code=config.model.trust_remote_code)
        ),
        seed=config.seed,
        boundary_tokens=heldout.boundary_tokens,
        layout=heldout.layout(windows),
    )


def build_examples(suite: EvalSuite) -> dict[str, Any]:
    """The examples of every task by its name. Raises: DataError."""
    return {task.name: task.examples(suite) for task in TASKS}


def measure(
    model: PreTrainedModel,
    suite: EvalSuite,
    examples: Mapping[str, Any],
    label: str,
    body: nn.Module | None = None,
) -> dict[str, Any]:
    """The rows of every task for one model; `label` is its column, `body` as for `ModelScorer`."""
    scorer = ModelScorer(model, suite, label, body)
    return {task.name: task.score(scorer, examples[task.name], suite) for task in TASKS}


def verdicts(models: Mapping[str, Any], window: int, length: int) -> list[Verdict]:
    """The verdicts of every task; empty without a base to compare with or a longer context."""
    if "base" not in models or "extended" not in models or length <= window:
        return []
    checks = []
    for task in TASKS:
        rows = {label: model[task.name] for label, model in models.items() if model[task.name]}
        if "base" in rows and "extended" in rows:
            checks += task.verdicts(rows, window, length)
    return checks
