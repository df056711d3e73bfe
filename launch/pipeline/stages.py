"""The stages of a run in order: which ones a verb needs, and what each is called with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import (
    Manifest,
    fingerprint,
    is_finished,
    read_json,
    run_stage,
)
from ropewalk.conf.schema import Config
from ropewalk.launch.pipeline import preflight, standing, unchanged
from ropewalk.launch.pipeline.current import REPORTED, current_results
from ropewalk.launch.pipeline.order import VERB_STAGES, WITHOUT_TRAINING
from ropewalk.launch.pipeline.record import write_manifest
from ropewalk.launch.pipeline.run import Run, data_inputs, runs_of

LOOKED_UP = ": done before with the same settings and inputs"
"""In the line of a stage whose work was not done again."""
PER_PHASE = ("rope", "data", "train")
"""Stages that every phase has. The others belong to the last phase."""


def stages_of(config: Config, verb: str) -> tuple[str, ...]:
    """The stages of a verb, in order."""
    alone = verb in ("eval", "report") and config.eval.run_models is False
    return WITHOUT_TRAINING if alone else VERB_STAGES[verb]


def execute(config: Config, verb: str, command: str = "") -> Run:
    """Run every stage of `verb`, skipping what is done, and return the run of the last phase.

    Raises: ConfigError, DataError, ProofError, Stopped.
    """
    runs, stages = runs_of(config, command), stages_of(config, verb)
    last = runs[-1]
    trains = verb in standing.TRAINING and "train" in stages
    preflight.refuse(runs, stages)
    last.folder.mkdir(parents=True, exist_ok=True)
    last.cache.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(last.folder):
        standing.protect(runs, "train" in stages, trains)
        try:
            for stage in stages:
                _before(stage, runs, verb, stages)
                for run in runs if stage in PER_PHASE else runs[-1:]:
                    _run_stage(stage, run, quiet=trains)
        finally:
            if trains:
                for run in runs:
                    standing.remove(run.aside)
        standing.announce(last)
        if last.aside is None:
            unchanged.record(last.config, verb, stages, _cached(last))
    return last


def _cached(run: Run) -> list[Path]:
    """The folders of the cache that the run's data are in."""
    from ropewalk.data.dataset import DataArtifacts

    if "data" not in run.manifests:
        return []
    data = DataArtifacts.of(run.folder, run.cache)
    return [data.plan, *data.stores.values()]


def check(config: Config, verb: str) -> str:
    """The preflight alone: no stage runs. Returns a line about what would run, and of eval what it
    would cost.

    Raises: ConfigError, DataError with every problem.
    """
    runs, stages = runs_of(config), stages_of(config, verb)
    preflight.refuse(runs, stages)
    listed = ", ".join(stages)
    line = (
        f"{verb}: settings, model, sources and disks pass; it would run {listed}, and skip what "
        f"is done with the same settings and inputs in {runs[-1].folder}"
    )
    return "\n".join([line, *(_evaluation_cost(runs[-1]) if verb == "eval" else [])])


def _evaluation_cost(run: Run) -> list[str]:
    from ropewalk.eval import stage

    return stage.forecast(run.config, run.base, run.folder)


def _before(stage: str, runs: Sequence[Run], verb: str, stages: Sequence[str]) -> None:
    """Refuse what may not replace the training that stands, as soon as it is known."""
    if "train" in stages and stage in ("data", "train"):
        known = ("rope",) if stage == "data" else ("rope", "data")
        for run in filter(standing.has_training, runs):  # only then: inputs take all weights' bytes
            standing.refuse(run, verb, _train_inputs(run, *known))
    if stage == "train":
        preflight.refuse_unmeasurable(runs, stages)
        standing.start_training(runs, verb)
    if stage == "eval" and verb not in standing.TRAINING:
        standing.refuse_other_evaluation(runs[-1], _eval_inputs(runs[-1]))


def _run_stage(stage: str, run: Run, quiet: bool) -> None:
    """`quiet`: without the lines of a plan and data that lie aside until the training starts."""
    title = phases.title(run.config)
    if title and stage == "train":
        print(f"{title}training", flush=True)
    run.manifests[stage], message = _STAGES[stage](run)
    if LOOKED_UP not in message:
        run.made.add(stage)
    if not (quiet and run.aside):
        print(title + message)
    write_manifest(run)


# Each stage returns its manifest and one line about what it did. The modules of a stage are
# imported when it runs: `ropewalk rope` needs no trainer.


def _rope(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.rope import stage

    previous = run.previous_phase
    rope_stage = stage.make(run.config, run.base, previous.rope_plan if previous else None)
    run.writers["rope"] = lambda folder: rope_stage.write(
        folder / "rope.json", renew=not run.in_place
    )
    return standing.write(run, "rope", rope_stage.manifest.fingerprint)


def _data(run: Run) -> tuple[Manifest, str]:
    from ropewalk.data import stage

    prepared = stage.prepare(run.config, data_inputs(run))
    # A ledger of other cleaning settings is this command's own; any other difference is damage.
    other = run.in_place and standing.has_other_settings(run, "data")
    own_ledger = other and not run.shows_training and not prepared.has_ledger(run.folder / "data")

    def write(folder: Path) -> tuple[Manifest, str]:
        return prepared.write(folder / "data", renew=not (other and run.in_place))

    run.writers["data"] = write
    return standing.write(run, "data", prepared.fingerprint, own_ledger)


def _train_inputs(run: Run, *stages: str) -> dict[str, Any]:
    """The inputs of a training that finished `stages` give."""
    inputs = {**run.fingerprints(*stages), "base": run.base.identity}
    return inputs | phases.cache_key(run.config)


def _train(run: Run) -> tuple[Manifest, str]:
    from ropewalk.launch.check import before_training
    from ropewalk.train import stage

    inputs = _train_inputs(run, "rope", "data")
    if run.previous_phase is not None:
        inputs["before"] = run.previous_phase.manifests["train"].fingerprint
    if not is_finished("train", stage.cache_key_of(run.config, inputs), run.folder / "train"):
        before_training.refuse_untested(run)
    return stage.run(run.config, inputs, run.folder / "train")


def _eval_inputs(run: Run) -> dict[str, Any]:
    """Fingerprints of what is measured; there is no training where only named models are."""
    trained = ["train"] if "train" in run.manifests else []
    return run.fingerprints("rope", "data", *trained)


def _eval(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval import stage

    return stage.run(run.config, run.base, _eval_inputs(run), run.output / "eval")


def _calibrate(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.calibrate import stage

    return stage.run(run.config, run.base, run.fingerprints("data"), run.output / "calibration")


def _export(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.export import stage

    return stage.run(run.config, run.fingerprints("rope", "train"), run.output / "export")


def _report(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.report import page

    current = current_results(run)
    results = {name: manifest.fingerprint for name, manifest in current.items()}
    cache_key = {
        "inputs": run.fingerprints("rope", "data") | results,
        "page": fingerprint([path.read_text() for path in page.source_files()]),
        "findings": read_json(run.output / "rope.json")["findings"],
        # A skipped data stage may still renew its ledger.
        "ledger": read_json(run.output / "data" / "ledger.json"),
    }

    def work(temporary: Path) -> dict[str, Any]:
        outdated = [name for name in REPORTED if name not in current]
        page.make(run.output, outdated).write(temporary)
        return {}

    return run_stage("report", cache_key, run.output / "report", work)


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
