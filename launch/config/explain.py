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
    """Each override that Hydra refuses -> its problem. A wrong group hides the others.

    A YAML file with former names does not hide them: they are composed without it.
    """
    hydra = [o for o in overrides if o.startswith("hydra.")]
    groups = [o for o in overrides if override_key(o) in GROUPS]
    former = {o: "\n".join(lines) for o in groups if (lines := _former_names(o, hydra))}
    current = [*hydra, *(o for o in groups if o not in former)]
    for override in current:
        if problem := _problem_of(override, hydra):
            return {**former, override: problem}
    problems = {o: _problem_of(o, current) for o in overrides if o not in (*hydra, *groups)}
    return former | {override: problem for override, problem in problems.items() if problem}


def _former_names(override: str, hydra: Sequence[str]) -> list[str]:
    """A line for each setting that the YAML file of `recipe=NAME` has under its former name."""
    group, _, name = override.lstrip("+").partition("=")
    folders = [*conf.__path__, *re.findall(r"file://([^\],]+)", " ".join(hydra))]
    for file in (Path(folder) / group / f"{name}.yaml" for folder in folders):
        if file.is_file():
            pairs = renamed.nested(yaml.safe_load(file.read_text()))
            return [renamed.message(*pair) for pair in pairs]
    return []


def _problem_of(override: str, groups: Sequence[str]) -> str | None:
    """What Hydra refuses in one override, composed on top of `groups`."""
    if is_literal(override):
        return _problem_of_literal(override)
    try:
        compose_node([*groups, override])
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
        if name not in LENGTH_MAPPINGS:
            return one_line(error, key)
        rule = "it must be numbers by ranges of length"
        return f'{key} is {value}; {rule}; e.g. \'{key}={{"<4K": 0.1, ">8K": 2}}\''
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
    pattern = rf"\b{re.escape(key)}\b"
    if line.startswith(f"{section}."):
        pattern += rf"|(?<![.\w]){name}\b"
    return line.startswith(key) or re.search(pattern, line) is not None


def with_override(override: str, problem: str) -> str:
    """`override: problem`, or the problem alone if it names the key already."""
    key = override.split("=")[0]
    names_key = problem.startswith((f"{key} is ", f"{key}[")) or " is now " in problem
    return problem if names_key else f"{override}: {problem}"
