"""One command on several machines: the first one leads the stages, the others start ranks for it.

A launcher of the user's starts the same command everywhere, or `launch=torchrun` does.
"""

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.conf.errors import DONE, STOPPED, ConfigError
from ropewalk.conf.launchers import SUBMITTED
from ropewalk.launch import rank_variables
from ropewalk.train.launcher import world as worlds
from ropewalk.train.launcher.world import World

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config

Attempt = Callable[[], AbstractContextManager[None]]


def run(
    configs: Sequence["Config"],
    body: Callable[[], None],
    attempt: Attempt = nullcontext,
    dry_run: bool = False,
) -> None:
    """Run `body` where this command leads or is alone; else follow, and exit as the leader does.

    `attempt`: what surrounds either, on every machine. `dry_run`: show torchrun's command, and
    start none. Raises: RopewalkError; SystemExit at the end of a command that followed.
    """
    from ropewalk.launch import torchrun

    config = configs[0]
    _refuse_words(config)
    if config.launch.kind in SUBMITTED:
        with attempt():
            body()
    elif config.launch.kind == "torchrun" and not torchrun.is_inside(os.environ):
        if not dry_run:
            sys.exit(torchrun.start(config))
        print(f"launch: it would start {torchrun.shown(config)}")
        body()
    else:
        with torchrun.recorded_exit_code():
            _join(configs, body, attempt)


def _join(configs: Sequence["Config"], body: Callable[[], None], attempt: Attempt) -> None:
    world = worlds.of(configs[0])
    set_variables(configs[0], several_machines=world.size > 1 and world.nodes != 1)
    if world.rank:
        with attempt():
            follow(configs, world)
        return

    def attempted() -> None:  # the others hear a refusal of it too
        with attempt():
            body()

    if world.size == 1:
        attempted()
    else:
        lead(configs, world, attempted)


def set_variables(config: "Config", several_machines: bool) -> None:
    """For the ranks, which inherit them; shown where several machines must have them alike."""
    added = rank_variables.missing(config.launch, several_machines, os.environ)
    os.environ.update(added)
    if added and several_machines:
        shown = " ".join(f"{name}={value}" for name, value in added.items())
        print(f"ranks get {shown} (unless you set them)", file=sys.stderr)


def lead(configs: Sequence["Config"], world: World, body: Callable[[], None]) -> None:
    """Raises: RopewalkError, ConfigError when the others do not come, or differ."""
    from ropewalk.train.launcher import leader as leaders

    launch = configs[0].launch
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # outside of a training
    leader = leaders.Leader(world, introduction(configs, world))
    print(f"waiting for {world.size - 1} more at {world.address}:{leader.port}", file=sys.stderr)

    def gather_and_run() -> None:
        leader.gather(launch.join_timeout_s, launch.nodes, folders(configs))
        names = ", ".join(host for host, _ in leader.layout.hosts[:8])
        more = " and more" if leader.layout.nodes > 8 else ""
        print(
            f"{leader.layout.nodes} machine(s), {leader.layout.processes} command(s) on each, by "
            f"{world.launcher}: {names}{more}",
            file=sys.stderr,
        )
        body()

    leaders.lead(leader, gather_and_run)


def follow(configs: Sequence["Config"], world: World) -> None:
    """Raises: SystemExit with the leader's code; ConfigError when it does not come."""
    from ropewalk.train.launcher.follower import Follower
    from ropewalk.train.launcher.ranks import start_here

    own = introduction(configs, world)
    print(f"command {world.rank} of {world.size} waits for {world.address}", file=sys.stderr)
    start = partial(start_here, configs[0], world=world)
    code = Follower(world, own, start).follow(configs[0].launch.join_timeout_s)
    if code == STOPPED:
        raise KeyboardInterrupt
    if code != DONE:
        sys.exit(code)


def introduction(configs: Sequence["Config"], world: World) -> dict[str, Any]:
    """What this command says of itself to the leader, which holds the facts of all to be equal."""
    from ropewalk.conf.check import to_yaml
    from ropewalk.launch.pipeline.versions import code_digest, versions
    from ropewalk.train.launcher.command import ranks_per_node

    settings = "".join(to_yaml(config) for config in configs)
    facts = {
        "settings": hashlib.sha256(settings.encode()).hexdigest()[:12],
        **versions(),
        "code": code_digest()[:12],
        "ranks": ranks_per_node(configs[0]),
    }
    return {
        "host": socket.gethostname(),
        "node": world.node,
        "local_rank": world.local_rank,
        "facts": facts,
    }


def folders(configs: Sequence["Config"]) -> list[Path]:
    """Those that all machines must share."""
    names = [name for config in configs for name in (config.runs_dir, config.cache_dir)]
    return [Path(name).expanduser() for name in dict.fromkeys(names)]


def refuse_sweep(words: Sequence[str], env: Mapping[str, str] = os.environ) -> None:
    """Raises: ConfigError for a sweep that a launcher started several times."""
    world = worlds.read(env)
    if world.size > 1 and "launch.nodes=1" not in words:
        raise ConfigError(
            f"a sweep was started {world.size} times by {world.launcher}; one command starts all "
            "of its runs; start it once, choose launch=slurm for a job a run, or set "
            "launch.nodes=1 if the others are no part of it"
        )


def _refuse_words(config: "Config") -> None:
    """Raises: ConfigError for words to a launcher that this command does not start."""
    launch = config.launch
    starts_none = launch.kind == "external" or (
        launch.kind == "local" and config.train.launcher.hostfile is None
    )
    if launch.arguments and starts_none:
        raise ConfigError(
            f"-- {' '.join(launch.arguments)}: launch={launch.kind} starts no launcher that could "
            "take these words; choose launch=torchrun or launch=slurm, or leave them out"
        )
