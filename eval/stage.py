"""The eval stage: base, rescaled only, extended, on the same held-out text and the same questions."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ropewalk.conf.data import SYNTHETIC
from ropewalk.conf.errors import DataError
from ropewalk.conf.manifest import Manifest, read_json, run_stage, write_json
from ropewalk.conf.schema import Config, content
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataFolders, Window, heldout_text, heldout_windows
from ropewalk.eval import statistics, tasks
from ropewalk.eval.verdicts import verdicts
from ropewalk.train import model as models
from ropewalk.train.model import Base
from ropewalk.train.rope.plan import RopePlan


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of what is measured. Raises: DataError without held-out text long enough."""
    decides = {"inputs": inputs, "seed": config.seed, "eval": content(config.eval)}

    def work(temporary: Path) -> dict[str, Any]:
        run_dir = output.parent
        plan = RopePlan.read(run_dir / "rope.json")
        found = examine(config, base, plan, run_dir)
        write_json(temporary / "results.json", found)
        return {"verdicts": {v["name"]: v["holds"] for v in found["verdicts"]}}

    return run_stage("eval", decides, output, work)


def examine(config: Config, base: Base, plan: RopePlan, run_dir: Path) -> dict[str, Any]:
    """The content of `results.json`."""
    exam = make_exam(config, plan, DataFolders.of(run_dir, Path(config.cache_dir).expanduser()))
    dtype = torch.bfloat16 if config.eval.precision == "bf16" else torch.float32
    results = {}
    for label, load in columns(config, base, plan, run_dir, dtype):
        model = load()
        results[label] = tasks.measure(model.to("cuda" if torch.cuda.is_available() else "cpu"), exam, label)  # type: ignore[arg-type]
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


def columns(
    config: Config, base: Base, plan: RopePlan, run_dir: Path, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    """The three columns; a base made from scratch has none before it, and without scaling there is nothing rescaled."""
    kernel = config.train.attention
    if base.scratch is None:
        yield (
            "base",
            lambda: models.build(base, plan.unscaled, dtype=dtype, attention_kernel=kernel, when="of the base"),
        )
        if plan.method != "none":
            yield (
                "rescaled",
                lambda: models.build(base, plan, dtype=dtype, attention_kernel=kernel, when="of rescaled only"),
            )
    yield (
        "extended",
        lambda: models.load_trained(run_dir / "train" / "model", plan, dtype=dtype, attention_kernel=kernel),
    )


def make_exam(config: Config, plan: RopePlan, data: DataFolders) -> tasks.Exam:
    """Windows and questions, the same for every model."""
    window = plan.base_window
    length = config.eval.length or plan.max_position_embeddings
    texts = data.texts(config.data)
    windows: list[Window] = []
    for store in texts:
        windows += heldout_windows(store, length, config.eval.windows - len(windows), config.eval.windows_per_document)
    if not windows:
        raise DataError(
            f"eval.length is {length}; no held-out document has so many tokens; raise data.heldout (now {config.data.heldout}), "
            "add longer documents or lower eval.length"
        )
    encode = tokenizers.encode_ids(tokenizers.load(str(data.tokenizer)))
    lengths = config.eval.passkey_lengths or statistics.doublings(min(window, length), length)
    asked = tasks.questions(
        config.eval,
        encode,
        np.concatenate([heldout_text(store) for store in texts]),
        lengths,
        config.seed,
    )
    targets = min(config.eval.gain_targets or window // 2, min(window, length) - 1)
    return tasks.Exam(window, length, windows, asked, targets, config.eval.batch_tokens, config.seed)


def notes(config: Config, base: Base, rope: dict[str, Any]) -> list[str]:
    """What a reader must know to read the numbers rightly. `rope`: the content of `rope.json`."""
    found = [
        f"Held-out documents are chosen by a hash of their id ({config.data.heldout:.0%} of them); intervals are 95%, bootstrapped over documents."
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
        found.append("This run makes a base from scratch: there is no model before it to compare with.")
    return found
