"""The finished results of the run's present settings and inputs. A report shows no others."""

from collections.abc import Mapping
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest, read_json
from ropewalk.conf.rules import content
from ropewalk.launch.pipeline.run import Run

REPORTED = ("train", "eval", "calibration")
"""Folders whose results the page shows, each after the ones that it depends on."""


def current_results(run: Run) -> dict[str, Manifest]:
    """The manifests of the reported stages that are still valid, by folder."""
    expected, current = _expected_content(run), dict[str, Manifest]()
    inputs: dict[str, Any] = {**run.fingerprints(*run.manifests), "base": expected["base"]}
    inputs |= _previous_training(run)
    for name in REPORTED:
        inputs["train"] = current["train"].fingerprint if "train" in current else None
        result = manifest.finished(run.output / name)
        if result is None or not agrees(result.content, expected):
            continue
        if agrees(result.content["inputs"], inputs):
            current[name] = result
    return current


def _previous_training(run: Run) -> dict[str, str | None]:
    """The training that this phase starts from: the one just done, or else its current result."""
    previous = run.previous_phase
    if previous is None:
        return {}
    trained = previous.manifests.get("train") or current_results(previous).get("train")
    return {"before": trained.fingerprint if trained else None}


def _expected_content(run: Run) -> dict[str, Any]:
    """The content that each reported stage would have if it ran now.

    Calibration's budget is left out: its result stays valid for the same base, data and factor.
    """
    from ropewalk.eval.stage import settings as eval_settings

    config, rope = run.config, read_json(run.output / "rope.json")
    return {
        "base": run.base.identity,
        "seed": config.seed,
        "seq_len": config.data.seq_len,
        "train": content(config.train),
        "eval": eval_settings(config),
        **{key: rope[key] for key in ("factor", "original_max_position_embeddings")},
    }


def agrees(recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether both have the same value for every key that both have."""
    return all(expected[key] == value for key, value in recorded.items() if key in expected)
