"""The calibrate stage: search on one half of the held-out documents, report on the other; a plan that `train` takes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ropewalk.conf.artifacts.manifest import Manifest, run_stage, write_json
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts, Window
from ropewalk.eval.calibrate import candidate_model
from ropewalk.eval.calibrate.candidate_model import CandidateModel
from ropewalk.eval.calibrate.choice import choose
from ropewalk.eval.calibrate.results import results
from ropewalk.eval.calibrate.search import Task, refuse, search
from ropewalk.eval.calibrate.trial import Trial, paper
from ropewalk.train.base import Base
from ropewalk.train.rope.methods import Rotary
from ropewalk.train.rope.plan import RopePlan

FORM = 3  # of the log and of how a trial is chosen


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprint of the data. The run's rope plan says factor and original window, not the method.

    Raises: ConfigError, DataError, ProofError.
    """
    plan = RopePlan.read(output.parent / "rope.json")
    candidate_model.refuse(config, plan)
    decides = {
        "inputs": inputs,
        "form": FORM,
        "base": base.identity,
        "seed": config.seed,
        "factor": plan.factor,
        "original_max_position_embeddings": plan.original_max_position_embeddings,
        "calibrate": content(config.calibrate),
        "precision": config.eval.precision,
        "windows_per_document": config.eval.windows_per_document,
    }
    return run_stage(
        "calibrate", decides, output, lambda tmp: work(config, base, plan, tmp), resumable=True
    )


def work(config: Config, base: Base, plan: RopePlan, folder: Path) -> dict[str, Any]:
    """`rope.json`, `results.json` and `trials.jsonl`; goes on from what an interrupted one left there."""
    for finding in candidate_model.findings(config, plan):
        print(f"calibrate warning: {finding}", file=sys.stderr, flush=True)
    data = DataArtifacts.of(folder.parent, Path(config.cache_dir).expanduser())
    chosen_on, reported_on = candidate_model.split(config, data, plan)
    windows = candidate_model.stack(chosen_on, config.calibrate.length)
    task = Task(config.calibrate, config.seed, plan.factor, rotary(plan), plan.base_window, windows)
    refuse(task)
    live = CandidateModel(config, base, plan)
    trials = searched(task, live, folder / "trials.jsonl")
    choice = choose(trials, [w.document for w in chosen_on])
    if choice.kept:
        print(
            f"calibrate: {choice.trial.candidate.settings['method']} stands with its paper's settings: {choice.kept}",
            flush=True,
        )
    plans = reported_plans(config, live, choice.trial)
    losses = {
        name: kept(folder / f"{p.hash}.npy", name, live, p, reported_on)
        for name, p in plans.items()
    }
    write_json(
        folder / "rope.json",
        {**plans["calibrated"].json(), "findings": [], "calibrated_on": names(chosen_on)},
    )
    write_json(
        folder / "results.json",
        results(config, plan, task, trials, choice, losses, chosen_on, reported_on),
    )
    for file in folder.glob("*.npy"):
        file.unlink()
    return {"trials": len(trials), "chosen": choice.trial.number}


def rotary(plan: RopePlan) -> Rotary:
    return Rotary(2 * len(plan.inv_freq), plan.rope_theta, plan.original_max_position_embeddings)


def names(windows: list[Window]) -> list[str]:
    return sorted({w.document for w in windows})


def searched(task: Task, live: CandidateModel, log: Path) -> list[Trial]:
    """The search with a bar over its budget, and a line for each better candidate."""
    lowest = [float("inf")]
    with tqdm(
        total=task.config.max_forward_passes,
        desc="calibrate",
        unit=" passes",
        disable=None,
        leave=False,
    ) as bar:

        def tell(trial: Trial) -> None:
            bar.update(trial.passes)
            if trial.whole is not None and trial.value < lowest[0]:
                lowest[0] = trial.value
                tqdm.write(f"calibrate: {line(trial)}")

        return search(task, live.measure, log, tell)


def line(trial: Trial) -> str:
    """One trial for a reader."""
    assert trial.whole is not None
    words = [
        f"{k} {v:.4g}"
        for k, v in trial.candidate.settings.items()
        if isinstance(v, float) and k != "factor"
    ]
    name = (
        trial.candidate.settings["method"]
        if trial.candidate.searcher == "paper"
        else trial.candidate.searcher
    )
    described = f" ({', '.join(words)})" if words else ""
    return f"trial {trial.number} {name}{described}: inside {trial.whole.inside:.4f}, beyond {trial.whole.beyond:.4f} nats"


def reported_plans(config: Config, live: CandidateModel, found: Trial) -> dict[str, RopePlan]:
    """What is measured on the documents that were not searched on: the base, the papers' methods, and what was found."""
    papers = {m: live.plan_of(paper(m, live.plan.factor)) for m in config.calibrate.methods}
    return {"none": live.plan.unscaled, **papers, "calibrated": live.plan_of(found.candidate)}


def kept(
    file: Path, name: str, live: CandidateModel, plan: RopePlan, windows: list[Window]
) -> np.ndarray:
    """Losses (N, S-1) under a plan, measured once: even if the stage is killed later, or two names have one plan."""
    if not file.is_file():
        nll = live.nll(plan, candidate_model.stack(windows))
        temporary = file.with_suffix(".tmp.npy")
        np.save(temporary, nll)
        temporary.replace(file)
    print(
        f"calibrate: {name} measured on {len(windows)} stretches that were not searched on",
        flush=True,
    )
    found: np.ndarray = np.load(file)
    return found
