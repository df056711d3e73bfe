"""The calibrate stage: search on half of the held-out documents, report on the other half."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ropewalk.conf.artifacts.digests import file_digest
from ropewalk.conf.artifacts.manifest import Manifest, run_stage, write_json
from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.rope_methods import Rotary
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts, Window
from ropewalk.eval.calibrate import candidate_model
from ropewalk.eval.calibrate.candidate_model import CandidateModel
from ropewalk.eval.calibrate.choice import choose
from ropewalk.eval.calibrate.results import results
from ropewalk.eval.calibrate.search import SearchSetup, refuse, search
from ropewalk.eval.calibrate.trial import Trial, paper
from ropewalk.eval.measure import columns
from ropewalk.eval.report.sentences import tuned_settings
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import RopePlan

FORMAT = 7  # of the log, of the choice and of the losses


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprint of the data. Factor and window come from the run's rope plan.

    Raises: ConfigError, DataError, ProofError.
    """
    plan = RopePlan.read(output.parent / "rope.json")
    candidate_model.refuse(config, plan)
    cache_key = {
        "inputs": inputs,
        "form": FORMAT,
        "base": base.identity,
        "seed": config.seed,
        "factor": plan.factor,
        "original_max_position_embeddings": plan.original_max_position_embeddings,
        "calibrate": content(config.calibrate),
        "precision": columns.precision(config),
        "windows_per_document": config.eval.windows_per_document,
    }
    return run_stage(
        "calibrate", cache_key, output, lambda tmp: work(config, base, plan, tmp), resumable=True
    )


def work(config: Config, base: Base, plan: RopePlan, folder: Path) -> dict[str, Any]:
    """Write `rope.json`, `results.json` and `trials.jsonl`; resumes an interrupted stage."""
    for finding in candidate_model.findings(config, plan):
        print(f"calibrate warning: {finding}", file=sys.stderr, flush=True)
    data = DataArtifacts.of(folder.parent, Path(config.cache_dir).expanduser())
    heldout = data.heldout_text(config.data)
    chosen_on, reported_on = candidate_model.split(config, heldout, plan)
    windows = candidate_model.stack(chosen_on, config.calibrate.length)
    factor, window = plan.factor, plan.base_window
    setup = SearchSetup(config.calibrate, config.seed, factor, rotary(plan), window, windows)
    refuse(setup)
    live = CandidateModel(config, base, plan)
    trials = run_search(setup, live, folder / "trials.jsonl")
    choice = choose(trials, [w.origin for w in chosen_on])
    if choice.reason:
        method = choice.trial.candidate.settings["method"]
        message = f"{method} keeps its paper's settings: {choice.reason}"
        print(f"calibrate: {message}", flush=True)
    plans = reported_plans(config, live, choice.trial)
    losses = {name: cached_nll(folder, name, live, p, reported_on) for name, p in plans.items()}
    documents = sorted({w.document for w in chosen_on})
    calibrated = {**plans["calibrated"].json(), "findings": [], "calibrated_on": documents}
    write_json(folder / "rope.json", calibrated)
    content = results(plan, setup, trials, choice, losses, chosen_on, reported_on)
    content["layout"] = heldout.layout([*chosen_on, *reported_on])
    write_json(folder / "results.json", content)
    for file in folder.glob("*.npy"):
        remove(file)
    return {"trials": len(trials), "chosen": choice.trial.number}


def rotary(plan: RopePlan) -> Rotary:
    return Rotary(2 * len(plan.inv_freq), plan.rope_theta, plan.original_max_position_embeddings)


def run_search(setup: SearchSetup, live: CandidateModel, log: Path) -> list[Trial]:
    """The search with a progress bar over its budget, and a line for each better candidate."""
    lowest = math.inf
    style: dict[str, Any] = {"desc": "calibrate", "unit": " passes", "disable": None}
    with tqdm(total=setup.config.max_forward_passes, leave=False, **style) as bar:

        def on_trial(trial: Trial) -> None:
            nonlocal lowest
            bar.update(trial.passes)
            if trial.full is not None and trial.value < lowest:
                lowest = trial.value
                tqdm.write(f"calibrate: {line(trial)}")

        return search(setup, live.measure, log, on_trial)


def line(trial: Trial) -> str:
    """One trial as a line for the terminal."""
    assert trial.full is not None
    searcher, settings = trial.candidate.searcher, trial.candidate.settings
    name = settings["method"] if searcher == "paper" else searcher
    values = ", ".join(tuned_settings(settings))
    described = f" ({values})" if values else ""
    return (
        f"trial {trial.number} {name}{described}: inside {trial.full.inside:.4f}, "
        f"beyond {trial.full.beyond:.4f} nats"
    )


def reported_plans(config: Config, live: CandidateModel, chosen: Trial) -> dict[str, RopePlan]:
    """The plans measured on the reported documents: the base, the methods, the chosen trial."""
    papers = {m: live.plan_of(paper(m, live.plan.factor)) for m in config.calibrate.methods}
    return {"none": live.plan.unscaled, **papers, "calibrated": live.plan_of(chosen.candidate)}


def cached_nll(
    folder: Path, name: str, live: CandidateModel, plan: RopePlan, windows: list[Window]
) -> np.ndarray:
    """Losses (N, S-1) under a plan, cached in a file for a killed stage and for equal plans.

    The file's name ends with its digest: one that is damaged is made again.
    """
    files = folder.glob(f"{plan.hash}.*.npy")
    file = next((f for f in files if f.is_file() and file_digest(f) in f.name), None)
    if file is None:
        temporary = folder / "losses.npy"
        np.save(temporary, live.nll(plan, candidate_model.stack(windows)))
        file = folder / f"{plan.hash}.{file_digest(temporary)}.npy"
        temporary.replace(file)
    message = f"{name} measured on {len(windows)} stretches that were not searched on"
    print(f"calibrate: {message}", flush=True)
    losses: np.ndarray = np.load(file)
    return losses
