"""The rope stage: the base's config and the settings -> `rope.json`."""

from pathlib import Path

from ropewalk.conf.manifest import Manifest, read_json, write_json
from ropewalk.conf.schema import Config, content
from ropewalk.train import model
from ropewalk.train.model import Base
from ropewalk.train.rope import plan as rope_plan


def run(config: Config, base: Base, output: Path) -> tuple[Manifest, str]:
    """Make the plan and write it as one file. Raises: ConfigError for a model whose RoPE is not handled."""
    base_config = model.base_config(base)
    plan = rope_plan.make(config.rope, base_config, base.name)
    manifest = Manifest.of("rope", {"rope": content(config.rope), "base": plan.base, "plan": plan.hash})
    manifest.facts = {"hash": plan.hash, "max_position_embeddings": plan.max_position_embeddings}
    if output.is_file() and read_json(output).get("fingerprint") == manifest.fingerprint:
        return manifest, "rope: done before with the same settings and inputs; skipped"
    write_json(output, {**plan.json(), "fingerprint": manifest.fingerprint})
    return (
        manifest,
        f"rope: {plan.method} x{plan.factor:g}, {plan.original_max_position_embeddings:,} -> {plan.max_position_embeddings:,} tokens",
    )
