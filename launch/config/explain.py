"""Finds every wrong override, and describes each in one line.

Hydra stops at its first error, so each override is composed by itself.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from ropewalk import conf
from ropewalk.conf import renamed
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.sources import SourceConfig
from ropewalk.launch.config.hydra import (
    GROUPS,
    HYDRA_ERRORS,
    compose_checked,
    compose_node,
    is_literal,
    literal_values,
    one_line,
    override_key,
)
from ropewalk.launch.config.phases import LENGTH_MAPPINGS


def diagnose_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Each override that Hydra refuses -> its problem. A wrong group hides the others."""
    hydra = [o for o in overrides if o.startswith("hydra.")]
    groups = [o for o in overrides if override_key(o) in GROUPS or o in hydra]
    for override in groups:
        if problem := _problem_of([*hydra, override]):
            return {override: "\n".join(_former_names(override, hydra)) or problem}
    problems = {
        o: _problem_of_literal(o) if is_literal(o) else _problem_of([*groups, o])
        for o in overrides
        if o not in groups
    }
    return {override: problem for override, problem in problems.items() if problem}


def _former_names(override: str, hydra: Sequence[str]) -> list[str]:
    """A line for each setting that the YAML file of `recipe=NAME` has under its former name."""
    group, _, name = override.lstrip("+").partition("=")
    folders = [*conf.__path__, *re.findall(r"file://([^\],]+)", " ".join(hydra))]
    for file in (Path(folder) / group / f"{name}.yaml" for folder in folders):
        if file.is_file():
            pairs = renamed.nested(yaml.safe_load(file.read_text()))
            return [renamed.message(*pair) for pair in pairs]
    return []


def _problem_of(overrides: Sequence[str]) -> str | None:
    try:
        compose_node(overrides)
    except HYDRA_ERRORS as error:
        return one_line(error)
    return None


def _problem_of_literal(override: str) -> str | None:
    key, _, value = override.partition("=")
    name = key.rsplit(".", 1)[1]
    kind = SourceConfig if key.startswith("data.sources.") else DataConfig
    try:
        OmegaConf.merge(OmegaConf.structured(kind), literal_values([f"{name}={value}"]))
    except HYDRA_ERRORS as error:
        if name in LENGTH_MAPPINGS:
            return (
                f"{key} is {value}; it must be numbers by ranges of length; "
                f'e.g. \'{key}={{"<4K": 0.1, ">8K": 2}}\''
            )
        return one_line(error, key)
    return None


def remaining_problems(overrides: Sequence[str], wrong: dict[str, str]) -> list[str]:
    """What the check finds in the other overrides, without the consequences of the wrong ones."""
    if not wrong or any(override_key(override) in GROUPS for override in wrong):
        return []
    try:
        compose_checked([override for override in overrides if override not in wrong])
    except ConfigError as error:
        keys = [override_key(override.lstrip("~")) for override in wrong]
        lines = str(error).splitlines()
        return [line for line in lines if not any(is_consequence_of(key, line) for key in keys)]
    except HYDRA_ERRORS:
        pass  # the wrong overrides are reported already
    return []


def is_consequence_of(key: str, line: str) -> bool:
    """Whether a problem may exist only because `key` was left out: it is about the key or names it
    (`needs a factor or a target_length`)."""
    section, name = key.split(".")[0], re.escape(key.rsplit(".", 1)[-1])
    same_section = line.startswith(f"{section}.")
    return (
        line.startswith(key)
        or (same_section and re.search(rf"(?<![.\w]){name}\b", line) is not None)
        or re.search(rf"\b{re.escape(key)}\b", line) is not None
    )


def with_override(override: str, problem: str) -> str:
    """`override: problem`, or the problem alone if it names the key already."""
    key = override.split("=")[0]
    names_key = problem.startswith((f"{key} is ", f"{key}[")) or " is now " in problem
    return problem if names_key else f"{override}: {problem}"
