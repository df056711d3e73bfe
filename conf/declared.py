"""The declared type of every setting, by its key, and the nearest key to a wrong one."""

import dataclasses
import difflib
import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from ropewalk.conf import renamed
from ropewalk.conf.rope_methods import ROPE_METHODS, RopeConfig
from ropewalk.conf.schema import Config

OF_OTHER_TRAINERS = {
    "batch_size": "train.global_batch_tokens",
    "block_size": "data.seq_len",
    "context_length": "data.seq_len",
    "deepspeed_stage": "train.zero_stage",
    "gradient_accumulation_steps": "train.global_batch_tokens",
    "gradient_checkpointing": "train.memory.activation_checkpointing",
    "learning_rate": "train.optimizer.lr",
    "lora_alpha": "train.lora.alpha",
    "lora_r": "train.lora.rank",
    "lr_scheduler_type": "train.schedule.kind",
    "max_grad_norm": "train.optimizer.gradient_clipping",
    "max_length": "data.seq_len",
    "max_seq_len": "data.seq_len",
    "max_seq_length": "data.seq_len",
    "max_steps": "train.steps",
    "model_name_or_path": "model.path",
    "num_train_steps": "train.steps",
    "output_dir": "runs_dir",
    "per_device_train_batch_size": "train.micro_batch_size",
    "rope_scaling": "rope",
    "save_steps": "train.checkpoint.interval_steps",
    "sequence_length": "data.seq_len",
    "train_batch_size": "train.global_batch_tokens",
}
"""What other trainers call a setting, and its key here."""

NOT_TO_BE_SET = {
    "phase": "it is written into the settings of each of `phases`",
    "unset": "it is written into the settings of a verb that needs few of them",
}
"""Settings of a frozen config.yaml, each with the reason why no user sets it."""


@cache
def members(section: type) -> dict[str, Any]:
    """The settings of a section and their types; of `rope`, those of all methods."""
    kinds = ROPE_METHODS.values() if section is RopeConfig else (section,)
    hints: dict[str, Any] = {}
    for kind in kinds:
        resolved = get_type_hints(kind)
        hints |= {item.name: resolved[item.name] for item in dataclasses.fields(kind)}
    return hints


def required_type(hint: Any) -> Any:
    """`X` of `X | None`, else the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        (kind,) = (argument for argument in get_args(hint) if argument is not type(None))
        return kind
    return hint


def is_optional(hint: Any) -> bool:
    return hint is Any or type(None) in get_args(hint)


def is_section(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def type_of(key: str) -> Any:
    """The type of a setting, such as `int | None`, of a section, or of an item of a list
    (`freeze[0]`). Raises: KeyError."""
    hint: Any = Config
    for part in key.replace("[", ".[").split("."):
        hint = _member(required_type(hint), part)
    return hint


def field_of(key: str) -> "dataclasses.Field[Any]":
    """The field that declares a setting. Raises: KeyError for a key of a mapping or an item."""
    section, _, name = key.rpartition(".")
    kind = required_type(type_of(section)) if section else Config
    kinds = ROPE_METHODS.values() if kind is RopeConfig else (kind,)
    return {item.name: item for k in kinds for item in dataclasses.fields(k)}[name]


def _member(hint: Any, name: str) -> Any:
    if is_section(hint):
        return members(hint)[name]
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    if get_origin(hint) is list and name.startswith("["):
        return get_args(hint)[0]
    raise KeyError(name)


def exists(key: str) -> bool:
    try:
        type_of(key)
    except KeyError:
        return False
    return True


def unknown(key: str) -> str:
    """The line for a key that is no setting, with the nearest one."""
    parts = key.split(".")
    known = next(n for n in range(len(parts) - 1, -1, -1) if not n or exists(".".join(parts[:n])))
    section, wrong = ".".join(parts[:known]), ".".join(parts[: known + 1])
    if wrong in renamed.RENAMED:
        return renamed.message(wrong, renamed.RENAMED[wrong])
    hint = required_type(type_of(section)) if section else Config
    if not is_section(hint):
        return f"{key} is not a setting; {section} holds a value and no settings; set {section}"
    names = ", ".join(sorted(set(members(hint)) - {*NOT_TO_BE_SET}))
    if nearest := _nearest(parts[known:], section, hint):
        return f"{wrong} is not a setting; did you mean {nearest}?"
    return f"{wrong} is not a setting; one of {names}"


def _nearest(wrong: list[str], section: str, hint: type) -> str | None:
    """Where the name, or one much like it, is a setting: here, below, or anywhere."""
    name = wrong[-1]
    if name in OF_OTHER_TRAINERS:
        return OF_OTHER_TRAINERS[name]
    prefix = f"{section}." if section else ""
    if near := difflib.get_close_matches(wrong[0], members(hint), 1, 0.75):
        return prefix + near[0]
    for paths, cutoff in ((dict(_paths(hint)), 0.6), (dict(_paths(Config)), 0.8)):
        for word in dict.fromkeys((wrong[0], name)):
            if near := difflib.get_close_matches(word, paths, 1, cutoff):
                return prefix + paths[near[0]]
        prefix = ""
    return None


def _paths(section: type) -> Iterator[tuple[str, str]]:
    """The settings of a section and its sub-sections: name and path; nearer settings last."""
    for name, hint in members(section).items():
        kind, suffix = required_type(hint), name
        if get_origin(kind) is dict:
            kind, suffix = get_args(kind)[1], f"{name}.NAME"
        if is_section(kind):
            yield from ((inner, f"{suffix}.{path}") for inner, path in _paths(kind))
    yield from ((name, name) for name in members(section))
