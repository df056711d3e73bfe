"""The command of a job, in the words that were typed."""

import shlex
import sys
from collections.abc import Sequence

from ropewalk.conf.launchers import LaunchConfig

REPLACED = (
    *("launch", "launch.kind", "launch.prefix", "launch.arguments", "launch.follow"),
    "launch.slurm.requeue",
)
"""Settings that a job's command has other values of."""


def job_words(
    verb: str, typed: Sequence[str], launch: LaunchConfig, one_node: bool = False
) -> list[str]:
    """The words after `ropewalk` on each node of a job, where they join as its launcher says.

    `typed`: the words after the verb, without those for the launcher. `one_node`: of a job that
    has one, however many the training has.
    """
    replaced = (*REPLACED, "launch.nodes") if one_node else REPLACED
    kept = [word for word in typed if word.lstrip("+").partition("=")[0] not in replaced]
    requeue = str(launch.kind == "slurm" and launch.slurm.requeue).lower()
    own = ["launch=local", "launch.nodes=1"] if one_node else ["launch=external"]
    own.append(f"launch.slurm.requeue={requeue}")
    own += ["launch.prefix=null"] if launch.prefix is not None else []
    own += ["launch.arguments=[]"] if launch.arguments else []
    return [verb, *kept, *own]


def shell_command(words: Sequence[str], launch: LaunchConfig) -> str:
    """As a line of shell. With a prefix, such as a container's, it is the `ropewalk` in there;
    else this Python's."""
    if launch.prefix is not None:
        return shlex.join(["ropewalk", *words])
    return shlex.join([sys.executable, "-m", "ropewalk.launch.cli", *words])
