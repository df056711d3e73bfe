"""Run folders to the models that are compared: a column of each run's results, or all columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest
from ropewalk.conf.artifacts.verify import find_damage
from ropewalk.conf.errors import ConfigError
from ropewalk.eval.report.figures.style import MODELS
from ropewalk.eval.report.page import RESULTS_SCHEMA
from ropewalk.launch.compare.samples import LINES, Samples
from ropewalk.launch.runs import files

Json = Mapping[str, Any]
RESULTS = "results.json"
TRAINED = "extended"
"""The column of the model that a run trains."""


@dataclass(frozen=True)
class Model:
    """One model of a comparison: a column of a run's results."""

    name: str
    run: Path
    column: str
    results: Json
    """The content of results.json."""
    config: Json
    """The content of config.yaml."""
    record: Json
    """The content of the run's manifest.json."""

    @property
    def facts(self) -> Json:
        """What the column is, and how it was measured."""
        facts: Json = self.results["columns"][self.column]
        return facts

    @property
    def is_judged(self) -> bool:
        """Whether the gates of the results are this model's."""
        return bool(self.results["judged"] == self.column)

    @property
    def rows(self) -> Json:
        """Its rows by task."""
        rows: Json = self.results["models"][self.column]
        return rows

    @cached_property
    def samples(self) -> Samples:
        return Samples(self.run / "eval" / "samples" / self.column)

    @cached_property
    def reference(self) -> "Model":
        """The column that this one is measured against in its own run."""
        return replace(self, name="", column=self.results["reference"])

    @property
    def is_named(self) -> bool:
        """Whether it is a model of `eval.models`, which its run did not train."""
        return self.column in (self.config.get("eval") or {}).get("models", {})

    @property
    def is_trained(self) -> bool:
        """Whether it is what its run trained."""
        return self.column == TRAINED

    @property
    def seed(self) -> int:
        """Of the run."""
        seed: int = self.config.get("seed", 0)
        return seed

    def stage(self, name: str) -> Json:
        """What decides the content of a stage; empty when the run has no such stage."""
        recorded = files.stage_manifest(self.run / name)
        return {} if recorded is None else recorded.content


def models_of(words: Sequence[str]) -> list[Model]:
    """The models of `RUN` and `RUN:COLUMN`: of a training its judged column, else all columns.

    A model is called as its run; of a run with several compared columns `RUN:COLUMN`; `COLUMN`
    alone where there is one run.

    Raises: ConfigError with the problems of all.
    """
    opened: dict[Path, _Run] = {}
    picked: list[tuple[_Run, str]] = []
    problems: dict[str, None] = {}
    for word in words:
        try:
            path, column = _split(word)
            run = opened.setdefault(path.resolve(), _open(path))
            picked += [(run, name) for name in _columns(run, column)]
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    picked = list(dict.fromkeys(picked))
    problems |= dict.fromkeys(_problems([*opened.values()], picked) if not problems else [])
    if problems:
        raise ConfigError("\n".join(problems))
    return [_model(run, column, picked) for run, column in picked]


@dataclass(frozen=True, eq=False)
class _Run:
    path: Path
    results: Json
    config: Json
    record: Json

    @property
    def name(self) -> str:
        return self.path.resolve().name


def _split(word: str) -> tuple[Path, str]:
    """Folder and column."""
    path = Path(word).expanduser()
    folder, colon, column = word.rpartition(":")
    if not path.is_dir() and colon and Path(folder).expanduser().is_dir():
        return Path(folder).expanduser(), column
    return path, ""


def _open(path: Path) -> _Run:
    """Raises: ConfigError."""
    if not path.is_dir():
        raise ConfigError(
            f"RUN is {path}; it must be the folder of a run, and there is none; ropewalk runs "
            "lists them"
        )
    try:
        config = files.settings(path / "config.yaml")
        results = files.values(path / "eval" / RESULTS)
        record = files.record(path / "manifest.json")
        made = files.stage_manifest(path / "eval")
        _refuse_unfit(path, config, results, made)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"RUN is {path}; its files must be as ropewalk wrote them, and one cannot be read "
            f"({error}); restore it, or run ropewalk eval again"
        ) from None
    return _Run(path, results, config, record or {})


def _refuse_unfit(path: Path, config: Json, results: Json, made: Manifest | None) -> None:
    """Raises: ConfigError for what is no run, and for results that are not those of the run."""
    if not config:
        raise ConfigError(
            f"RUN is {path}; it must be the folder of a run, and it has no config.yaml; ropewalk "
            "runs lists them"
        )
    if not results or made is None:
        raise ConfigError(
            f"RUN is {path}; it must have results to compare, and its eval stage is not finished; "
            "run ropewalk eval with its settings first"
        )
    if results.get("schema") != RESULTS_SCHEMA:
        raise ConfigError(
            f"RUN is {path}; {RESULTS} must have schema {RESULTS_SCHEMA}, and it has "
            f"{results.get('schema')}; measure again with ropewalk eval"
        )
    if damage := find_damage(path / "eval", made.files):
        raise ConfigError(
            f"RUN is {path}; its results must be as they were measured, and {damage}; measure "
            "again with ropewalk eval"
        )
    trained, measured = manifest.read(path / "train"), made.content.get("inputs", {}).get("train")
    if trained and measured not in (None, trained.fingerprint):
        raise ConfigError(
            f"RUN is {path}; its results must be of its training, and they are of a former one; "
            "run ropewalk eval with its settings first"
        )


def _columns(run: _Run, column: str) -> list[str]:
    """Raises: ConfigError for a column that was not measured."""
    measured = list(run.results["models"])
    if column and column not in measured:
        raise ConfigError(
            f"RUN is {run.path}:{column}; the column must be one of {', '.join(measured)}; choose "
            "one, or leave it out"
        )
    trained = [name for name in MODELS if name in measured]
    columns = measured
    if column or trained:
        columns = [column or run.results.get("judged") or trained[-1]]
    kept = [name for name in columns if (run.path / "eval" / "samples" / name / LINES).is_file()]
    if kept != columns:
        raise ConfigError(
            f"RUN is {run.path}; its evaluation must have kept its samples, which earlier versions "
            "did not; measure again with ropewalk eval"
        )
    return columns


def _problems(runs: Sequence[_Run], picked: Sequence[tuple[_Run, str]]) -> Iterator[str]:
    by_name: dict[str, list[Path]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run.path)
    for name, paths in by_name.items():
        if len(paths) > 1:
            yield (
                f"RUN is {' and '.join(map(str, paths))}; two runs of a comparison must differ in "
                f"the name of their folder, and both are {name}; rename or copy one"
            )
    if len(picked) == 1:
        run, column = picked[0]
        others = [name for name in run.results["models"] if name != column]
        also = f", or {run.path}:{others[0]} beside it" if others else ""
        yield (f"RUN is {run.path} alone; a comparison needs two models; name another run{also}")


def _model(run: _Run, column: str, picked: Sequence[tuple[_Run, str]]) -> Model:
    own = [name for other, name in picked if other is run]
    name = run.name if len(own) == 1 else f"{run.name}:{column}"
    if len({other for other, _ in picked}) == 1:
        name = column
    return Model(name, run.path, column, run.results, run.config, run.record)
