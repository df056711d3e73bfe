"""The Weights & Biases run of a training, online only where its server answers."""

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config

if TYPE_CHECKING:
    import wandb

SERVER = "https://api.wandb.ai"
CONNECT_TIMEOUT_S = 5.0
INIT_TIMEOUT_S = 30.0
PORTS = {"http": 80, "https": 443}
MODES = ("online", "offline", "disabled", "shared")
FORMER_MODES = {"dryrun": "offline", "run": "online"}


class WandbDashboard:
    """A wandb run until its own process ends, as it does where a scheduler signals every process of
    a job. Then one line says so, and the numbers go on in metrics.jsonl."""

    def __init__(self, run: "wandb.Run") -> None:
        self.run: wandb.Run | None = run

    def log(self, scalars: dict[str, float], step: int) -> None:
        self._call(lambda run: run.log(scalars, step=step))

    def finish(self) -> None:
        self._call(lambda run: run.finish())

    def _call(self, action: "Callable[[wandb.Run], None]") -> None:
        import wandb

        if self.run is None:
            return
        try:
            action(self.run)
        except (OSError, wandb.Error) as error:
            self.run = None
            log.info(
                f"wandb: its process is gone ({error}); what follows is in metrics.jsonl alone"
            )
            with suppress(OSError, wandb.Error):
                wandb.teardown()  # else it asks that process again at the end


def start_wandb(folder: Path, config: Config) -> "wandb.Run":
    """A wandb run. A resumed training continues its earlier run.

    Without a server that answers it is offline, and one line says so: a dashboard never ends or
    delays a training.
    """
    import wandb

    mode, reason = wandb_mode(config.train.metrics.wandb)
    if reason:
        log.info(_offline(reason))
    try:
        return _init(folder, config, mode)
    except wandb.Error as error:  # no such entity, a wrong key, a server that answers late
        if mode != "online":
            raise
        log.info(_offline(" ".join(str(error).split()) or type(error).__name__))
        wandb.teardown()
        return _init(folder, config, "offline")


def wandb_mode(setting: str) -> tuple[str, str]:
    """The mode, and why it is not the one that was asked for (empty: it is).

    `WANDB_MODE` overrules the setting, as in every program that uses wandb.
    Raises: ConfigError for a `WANDB_MODE` that wandb does not know.
    """
    refuse_unknown_mode()
    mode = os.environ.get("WANDB_MODE") or setting
    mode = FORMER_MODES.get(mode, mode)
    if mode == "auto":
        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    if mode == "online" and (problem := connection_problem(server())):
        return "offline", problem
    return mode, ""


def refuse_unknown_mode() -> None:
    """Raises: ConfigError for a `WANDB_MODE` that wandb does not know."""
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in (*MODES, *FORMER_MODES):
        raise ConfigError(
            f"WANDB_MODE is {mode}; wandb knows {', '.join(MODES)}; correct the variable, or "
            "unset it"
        )


def server() -> str:
    """The address that wandb would send to."""
    return os.environ.get("WANDB_BASE_URL") or SERVER


def connection_problem(url: str) -> str:
    """Why no connection to `url`, or to the proxy before it, can be opened; empty: one can."""
    target = urlsplit(url)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(target.netloc):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (target.hostname or "", target.port or PORTS.get(target.scheme, 443))
    try:
        socket.create_connection(address, CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{address[0]}:{address[1]} does not answer ({error})"
    return ""


def _offline(reason: str) -> str:
    return (
        f"wandb: {reason}; the run is recorded offline in train/wandb; "
        "send it later with wandb sync"
    )


def _init(folder: Path, config: Config, mode: str) -> "wandb.Run":
    """Nothing of the machine, its user or its paths is recorded."""
    import wandb

    metrics = config.train.metrics
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        init_timeout=INIT_TIMEOUT_S,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    return wandb.init(
        project=metrics.wandb_project,
        entity=metrics.wandb_entity,
        group=metrics.group,
        tags=metrics.tags,
        notes=metrics.notes,
        name=config.name,
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        id=wandb_run_id(folder),
        resume="allow",
        settings=settings,
    )


def wandb_run_id(folder: Path) -> str:
    """A random id, drawn once for a training and stored in its folder."""
    path = folder / "wandb_id"
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text()
