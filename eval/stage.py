"""The eval stage: every model column on the same held-out text and questions -> results.json."""

import gc
from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage, write_json
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.models import models_compared
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import RopePlan

FORMAT = 2  # raise when the same settings measure other windows or questions


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """Run the stage. `inputs`: the fingerprints of rope plan, data and trained model.

    Raises: DataError when no held-out text is long enough.
    """
    cache_key = {
        "inputs": inputs,
        "seed": config.seed,
        "eval": content(config.eval),
        "format": FORMAT,
    }

    def work(temporary: Path) -> dict[str, Any]:
        run_dir = output.parent
        plan = RopePlan.read(run_dir / "rope.json")
        results = evaluate(config, base, plan, run_dir)
        write_json(temporary / "results.json", results)
        return {"verdicts": {v["name"]: v["holds"] for v in results["verdicts"]}}

    return run_stage("eval", cache_key, output, work)


def evaluate(config: Config, base: Base, plan: RopePlan, run_dir: Path) -> dict[str, Any]:
    """The content of `results.json`."""
    data = DataArtifacts.of(run_dir, Path(config.cache_dir).expanduser())
    suite = suites.build_suite(config, plan, data)
    examples = suites.build_examples(suite)
    dtype = torch.bfloat16 if config.eval.precision == "bf16" else torch.float32
    models = {}
    for label, load in models_compared(config, base, plan, run_dir, dtype):
        model = load()
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        models[label] = suites.measure(model, suite, examples, label)
        print(f"eval: {label} measured", flush=True)
        del model
        gc.collect()
    return {
        "schema": 1,
        "base_window": plan.base_window,
        "length": suite.length,
        "documents": len({window.document for window in suite.windows}),
        "windows": len(suite.windows),
        "targets": suite.targets,
        "models": models,
        "verdicts": suites.verdicts(models, plan.base_window, suite.length),
        "notes": notes(config, base, read_json(run_dir / "rope.json")),
    }


def notes(config: Config, base: Base, rope: dict[str, Any]) -> list[str]:
    """Caveats that a reader of the numbers must know. `rope`: the content of `rope.json`."""
    lines = [
        "Held-out documents are chosen by a hash of their id "
        f"({config.data.heldout_share:.0%} of them); "
        "intervals are 95%, bootstrapped over documents."
    ]
    sources = config.data.sources
    synthetic = [name for name, source in sources.items() if source.kind in SYNTHETIC]
    if synthetic:
        shares = ", ".join(f"{name} {sources[name].weight:g}" for name in synthetic)
        lines.append(
            f"The training mixture holds synthetic retrieval ({shares} of the tokens' weight): "
            "passkey here measures a task of the same form as in training, on text and keys that "
            "training has not seen."
        )
    if documents := rope.get("calibrated_on"):
        lines.append(
            f"The rope plan was calibrated on {len(documents)} of the held-out documents, which "
            "are measured here again; the calibration's own figures are of other documents."
        )
    if base.scratch is not None:
        lines.append(
            "This run makes a base from scratch: there is no model before it to compare with."
        )
    return lines
