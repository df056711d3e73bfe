"""The rope stage: the base's config and the settings -> `rope.json`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.artifacts.manifest import Manifest, read_json, write_json
from ropewalk.conf.artifacts.records import UNREADABLE
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS, RopeConfig, TableConfig
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.train.base import Base, base_config
from ropewalk.train.model.sliding_window import narrow_layers
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.lint import lint
from ropewalk.train.rope.plan import RopePlan


@dataclass(frozen=True)
class RopeStage:
    """The plan of a run's settings and the lint's findings, not yet written."""

    manifest: Manifest
    plan: RopePlan
    findings: list[str]
    calibrated_on: list[str]

    def write(self, output: Path, renew: bool = True) -> tuple[Manifest, str]:
        """Write the file `output`. Not to `renew`: a file of this plan keeps its former findings.

        Returns the manifest and one line to print.
        """
        if _write_changed(output, self._record(), renew):
            return self.manifest, "rope: done before with the same settings and inputs; skipped"
        plan = self.plan
        original, new = plan.original_max_position_embeddings, plan.max_position_embeddings
        line = f"rope: {plan.method} x{plan.factor:g}, {original:,} -> {new:,} tokens"
        return self.manifest, line

    def _record(self) -> dict[str, Any]:
        return self.plan.json() | {
            "findings": self.findings,
            "fingerprint": self.manifest.fingerprint,
            "calibrated_on": self.calibrated_on,
        }


def run(config: Config, base: Base, output: Path) -> tuple[Manifest, str]:
    """Make the plan and write it to the file `output`. Returns the manifest and one line to print.

    Raises: ConfigError when the model's RoPE is not handled.
    """
    return make(config, base).write(output)


def make(config: Config, base: Base, before: RopePlan | None = None) -> RopeStage:
    """The plan and its findings. `before`: the plan of the phase whose model this one starts from.

    Raises: ConfigError when the model's RoPE is not handled.
    """
    # Not `run_stage`, which makes a folder with a manifest.json: the artifact is one file that
    # holds its own fingerprint, it is written again when only the findings changed, and the plan
    # is computed in any case because the fingerprint contains its hash.
    model_config = base_config(base)
    plan = rope_plan.make(config.rope, model_config, base.name, config.model.sliding_window)
    window = before.max_position_embeddings if before else None
    findings = _print_findings(config, plan, model_config, window)
    cache_key = {"rope": content(config.rope), "base": plan.base, "plan": plan.hash}
    manifest = Manifest.for_content("rope", cache_key)
    manifest.facts = {"hash": plan.hash, "max_position_embeddings": plan.max_position_embeddings}
    return RopeStage(manifest, plan, findings, calibration_documents(config.rope))


def _write_changed(output: Path, record: dict[str, Any], renew: bool) -> bool:
    """Write `rope.json` unless it has this content. Returns whether it had this plan.

    Each value is compared, so a damaged or edited file is written again, and that is told.
    """
    try:
        previous = read_json(output)
    except FileNotFoundError:
        previous = {}
    except UNREADABLE:
        previous = None
    same_plan = isinstance(previous, dict) and previous.get("fingerprint") == record["fingerprint"]
    if same_plan and not renew:
        record = {**record, "findings": previous.get("findings")}
    if previous == json.loads(json.dumps(record)):
        return True
    if previous is None or (same_plan and previous.get("findings") == record["findings"]):
        print(f"rope: {output} is not what was written; written again", flush=True)
    write_json(output, record)
    return same_plan


def _print_findings(
    config: Config, plan: RopePlan, model_config: PreTrainedConfig, before: int | None
) -> list[str]:
    """The lint's findings, also printed to stderr. `before`: tokens of the phase before."""
    is_training_unset = bool({"data.seq_len", "train.steps"} & set(config.unset))
    findings = lint(
        plan,
        architecture=str(model_config.model_type),
        sliding=narrow_layers(model_config, plan.sliding_window, plan.max_position_embeddings),
        pretrained=model_config.max_position_embeddings,  # type: ignore[attr-defined]
        seq_len=config.data.seq_len,
        steps=None if is_training_unset else config.train.steps,
        pose=config.data.pose.target_length,
        before=before,
    )
    for finding in findings:
        print(f"rope warning: {finding}", file=sys.stderr, flush=True)
    return findings


def calibration_documents(rope: RopeConfig) -> list[str]:
    """The documents that a table from a file was chosen on; eval names those it measures again."""
    if not isinstance(rope, TableConfig):
        return []
    return list(rope.read_file().get("calibrated_on", []))


def comparison_plans(config: Config, base: Base, methods: Sequence[str]) -> list[RopePlan]:
    """Plans of other methods for the same base and factor, with each method's own defaults.

    Raises: ConfigError when a method is unknown, and when it scales but rope=none has no factor.
    """
    if unknown := [method for method in methods if method not in ROPE_METHODS]:
        raise ConfigError(
            f"--compare has {', '.join(unknown)}; the methods are {', '.join(ROPE_METHODS)}; "
            "correct it"
        )
    model_config, plans = base_config(base), []
    window = config.model.sliding_window
    factor = rope_plan.make(config.rope, model_config, base.name, window).factor
    original = config.rope.original_max_position_embeddings
    for method in methods:
        if method != "none" and config.rope.method == "none":
            raise ConfigError(
                f"--compare has {method}; it needs a factor, and rope=none has none; e.g. rope=pi "
                "rope.factor=8"
            )
        rope = ROPE_METHODS[method](method=method, original_max_position_embeddings=original)
        rope.factor = None if method == "none" else factor
        if method not in ("none", "dynamic"):
            rope.max_position_embeddings = config.rope.max_position_embeddings
        plans.append(rope_plan.make(rope, model_config, base.name, window))
    return plans
