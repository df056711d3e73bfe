"""RULER: thirteen synthetic questions about long texts, by configuration and length."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.eval.report.figures.heatmap import heat_maps
from ropewalk.eval.report.figures.style import Drawing
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Result
from ropewalk.eval.ruler import configurations, inputs, rows
from ropewalk.eval.ruler.cells import Cell
from ropewalk.eval.ruler.configurations import Configuration
from ropewalk.eval.ruler.draft import CannotFit
from ropewalk.eval.ruler.scoring import reply_text, score_of
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Task

__all__ = ["Ruler", "score_of"]


class Ruler(Task):
    """No verdict: the effective length judges the same scores."""

    name = "ruler"
    title = "RULER"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """The questions of each configuration and length, as many as `eval.ruler.samples`.

        A configuration that is named itself is refused where its data are absent, and a length
        that is named where it does not fit; what a group or a default brings becomes a row without
        a value. Raises: ConfigError, DataError.
        """
        return built(suite).samples

    def rows(self, measured: Measured) -> Rows:
        """The configurations at each length, then their mean."""
        suite, seed = measured.suite, measured.suite.seed
        scores = {(part.configuration, part.length): part for part in rows.by_cell(measured)}
        measured_rows: list[dict[str, Any]] = []
        for length in lengths(suite):
            parts = [part for (_, at), part in scores.items() if at == length]
            measured_rows += [rows.row(part, seed) for part in parts]
            measured_rows += [rows.mean_row(parts, seed)] if len(parts) > 1 else []
        reasons = built(suite).reasons.items()
        return measured_rows + [rows.not_measurable(*cell, why) for cell, why in reasons]

    def scores(self, suite: EvalSuite, sample: Sample, result: Result) -> list[float]:
        return [score_of(sample, reply_text(suite, result))]

    def figure(self, rows: ModelRows, window: int | None) -> Drawing | None:
        """Configurations down, their mean last."""
        return heat_maps(
            rows, "score, one scale for all", down="configuration", down_label="configuration"
        )

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The mean at the longest length and at the base's window."""
        measured = {r["length"] for model in rows.values() for r in model if r["n"]}
        clauses = []
        for length in sorted(measured, reverse=True):
            if length in (max(measured), window):
                values = list_by_model(rows, partial(_mean_text, length=length))
                if values:
                    clauses.append(f"at {length:,} tokens the mean score is {values}")
        return sentence(clauses)


def read_files(settings: RulerConfig) -> None:
    """Read what settings name, before there is held-out text. Raises: ConfigError, DataError."""
    chosen = configurations.chosen(settings.configurations)
    if settings.haystack is None:
        chosen = tuple(part for part in chosen if part.haystack != "prose")
    inputs.read(settings, chosen, list)


def try_samples(suite: EvalSuite) -> None:
    """One sample of each configuration at the shortest and longest length. Raises: as `samples`."""
    ends = {min(lengths(suite)), max(lengths(suite))}
    _build(suite, [cell for cell in cells(suite) if cell.length in ends], 1)


@dataclass(frozen=True)
class Built:
    """The samples of a suite, and why other cells have none."""

    samples: list[Sample]
    reasons: dict[tuple[str, int], str]
    """By configuration and length."""


def built(suite: EvalSuite) -> Built:
    """Made once for a suite. Raises: as `samples`."""
    return suite.once("ruler", lambda: _build(suite, cells(suite), suite.config.ruler.samples))


def _build(suite: EvalSuite, cells: Sequence[Cell], count: int) -> Built:
    """`count` samples of each cell. Raises: DataError where the settings name one without any."""
    samples: list[Sample] = []
    failed: list[tuple[Cell, str]] = []
    for cell in cells:
        try:
            samples += cell.samples(count)
        except CannotFit as reason:
            failed.append((cell, str(reason)))
    _refuse_named(suite, {sample.facts["length"] for sample in samples}, failed)
    return Built(samples, {(cell.configuration.name, cell.length): why for cell, why in failed})


def cells(suite: EvalSuite) -> list[Cell]:
    """Every configuration at every length. Raises: ConfigError, DataError."""
    chosen = _chosen(suite)
    sources = inputs.read(suite.config.ruler, chosen, lambda: _heldout(suite))
    return [Cell(suite, sources, part, length) for length in lengths(suite) for part in chosen]


def lengths(suite: EvalSuite) -> list[int]:
    return list(suite.config.ruler.lengths or suite.contexts)


def _chosen(suite: EvalSuite) -> tuple[Configuration, ...]:
    return configurations.chosen(suite.config.ruler.configurations)


def _heldout(suite: EvalSuite) -> list[str]:
    assert suite.decode is not None
    return inputs.heldout_texts(suite.fillers, suite.decode, max(lengths(suite)))


def _refuse_named(suite: EvalSuite, fit: set[int], failed: Sequence[tuple[Cell, str]]) -> None:
    """Raises: DataError where the settings name a cell without samples.

    `fit`: the lengths at which some configuration has samples.
    """
    settings = suite.config.ruler
    for cell, reason in failed:
        name, length = cell.configuration.name, cell.length
        named = name in settings.configurations
        if named and cell.lacks_data:
            key, value, what = "configurations", str(settings.configurations), name
        elif settings.lengths is not None and (named or length not in fit):
            key, value, what = "lengths", str(settings.lengths), str(length)
        else:
            continue
        raise DataError(
            f"eval.ruler.{key} is {value}; {name} cannot be asked at {length:,} tokens: {reason}; "
            f"or leave {what} out"
        )


def _mean_text(model: Rows, length: int) -> str | None:
    """The mean of the configurations, or the only one there is."""
    measured = [row for row in model if row["length"] == length and row["n"]]
    means = [row for row in measured if row["configuration"] == rows.MEAN] or measured
    return f"{means[0]['accuracy']:.0%}" if means else None
