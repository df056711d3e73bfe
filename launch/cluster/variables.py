"""The environment of a job on a cluster: set in its script or manifest, where a user sees it."""

import shlex

from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.rank_variables import CACHES, COMMON


def variables(launch: LaunchConfig) -> dict[str, str]:
    """Ours, with the user's over them. `launch.scratch` may name variables of the node's shell."""
    ours = dict(COMMON)
    if launch.scratch is not None:
        ours |= {name: f"{launch.scratch}/{folder}" for name, folder in CACHES.items()}
    return {**ours, **launch.env}


def exports(launch: LaunchConfig) -> list[str]:
    """Lines of shell. Values of `launch.scratch` are expanded there; those of the user are taken
    to the letter."""
    lines = []
    for name, value in variables(launch).items():
        ours = name in CACHES and name not in launch.env
        lines.append(f"export {name}={_expanded(value) if ours else shlex.quote(value)}")
    return lines


def _expanded(value: str) -> str:
    for character in '\\"`':
        value = value.replace(character, f"\\{character}")
    return f'"{value}"'
