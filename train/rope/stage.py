"""The rope stage: the base's config and the settings -> `rope.json`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ropewalk.conf.artifacts.manifest import Manifest, read_json, write_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import content
from ropewalk.conf.scaling import ROPE_CLASSES, RopeConfig, TableConfig
from ropewalk.conf.schema import Config
from ropewalk.train.base import Base, base_config
from ropewalk.train.model.geometry import sliding_layers
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.lint import lint
from ropewalk.train.rope.methods import FreeTable
from ropewalk.train.rope.plan import RopePlan


def run(config: Config, base: Base, output: Path) -> tuple[Manifest, str]:
    """Make the plan and write it as one file. Raises: ConfigError for a model whose RoPE is not handled."""
    model_config = base_config(base)
    plan = rope_plan.make(config.rope, model_config, base.name)
    findings = lint(
        plan,
        architecture=str(model_config.model_type),
        sliding=any(sliding_layers(model_config)),
        pretrained=model_config.max_position_embeddings,  # type: ignore[attr-defined]
        seq_len=config.data.seq_len,
        steps=config.train.steps,
        pose=config.data.pose.target_length,
    )
    for finding in findings:
        print(f"rope warning: {finding}", file=sys.stderr, flush=True)
    manifest = Manifest.of(
        "rope", {"rope": content(config.rope), "base": plan.base, "plan": plan.hash}
    )
    manifest.facts = {"hash": plan.hash, "max_position_embeddings": plan.max_position_embeddings}
    before = read_json(output) if output.is_file() else {}
    if before.get("fingerprint") != manifest.fingerprint or before.get("findings") != findings:
        beside = {
            "findings": findings,
            "fingerprint": manifest.fingerprint,
            "calibrated_on": calibration_documents(config.rope),
        }
        write_json(output, {**plan.json(), **beside})
    if before.get("fingerprint") == manifest.fingerprint:
        return manifest, "rope: done before with the same settings and inputs; skipped"
    return (
        manifest,
        f"rope: {plan.method} x{plan.factor:g}, {plan.original_max_position_embeddings:,} -> {plan.max_position_embeddings:,} tokens",
    )


def calibration_documents(rope: RopeConfig) -> list[str]:
    """The documents that a table from a file was chosen on: eval says so where it measures them again."""
    return (
        list(FreeTable.read(rope).get("calibrated_on", [])) if isinstance(rope, TableConfig) else []
    )


def comparison_plans(config: Config, base: Base, methods: Sequence[str]) -> list[RopePlan]:
    """Plans of other methods for the same base and factor, with each method's own defaults.

    Raises: ConfigError for an unknown method, and for one that scales beside rope=none, which has no factor.
    """
    if unknown := [m for m in methods if m not in ROPE_CLASSES]:
        raise ConfigError(
            f"--compare has {', '.join(unknown)}; the methods are {', '.join(ROPE_CLASSES)}; correct it"
        )
    model_config, found = base_config(base), []
    factor = rope_plan.make(config.rope, model_config, base.name).factor
    original = config.rope.original_max_position_embeddings
    for method in methods:
        if method != "none" and config.rope.method == "none":
            raise ConfigError(
                f"--compare has {method}; it needs a factor, and rope=none has none; e.g. rope=pi rope.factor=8"
            )
        rope = ROPE_CLASSES[method](method=method, original_max_position_embeddings=original)
        rope.factor = None if method == "none" else factor
        found.append(rope_plan.make(rope, model_config, base.name))
    return found
