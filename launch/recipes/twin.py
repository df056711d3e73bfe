"""A recipe made small: the same method, factors, phases, packing and ratios of lengths, to run on a
laptop in a minute.

All lengths in tokens are divided by one number (the card's `shrink`); steps become two, a batch two
sequences, and a sequence is shared by two ranks where the recipe shares it. Nothing else changes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ropewalk.launch.recipes.bases import RECIPES, card_of

STEPS, SEQUENCES, RANKS = 2, 2, 2
LENGTHS = {
    *("seq_len", "min_len", "max_len", "piece_len", "s2_group", "tile_mlp_tokens", "length"),
    *("target_length", "original_max_position_embeddings", "max_position_embeddings"),
}
"""Last names of the settings that are tokens of a text."""
RANGES = ("length_weights", "buckets")
SOURCE_PLACES = (
    *("kind", "path", "config", "split", "text_key", "pattern", "revision", "where"),
    *("ids_key", "ids_spans", "ids_begin", "ids_end", "ids_dtype"),
)
"""Where documents lie and how they are read: the twin's are text beside it."""
_SOURCES = "data.sources."
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
SMALL = {
    "data.min_piece": 2,
    "train.precision": "fp32",
    "train.metrics.wandb": "off",
    "runs_dir": "runs",
    "cache_dir": "cache",
}
"""What a laptop needs beside the lengths."""


def shortened(length: int, shrink: int) -> int:
    return max(2, round(length / shrink))


def settings(name: str) -> dict[str, Any]:
    """The content of the twin's recipe file, `NAME_twin`."""
    shrink = card_of(name).shrink
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    _write_mixture_out(name, content)
    _write_phase_mixtures_out(name, content)
    for source, values in content["data"]["sources"].items():
        content["data"]["sources"][source] = _local(source, values)
    small = small_settings(content, shrink)
    small["name"] = f"{content['name']}-twin"
    small["model"] = {"path": "base", **_kept_of_model(small["model"])}
    if isinstance(begin := small["data"].get("begin"), list):
        small["data"]["begin"] = [*range(1, len(begin) + 1)]  # ids that its tokenizer has
    return small


def small_settings(content: Mapping[str, Any], shrink: int) -> dict[str, Any]:
    """A recipe file's content with every length divided by `shrink`, for the ranks of a laptop."""
    small: dict[str, Any] = _scaled(content, shrink)
    for phase in small.get("phases", []):
        _shrink_phase(phase, small)
    _shrink_training(small)
    for key, value in SMALL.items():
        _set(small, key, value)
    shares = "sp_size" in yaml.safe_dump(dict(content))
    _set(small, "train.launcher.ranks_per_node", RANKS if shares else 1)
    return small


def _write_mixture_out(name: str, content: dict[str, Any]) -> None:
    """A preset's shares and ranges into the recipe itself, where they are made small."""
    from ropewalk.launch.config.compose import unchecked

    if not any("override /mixture" in entry for entry in content["defaults"]):
        return
    content["defaults"] = [e for e in content["defaults"] if "override /mixture" not in e]
    composed = unchecked([f"recipe={name}"]).data
    if composed.length_weights:
        content["data"]["length_weights"] = dict(composed.length_weights)
    for source, values in content["data"]["sources"].items():
        if composed.sources[source].weight is not None:
            values["weight"] = composed.sources[source].weight


def _write_phase_mixtures_out(name: str, content: dict[str, Any]) -> None:
    """What a phase's preset changes into the phase, and each of its sources in one piece."""
    from omegaconf import OmegaConf

    from ropewalk.launch.config.compose import unchecked

    phases = content.get("phases", [])
    if not any("mixture" in phase for phase in phases):
        return
    composed: Any = OmegaConf.to_container(unchecked([f"recipe={name}"]).phases)
    for number, phase in enumerate(phases):
        if phase.pop("mixture", None):
            phases[number] = _joined(composed[number] | phase, content["data"]["sources"])


def _joined(phase: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """A phase whose new sources are one value each; places of the `old` ones are left out."""
    kept: dict[str, Any] = {}
    new: dict[str, dict[str, Any]] = {}
    for key, value in phase.items():
        source, _, setting = key.removeprefix(_SOURCES).partition(".")
        if not key.startswith(_SOURCES) or value is None:
            kept[key] = value
        elif source not in old:
            values = {setting: value} if setting else value
            new[source] = new.get(source, {}) | values
        elif setting not in SOURCE_PLACES:
            kept[key] = value
    return kept | {f"{_SOURCES}{source}": values for source, values in new.items()}


def _local(source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The source read from a file beside the twin; a tree stays one."""
    kept = {key: value for key, value in values.items() if key not in SOURCE_PLACES}
    if values.get("kind") == "tree":
        return {"kind": "tree", "path": f"documents/{source}", **kept}
    return {"kind": "jsonl", "path": f"documents/{source}.jsonl", **kept}


def _kept_of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in ("path", "revision")}


def _scaled(node: Any, shrink: int, name: str = "") -> Any:
    """The same content with every length divided."""
    if name.rpartition(".")[2] in RANGES:
        return {_range(text, shrink): number for text, number in node.items()}
    if isinstance(node, dict):
        return {key: _scaled(value, shrink, str(key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_scaled(item, shrink, name) for item in node]
    if name.rpartition(".")[2] in LENGTHS and isinstance(node, int):
        return shortened(node, shrink)
    return node


def _range(text: str, shrink: int) -> str:
    """`<4K` with its lengths divided, in plain numbers."""
    return re.sub(r"(\d+)([KM]?)", lambda m: str(shortened(int(m[1]) * UNITS[m[2]], shrink)), text)


def _shrink_phase(phase: dict[str, Any], run: Mapping[str, Any]) -> None:
    """A phase's sources are read locally, and its batch and steps follow the run's rule."""
    for key, value in list(phase.items()):
        if key.startswith(_SOURCES) and isinstance(value, dict):
            phase[key] = _local(key.split(".")[2], value)
    if phase.get("train.steps"):
        phase["train.steps"] = STEPS
    phase.pop("train.schedule.warmup_steps", None)
    phase["train.global_batch_tokens"] = SEQUENCES * phase.get(
        "data.seq_len", run["data"]["seq_len"]
    )
    if "train.sp_size" in phase:
        phase["train.sp_size"] = min(RANKS, phase["train.sp_size"])


def _shrink_training(run: dict[str, Any]) -> None:
    train = run["train"]
    train["steps"] = STEPS
    train["global_batch_tokens"] = SEQUENCES * run["data"]["seq_len"]
    if "warmup_steps" in train.get("schedule", {}):
        train["schedule"]["warmup_steps"] = 1
    if "sp_size" in train:
        train["sp_size"] = min(RANKS, train["sp_size"])


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[last] = value


def write(name: str, folder: Path) -> Path:
    """The twin's recipe, base and documents in `folder`; returns the recipe's file.

    Raises: ConfigError for a recipe without a card.
    """
    from ropewalk.launch.recipes import twin_files

    content = settings(name)
    path = folder / "recipe" / f"{name}_twin.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, width=100)
    head = f"# The twin of recipe={name}: ropewalk run --config-dir . recipe={name}_twin (here)\n"
    path.write_text(f"# @package _global_\n{head}{text}", "utf-8")
    card = card_of(name)
    twin_files.write_base(card.base.config, card.shrink, content, folder / "base")
    twin_files.write_documents(content, folder)
    return path
