"""The eval stage: base, rescaled only, extended, on the same held-out text and the same questions."""

import gc
from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage, write_json
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure import suite
from ropewalk.eval.measure.models import models_compared
from ropewalk.eval.measure.suite import build_suite
from ropewalk.eval.measure.verdicts import verdicts
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import RopePlan


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of what is measured. Raises: DataError without held-out text long enough."""
    decides = {"inputs": inputs, "seed": config.seed, "eval": content(config.eval)}

    def work(temporary: Path) -> dict[str, Any]:
        run_dir = output.parent
        plan = RopePlan.read(run_dir / "rope.json")
        found = evaluate(config, base, plan, run_dir)
        write_json(temporary / "results.json", found)
        return {"verdicts": {v["name"]: v["holds"] for v in found["verdicts"]}}

    return run_stage("eval", decides, output, work)


def evaluate(config: Config, base: Base, plan: RopePlan, run_dir: Path) -> dict[str, Any]:
    """The content of `results.json`."""
    exam = build_suite(config, plan, DataArtifacts.of(run_dir, Path(config.cache_dir).expanduser()))
    dtype = torch.bfloat16 if config.eval.precision == "bf16" else torch.float32
    results = {}
    for label, load in models_compared(config, base, plan, run_dir, dtype):
        model = load()
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        results[label] = suite.measure(model, exam, label)
        print(f"eval: {label} measured", flush=True)
        del model
        gc.collect()
    return {
        "schema": 1,
        "base_window": plan.base_window,
        "length": exam.length,
        "documents": len({w.document for w in exam.windows}),
        "windows": len(exam.windows),
        "targets": exam.targets,
        "models": results,
        "verdicts": verdicts(results, plan.base_window, exam.length),
        "notes": notes(config, base, read_json(run_dir / "rope.json")),
    }


def notes(config: Config, base: Base, rope: dict[str, Any]) -> list[str]:
    """What a reader must know to read the numbers rightly. `rope`: the content of `rope.json`."""
    found = [
        f"Held-out documents are chosen by a hash of their id ({config.data.heldout_share:.0%} of them); intervals are 95%, bootstrapped over documents."
    ]
    made = [name for name, s in config.data.sources.items() if s.kind in SYNTHETIC]
    if made:
        shares = ", ".join(f"{name} {config.data.sources[name].weight:g}" for name in made)
        found.append(
            f"The training mixture holds synthetic retrieval ({shares} of the tokens' weight): passkey here measures a task of the "
            "same form as in training, on text and keys that training has not seen."
        )
    if chosen_on := rope.get("calibrated_on"):
        found.append(
            f"The rope plan was calibrated on {len(chosen_on)} of the held-out documents, which are measured here again; the calibration's "
            "own figures are of other documents."
        )
    if base.scratch is not None:
        found.append(
            "This run makes a base from scratch: there is no model before it to compare with."
        )
    return found
