"""export/hf/: the checkpoint in Hugging Face form, proved as a reader loads it.

Its config.json has two key styles: `rope_parameters`, and the legacy `rope_theta` and
`rope_scaling` that many programs still read.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.errors import ProofError
from ropewalk.train.export.handoff import OWN_CODE
from ropewalk.train.model.windows import raise_limits
from ropewalk.train.rope import proof
from ropewalk.train.rope.model_config import ONLY_LONGROPE
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights.loading import load_pretrained

OTHER_OLD_NAMES = ("gpt_neox", "gpt_neox_japanese")  # their theta was rotary_emb_base
TOP_LEVEL = ("rope_theta", "partial_rotary_factor")  # stood beside rope_scaling, not inside


def write(model: Path, folder: Path, plan: RopePlan) -> tuple[str, str | None]:
    """Write the checkpoint with config.json in both key styles. Weights are linked, not rewritten.

    Returns the architecture (with "own code" if it brings some), and the reason if config.json has
    no legacy keys. Raises: ProofError.
    """
    folder.mkdir(parents=True)
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        target = folder / file.relative_to(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(file, target)
    config = read_json(model / "config.json")
    keys, reason = legacy_keys(config)
    config |= keys
    write_json(folder / "config.json", config)
    for line in raise_limits(folder, plan):
        print(f"export: hf/{line}", flush=True)
    refuse_other_window(config["max_position_embeddings"], plan)
    own_code = f" ({OWN_CODE})" if "auto_map" in config else ""
    return config["model_type"] + own_code, reason


def link_or_copy(source: Path, target: Path) -> None:
    """Link weights where the disk allows it; copy other files, because some are changed next."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or a file system without links
    shutil.copyfile(source, target)


def legacy_keys(config: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The legacy keys that mean the same as `config["rope_parameters"]`; or {} and the reason.

    transformers 5 prefers `rope_scaling` when a config has both, so the two must agree.
    """
    parameters, kind = config["rope_parameters"], config["model_type"]
    if "rope_theta" not in parameters:
        layers = f"its {' and '.join(parameters)} layers"
        return {}, f"{layers} have tables of their own; the older keys hold one"
    if kind in ONLY_LONGROPE:
        return {}, f"the older config class of {kind} takes no key for the attention factor"
    if kind in OTHER_OLD_NAMES:
        return {}, f"older versions of {kind} have other names for them"
    top_level = {key: parameters[key] for key in TOP_LEVEL if key in parameters}
    scaling = {key: value for key, value in parameters.items() if key not in TOP_LEVEL}
    if parameters["rope_type"] == "default":
        return {**top_level, "rope_scaling": None}, None
    return {**top_level, "rope_scaling": {**scaling, "type": scaling["rope_type"]}}, None


def refuse_other_window(written: int, plan: RopePlan) -> None:
    """Raises: ProofError for another max_position_embeddings, at which servers cut texts."""
    if written != plan.config_window:
        raise ProofError(
            f"rope proof after export: config.json has max_position_embeddings {written}; "
            f"the plan has {plan.config_window}"
        )


def prove(folder: Path, plan: RopePlan, trust_remote_code: bool = False) -> str:
    """Prove the plan on the model as a reader loads it. Raises: ProofError."""
    model = load_pretrained(
        str(folder), "the export", dtype="auto", trust_remote_code=trust_remote_code
    )
    if model.dtype != torch.float32:
        proof.restore(model, plan)
    return proof.prove(model, plan, "after export")
