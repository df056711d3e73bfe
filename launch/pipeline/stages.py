"""The stages of a run in order: which ones a verb needs, and what each is called with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import Manifest, fingerprint, read_json, run_stage
from ropewalk.conf.artifacts.records import write_text
from ropewalk.conf.check import to_yaml
from ropewalk.conf.schema import Config
from ropewalk.launch.config.phases import phase_configs
from ropewalk.launch.pipeline import preflight
from ropewalk.launch.pipeline.current import REPORTED, current_results
from ropewalk.launch.pipeline.record import write_manifest
from ropewalk.launch.pipeline.run import Run, data_inputs

ORDER = ("rope", "data", "train", "eval", "report")
VERB_STAGES: dict[str, tuple[str, ...]] = {
    **{stage: ORDER[: number + 1] for number, stage in enumerate(ORDER)},
    "run": ORDER,
    "calibrate": ("rope", "data", "calibrate", "report"),
    "export": ("rope", "data", "train", "export"),
}
PER_PHASE = ("rope", "data", "train")
"""Stages that every phase has. The others belong to the last phase."""


def execute(config: Config, verb: str, command: str = "") -> Run:
    """Run every stage of `verb`, skipping what is done, and return the run of the last phase.

    Raises: ConfigError, DataError, ProofError, Stopped.
    """
    runs = _runs(config, command)
    last = runs[-1]
    preflight.refuse(runs, VERB_STAGES[verb])
    last.folder.mkdir(parents=True, exist_ok=True)
    last.cache.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(last.folder):
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            write_text(run.folder / "config.yaml", to_yaml(run.config))
        for stage in VERB_STAGES[verb]:
            if stage == "train":
                preflight.refuse_unmeasurable(runs, VERB_STAGES[verb])
            for run in runs if stage in PER_PHASE else runs[-1:]:
                _run_stage(stage, run)
    return last


def _runs(config: Config, command: str) -> list[Run]:
    """One run for each phase, each with the run before it."""
    runs: list[Run] = []
    for phase_config in phase_configs(config):
        previous = runs[-1] if runs else None
        runs.append(Run(phase_config, command=command, previous_phase=previous))
    return runs


def _run_stage(stage: str, run: Run) -> None:
    title = phases.title(run.config)
    if title and stage == "train":
        print(f"{title}training", flush=True)
    run.manifests[stage], message = _STAGES[stage](run)
    print(title + message)
    write_manifest(run)


# Each stage returns its manifest and one line about what it did. The modules of a stage are
# imported when it runs: `ropewalk rope` needs no trainer.


def _rope(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.rope import stage

    return stage.run(run.config, run.base, run.folder / "rope.json")


def _data(run: Run) -> tuple[Manifest, str]:
    from ropewalk.data import stage

    return stage.run(run.config, data_inputs(run), run.folder / "data")


def _train(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train import stage

    inputs: dict[str, Any] = {**run.fingerprints("rope", "data"), "base": run.base.identity}
    inputs |= phases.cache_key(run.config)
    if run.previous_phase is not None:
        inputs["before"] = run.previous_phase.manifests["train"].fingerprint
    return stage.run(run.config, inputs, run.folder / "train")


def _eval(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval import stage

    inputs = run.fingerprints("rope", "data", "train")
    return stage.run(run.config, run.base, inputs, run.folder / "eval")


def _calibrate(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.calibrate import stage

    return stage.run(run.config, run.base, run.fingerprints("data"), run.folder / "calibration")


def _export(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.export import stage

    return stage.run(run.config, run.fingerprints("rope", "train"), run.folder / "export")


def _report(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.report import page

    current = current_results(run)
    results = {name: manifest.fingerprint for name, manifest in current.items()}
    cache_key = {
        "inputs": run.fingerprints("rope", "data") | results,
        "page": fingerprint([path.read_text() for path in page.source_files()]),
        "findings": read_json(run.folder / "rope.json")["findings"],
        # A skipped data stage may still renew its ledger.
        "ledger": read_json(run.folder / "data" / "ledger.json"),
    }

    def work(temporary: Path) -> dict[str, Any]:
        outdated = [name for name in REPORTED if name not in current]
        (temporary / "index.html").write_text(page.render(run.folder, outdated), encoding="utf-8")
        return {}

    return run_stage("report", cache_key, run.folder / "report", work)


def make_shards(config: Config, task: int, tasks: int) -> str:
    """`ropewalk data --shard`: make the shards of one task and return a line about them.

    It touches no run folder, so tasks work side by side. Raises: ConfigError, DataError.
    """
    from ropewalk.data import stage
    from ropewalk.data.tokens.shards import folder_name

    shards = stage.make_shards(config, data_inputs(Run(config)), task, tasks)
    names = ", ".join(f"{source}/{folder_name(number)}" for source, number in shards)
    return f"shard {task}/{tasks}: {names or 'nothing to do'}"


_STAGES: dict[str, Callable[[Run], tuple[Manifest, str]]] = {
    "rope": _rope,
    "data": _data,
    "train": _train,
    "eval": _eval,
    "report": _report,
    "calibrate": _calibrate,
    "export": _export,
}
