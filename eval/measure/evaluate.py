"""Every column measured on the same inputs, and the files of the stage."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.columns import columns, dtype
from ropewalk.eval.measure.dealing import rank_and_size
from ropewalk.eval.measure.forward import is_partitioned, measure, store_of, unique
from ropewalk.eval.measure.results import RESULTS, content, write_samples
from ropewalk.eval.requests import Result, digest
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import RopePlan


def evaluate(config: Config, base: Base, run_dir: Path, folder: Path) -> None:
    """Measure every column, and write results.json and the samples into `folder`. Collective.

    Raises: DataError when no held-out text is long enough.
    """
    plan, cache = RopePlan.read(run_dir / "rope.json"), Path(config.cache_dir).expanduser()
    suite = suites.build_suite(config, plan, DataArtifacts.of(run_dir, cache))
    models_of_run = list(columns(config, base, plan, run_dir / "train" / "model"))
    facts = {column.label: suites.facts_of(column.plan) for column in models_of_run}
    suite = replace(suite, columns=facts)
    samples = suites.build_samples(suite)
    names = {digest(s.request): s.id for part in samples.values() for s in part}
    partition = dtype(config) if is_partitioned(config, base) else None
    results: dict[str, Mapping[str, Result]] = {}
    for column in models_of_run:
        requests = unique(suites.requests_of(samples, column.label))
        store = store_of(column, config, cache)
        results[column.label] = measure(
            column, requests, store, config, partition, suite.decode, names
        )
        log.info(f"eval: {column.label} measured")
        gc.collect()
    if rank_and_size()[0] == 0:
        rope = read_json(run_dir / "rope.json")
        facts_of_run = content(config, base, suite, samples, models_of_run, results, rope)
        write_json(folder / RESULTS, facts_of_run)
        for label, by_request in results.items():
            write_samples(folder / "samples", label, samples, by_request)
