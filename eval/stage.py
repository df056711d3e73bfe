"""The eval stage: every model column on the same held-out text and questions -> results.json."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.eval import ranks
from ropewalk.eval.measure import columns
from ropewalk.eval.measure import evaluate as costs
from ropewalk.eval.measure.evaluate import evaluate
from ropewalk.eval.measure.named import NamedModel, named_models
from ropewalk.eval.measure.results import RESULTS
from ropewalk.eval.ruler import inputs as ruler
from ropewalk.eval.tasks import lm_eval_tasks
from ropewalk.eval.worker import Job
from ropewalk.train.base import Base
from ropewalk.train.rope.plan import hash_of

FORMAT = 10  # raise when the same settings and tasks give other rows


def run(config: Config, base: Base, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """Run the stage. `inputs`: the fingerprints of rope plan, data and trained model.

    The number of ranks changes no result.

    Raises: ConfigError for a model of `eval.models` that cannot be read; DataError when no held-out
        text is long enough; RopewalkError with the ranks' exit code.
    """
    named = named_models(config)
    key: dict[str, Any] = {"inputs": inputs, "seed": config.seed, "eval": settings(config)}
    key["format"] = FORMAT
    if "ruler" in config.eval.tasks:
        key["ruler"] = ruler.identity(config.eval.ruler)
    lm_eval = config.eval.short_context.lm_eval
    if "short_context" in config.eval.tasks and lm_eval.include_path is not None:
        key["lm_eval"] = lm_eval_tasks.identity(lm_eval)
    if named:
        key["models"] = {name: identity(model) for name, model in named.items()}

    def work(temporary: Path) -> dict[str, Any]:
        if ranks.starts_ranks(config):
            ranks.measure(Job(config, base, output.parent, named), temporary)
        else:
            evaluate(config, base, named, output.parent, temporary)
        results = read_json(temporary / RESULTS)
        return {"gates": {gate["name"]: gate["verdict"] for gate in results["gates"]}}

    return run_stage("eval", key, output, work)


def forecast(config: Config, base: Base, run_dir: Path) -> list[str]:
    """What the stage would cost, a line a column. Raises: ConfigError, DataError."""
    if manifest.read(run_dir / "data") is None:
        return [
            "eval: its cost is known once the data are made; run ropewalk data with these settings"
        ]
    return costs.forecast(config, base, named_models(config), run_dir)


def settings(config: Config) -> dict[str, Any]:
    """The settings of the measurement, for its fingerprint: with the precision that is used."""
    return content(replace(config.eval, precision=columns.precision(config)))


def identity(model: NamedModel) -> dict[str, str]:
    """What decides the results of a named model: its content, wherever it lies."""
    tokenizer = tokenizers.encoding_fingerprint(model.tokenizer)
    return {"model": model.base.identity, "rope": hash_of(model.plan.json()), "tokens": tokenizer}
