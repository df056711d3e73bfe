"""Every column measured on its inputs, and the files of the stage."""

import gc
from collections.abc import Mapping
from pathlib import Path

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.eval.measure import cost
from ropewalk.eval.measure.columns import dtype
from ropewalk.eval.measure.cost import ColumnCost
from ropewalk.eval.measure.dealing import rank_and_size
from ropewalk.eval.measure.engines import refuse_unfit_ranks
from ropewalk.eval.measure.forward import (
    how_measured,
    is_partitioned,
    measure,
    store_folder,
    store_of,
)
from ropewalk.eval.measure.inputs import Evaluation, prepare
from ropewalk.eval.measure.named import NamedModel
from ropewalk.eval.measure.progress import Progress
from ropewalk.eval.measure.results import RESULTS, content, write_samples
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Result
from ropewalk.train.base import Base


def evaluate(
    config: Config, base: Base, named: Mapping[str, NamedModel], run_dir: Path, folder: Path
) -> None:
    """Measure every column, and write results.json and the samples into `folder`. Collective.

    Raises: DataError, ConfigError.
    """
    refuse_unfit_ranks(config.eval.sp_size)
    evaluation, cache = prepare(config, base, named, run_dir), Path(config.cache_dir).expanduser()
    stores = {column.label: store_of(column, config, cache) for column in evaluation.columns}
    costs = costs_of(evaluation, stores, cache)
    results = measured(evaluation, stores, costs)
    cost.log_durations(costs)
    cost.remember(costs, cache)
    if rank_and_size()[0] == 0:
        rope = read_json(run_dir / "rope.json")
        write_json(folder / RESULTS, content(evaluation, results, rope))
        for label, by_request in results.items():
            inputs = evaluation.inputs[label]
            write_samples(folder / "samples" / label, label, inputs, by_request)


def measured(
    evaluation: Evaluation, stores: Mapping[str, ResultStore], costs: list[ColumnCost]
) -> dict[str, Mapping[str, Result]]:
    """The results of every column by the digests of its requests. Collective."""
    config, results = evaluation.config, dict[str, Mapping[str, Result]]()
    for line in cost.estimate_lines(costs):
        log.info(line)
    with Progress(costs) as progress:
        for column in evaluation.columns:
            partition = dtype(config) if is_partitioned(config, column.base) else None
            inputs, store = evaluation.inputs[column.label], stores[column.label]
            requests, text_of = inputs.requests(column.label), inputs.suite.decode
            results[column.label] = measure(
                column, requests, store, config, partition, text_of, inputs.names, progress
            )
            gc.collect()
    return results


def forecast(
    config: Config, base: Base, named: Mapping[str, NamedModel], run_dir: Path
) -> list[str]:
    """What an evaluation of the run's data would cost, a line a column; nothing is written.

    Raises: DataError.
    """
    evaluation, cache = prepare(config, base, named, run_dir), Path(config.cache_dir).expanduser()
    stores = {}
    for column in evaluation.columns:
        trained = column.label != "extended" or (run_dir / "train" / "model").is_dir()
        folder = store_folder(column, config, cache) if trained else None
        stores[column.label] = ResultStore(folder if folder and folder.is_dir() else None)
    return cost.estimate_lines(costs_of(evaluation, stores, cache))


def costs_of(
    evaluation: Evaluation, stores: Mapping[str, ResultStore], cache: Path
) -> list[ColumnCost]:
    """Of every column, on the first rank; the others tell and show nothing."""
    if rank_and_size()[0]:
        return []
    how, rates = how_measured(evaluation.config), cost.known_rates(cache)
    return [
        cost.column_cost(
            column.label,
            column.base,
            evaluation.inputs[column.label].requests(column.label),
            stores[column.label].results,
            how,
            rates,
            evaluation.config.eval.chunk_tokens,
        )
        for column in evaluation.columns
    ]
