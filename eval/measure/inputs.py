"""The columns of an evaluation, and what each is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ropewalk.conf.errors import DataError
from ropewalk.conf.eval_models import judged_column, reference_column
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.columns import Column, run_columns
from ropewalk.eval.measure.forward import unique
from ropewalk.eval.measure.named import NamedModel
from ropewalk.eval.requests import Request, digest
from ropewalk.eval.tasks.task import EvalSuite, Sample
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import RopePlan


@dataclass(frozen=True)
class Inputs:
    """What the columns of one tokenizer are asked."""

    suite: EvalSuite
    samples: Mapping[str, Sequence[Sample]]
    """By task."""
    tokenizer: str
    """Fingerprint of its ids."""

    def requests(self, label: str) -> dict[str, Request]:
        """Of a column, by digest; two tasks that ask the same share one pass."""
        return unique(suites.requests_of(self.samples, label))

    @cached_property
    def names(self) -> dict[str, str]:
        """Task and id of the first sample of each request, for messages."""
        named = [(task, sample) for task, part in self.samples.items() for sample in part]
        return {digest(sample.request): f"{task} {sample.id}" for task, sample in named[::-1]}


@dataclass(frozen=True)
class Evaluation:
    """The columns in their order, and the inputs of each."""

    config: Config
    base: Base
    """Of the run."""
    columns: list[Column]
    inputs: dict[str, Inputs]
    """By label; columns of one tokenizer share theirs."""

    @property
    def reference(self) -> str:
        """The column that the others are compared with."""
        return reference_column(self.config.eval.reference, self.labels)

    @property
    def judged(self) -> str | None:
        """The column that gates and answers are about; None where there is only the reference."""
        return judged_column(self.config.eval.judged, self.labels, self.reference)

    @property
    def labels(self) -> list[str]:
        return [column.label for column in self.columns]


def prepare(
    config: Config, base: Base, named: Mapping[str, NamedModel], run_dir: Path
) -> Evaluation:
    """Raises: DataError when no held-out text is long enough, a tokenizer changes it, or no task
    has anything to ask."""
    columns = list[Column]()
    plan = RopePlan.read(run_dir / "rope.json")
    if config.eval.run_models is not False:
        columns += run_columns(config, base, plan, run_dir / "train" / "model")
    columns += [model.column(config) for model in named.values()]
    evaluation = Evaluation(config, base, columns, {})
    if config.eval.run_models is False:
        (plan,) = (c.plan for c in columns if c.label == evaluation.reference)
    data = DataArtifacts.of(run_dir, Path(config.cache_dir).expanduser())
    own = tokenizers.encoding_fingerprint(suites.run_tokenizer(config, data))
    for key, group in by_tokenizer(columns, own).items():
        suite = suites.build_suite(config, plan, data, None if key == own else group[0])
        suite = replace(suite, columns={c.label: suites.facts_of(c.plan) for c in group})
        inputs = Inputs(suite, suites.build_samples(suite), key)
        refuse_nothing(inputs)
        evaluation.inputs.update(dict.fromkeys((c.label for c in group), inputs))
    return evaluation


def refuse_nothing(inputs: Inputs) -> None:
    """Raises: DataError where no task has a sample, with what the first says of it."""
    suite, asked = inputs.suite, inputs.samples
    if not asked or any(asked.values()):
        return
    (rows,) = suites.rows(suite, asked, {"": {}}, reference="").values()
    each = [row for part in rows.values() for row in part if isinstance(row, dict)]
    reason = next((row["reason"] for row in each if row.get("reason")), "none has a sample")
    raise DataError(
        f"eval.tasks is {', '.join(asked)}; one must have something to ask at eval.length "
        f"{suite.length}; {reason}; raise eval.length or choose other tasks"
    )


def by_tokenizer(columns: Sequence[Column], own: str) -> dict[str, list[Column]]:
    """The columns by the fingerprint of their tokenizer; `own`: that of the run."""
    groups: dict[str, list[Column]] = {}
    for column in columns:
        other = column.tokenizer and tokenizers.encoding_fingerprint(column.tokenizer)
        groups.setdefault(other or own, []).append(column)
    return groups
