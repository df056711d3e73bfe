"""The wandb run of a training: its id, its mode, and no wait for a server that is not there."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose
from ropewalk.train.metrics.wandb_run import connection_problem, start_wandb, wandb_mode

KEY = "0" * 40
SETTINGS = ["recipe=demo", "train.metrics.wandb=auto"]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A socket that accepts connections, as the address of wandb's server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


def test_a_resumed_training_continues_its_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr("wandb.init", lambda **kwargs: begun.append(kwargs))
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path, tmp_path / "other"):
        start_wandb(folder, compose(SETTINGS))
    first, again, other = (kwargs["id"] for kwargs in begun)
    assert first == again != other and all(kwargs["resume"] == "allow" for kwargs in begun)


@pytest.mark.parametrize(
    ("variable", "setting", "mode"),
    [
        ("offline", "online", "offline"),
        ("disabled", "auto", "disabled"),
        ("online", "offline", "online"),
        ("dryrun", "auto", "offline"),
        ("", "offline", "offline"),
        ("", "auto", "online"),
    ],
)
def test_the_variable_overrules_the_setting(
    server: Any, monkeypatch: pytest.MonkeyPatch, variable: str, setting: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode(setting) == (mode, "")


def test_without_a_key_auto_is_offline(server: Any) -> None:
    assert wandb_mode("auto") == ("offline", "")


def test_a_mode_that_wandb_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of-line")
    with pytest.raises(ValueError):  # wandb's own answer
        wandb.Settings(mode="of-line")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="^WANDB_MODE is of-line; wandb knows online, offline"):
        wandb_mode("auto")


def test_without_a_network_the_real_wandb_records_offline_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    closed_port: int,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    started = time.monotonic()
    run = start_wandb(tmp_path, compose(SETTINGS))
    assert time.monotonic() - started < 20
    run.log({"loss": 1.0}, step=1)
    run.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and f"127.0.0.1:{closed_port} does not answer" in line
    assert "wandb sync" in line


def test_a_server_that_refuses_the_run_leaves_it_offline(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modes: list[str] = []

    def init(**kwargs: Any) -> None:
        modes.append(kwargs["mode"])
        if kwargs["mode"] == "online":
            raise wandb.errors.CommError("entity x not found")

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    start_wandb(tmp_path, compose(SETTINGS))
    assert modes == ["online", "offline"]
    assert "entity x not found; the run is recorded offline" in capsys.readouterr().out


def test_a_proxy_is_asked_in_the_servers_place(
    server: Any, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("https_proxy", address)
    assert connection_problem("https://wandb.invalid") == ""
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    assert f"127.0.0.1:{closed_port} does not answer" in connection_problem("https://wandb.invalid")


KILLED = """
import sys, psutil
from pathlib import Path
from ropewalk.launch.config.compose import compose
from ropewalk.train.metrics.wandb_run import WandbDashboard, start_wandb
config = compose(["recipe=demo", "train.metrics.wandb=offline"])
dashboard = WandbDashboard(start_wandb(Path(sys.argv[1]), config))
dashboard.log({"loss": 1.0}, step=1)
children = psutil.Process().children(recursive=True)
assert children
for child in children:
    child.terminate()
psutil.wait_procs(children, timeout=30)
dashboard.log({"loss": 2.0}, step=2)
dashboard.log({"loss": 3.0}, step=3)
dashboard.finish()
"""


def test_a_scheduler_that_ends_wandbs_process_ends_no_training(tmp_path: Path) -> None:
    """SIGTERM to every process of a job, as Slurm sends it; nothing is left for the interpreter's
    own end, either."""
    words = [sys.executable, "-c", KILLED, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
