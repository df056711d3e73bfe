"""The eval stage: every model column on the same held-out text and questions -> results.json."""

import gc
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage, write_json
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import DataArtifacts, describe
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.tasks import TASKS
from ropewalk.train.base import Base
from ropewalk.train.model import build as models
from ropewalk.train.rope.plan import RopePlan

FORMAT = 3  # raise when the same settings and tasks give other rows


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """Run the stage. `inputs`: the fingerprints of rope plan, data and trained model.

    Raises: DataError when no held-out text is long enough.
    """
    key: dict[str, Any] = {"inputs": inputs, "seed": config.seed, "eval": content(config.eval)}
    key |= {"tasks": [task.name for task in TASKS], "format": FORMAT}

    def work(temporary: Path) -> dict[str, Any]:
        plan = RopePlan.read(output.parent / "rope.json")
        results = evaluate(config, base, plan, output.parent)
        write_json(temporary / "results.json", results)
        return {"verdicts": {v["name"]: v["holds"] for v in results["verdicts"]}}

    return run_stage("eval", key, output, work)


def evaluate(config: Config, base: Base, plan: RopePlan, run_dir: Path) -> dict[str, Any]:
    """The content of `results.json`."""
    data = DataArtifacts.of(run_dir, Path(config.cache_dir).expanduser())
    suite = suites.build_suite(config, plan, data)
    examples = suites.build_examples(suite)
    rows = {}
    for label, load in model_columns(config, base, plan, run_dir / "train" / "model"):
        model = load()
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        rows[label] = suites.measure(model, suite, examples, label)
        print(f"eval: {label} measured", flush=True)
        del model
        gc.collect()
    return {
        "schema": 1,
        "base_window": plan.base_window,
        "length": suite.length,
        "documents": len({window.origin for window in suite.windows}),
        "windows": len(suite.windows),
        "layout": suite.layout,
        "targets": suite.targets,
        "models": rows,
        "verdicts": suites.verdicts(rows, plan.base_window, suite.length),
        "notes": notes(config, base, read_json(run_dir / "rope.json"), suite.layout),
    }


def model_columns(
    config: Config, base: Base, plan: RopePlan, trained: Path
) -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    """Each column of the results with the function that loads its model.

    A run from scratch has only `extended`; a run without scaling has no `rescaled`.
    """
    dtype = torch.bfloat16 if config.eval.precision == "bf16" else torch.float32
    kwargs: dict[str, Any] = {"dtype": dtype, "attention_kernel": config.train.attention.kernel}
    if base.scratch is None:
        yield "base", partial(models.build, base, plan.unscaled, when="of the base", **kwargs)
        if plan.method != "none":
            yield "rescaled", partial(models.build, base, plan, when="of rescaled only", **kwargs)
    kwargs["trust_remote_code"] = base.trust_remote_code
    yield "extended", partial(models.load_trained, trained, plan, **kwargs)


def notes(config: Config, base: Base, rope: dict[str, Any], layout: Mapping[str, Any]) -> list[str]:
    """Caveats that a reader of the numbers must know. `rope`: the content of `rope.json`."""
    lines = [
        f"Held-out documents are chosen by a hash of their id ({config.data.heldout_share:.0%} of "
        "them); intervals are 95%, bootstrapped over documents.",
        f"Held-out {describe(layout)}.",
    ]
    sources = config.data.sources
    synthetic = [name for name, source in sources.items() if source.kind in SYNTHETIC]
    if synthetic:
        shares = ", ".join(f"{name} {sources[name].weight:g}" for name in synthetic)
        lines.append(
            f"The training mixture has synthetic retrieval ({shares} of the tokens' weight): "
            "passkey here measures a task of the same form as in training, on text and keys that "
            "training has not seen."
        )
    if documents := rope.get("calibrated_on"):
        lines.append(
            f"The rope plan was calibrated on {len(documents)} of the held-out documents, which "
            "are measured here again; the calibration's own figures are of other documents."
        )
    if base.scratch is not None:
        text = "This run makes a base from scratch: there is no model before it to compare with."
        lines.append(text)
    return lines
