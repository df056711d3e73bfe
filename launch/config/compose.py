"""Overrides of the command line -> one checked configuration."""

from collections.abc import Sequence
from pathlib import Path

from ropewalk.conf import renamed
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.explain import diagnose_overrides, remaining_problems, with_override
from ropewalk.launch.config.hydra import HYDRA_ERRORS, compose_checked, one_line


def compose(overrides: Sequence[str]) -> Config:
    """The checked configuration. Raises: ConfigError that lists every problem, one a line."""
    if problems := _former_names(overrides):
        raise ConfigError("\n".join(problems))
    try:
        return compose_checked(overrides)
    except HYDRA_ERRORS as error:
        wrong = diagnose_overrides(overrides)
        lines = [with_override(o.lstrip("+"), problem) for o, problem in wrong.items()]
        lines = lines or [one_line(error)]
        raise ConfigError("\n".join(lines + remaining_problems(overrides, wrong))) from None


def _former_names(overrides: Sequence[str]) -> list[str]:
    """The overrides under former names, and the problems that remain under the present names."""
    pairs = [renamed.renaming(override) for override in overrides]
    lines = [renamed.message(*pair) for pair in pairs if pair]
    if not lines:
        return []
    present = [
        override.replace(*pair, 1) if pair else override
        for override, pair in zip(overrides, pairs, strict=True)
    ]
    try:
        compose(present)
    except ConfigError as error:
        lines += str(error).splitlines()
    return list(dict.fromkeys(lines))


def config_dir_override(folder: str) -> str:
    """`--config-dir DIR` as an override of Hydra's. Raises: ConfigError if DIR is no folder."""
    if not Path(folder).is_dir():
        raise ConfigError(
            f"--config-dir is {folder}; it must be a folder with YAML such as recipe/mine.yaml; "
            "create it"
        )
    return f"hydra.searchpath=[file://{Path(folder).resolve()}]"
