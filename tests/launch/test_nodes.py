"""Words for the launcher, torchrun's own command line, and variables of the ranks."""

import os
import socket
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from ropewalk.conf.errors import ConfigError
from ropewalk.launch import nodes, rank_variables, torchrun
from ropewalk.launch.arguments import parse
from ropewalk.launch.check import caches
from ropewalk.launch.config.compose import compose

TWO = ["recipe=demo", "launch=torchrun", "launch.nodes=2"]
WORDS = ["--comment=a, b", "--gres", "gpu:8", '--name="x"', "-v", "a=b"]


def test_words_after_the_dashes_are_the_launchers_to_the_letter() -> None:
    arguments = parse(["run", "recipe=demo", "launch=slurm", "--", *WORDS])
    assert compose(arguments.overrides[:1] + arguments.overrides[2:]).launch.arguments == WORDS


@pytest.mark.parametrize("verb", ["settings", "env", "runs"])
def test_a_verb_that_starts_nothing_takes_no_words(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([verb, "--", "-v"])
    assert f"{verb} starts no launcher: not allowed with -- WORDS" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["local", "external"])
def test_words_for_no_launcher_are_refused(kind: str) -> None:
    config = compose(["recipe=demo", f"launch={kind}", "launch.arguments=[-v]"])
    with pytest.raises(ConfigError, match=f"-- -v: launch={kind} starts no launcher that could"):
        nodes.run([config], lambda: None)


@pytest.mark.parametrize(
    ("words", "rendezvous"),
    [
        (
            ["launch.address=127.0.0.1", "launch.port=7100"],
            ("c10d", "127.0.0.1:7100", False, "127.0.0.1"),
        ),
        (['launch.arguments=["--rdzv-endpoint","h:1"]'], ("static", "h:1", False, None)),
        (["launch.nodes=1"], ("static", "", True, None)),
    ],
)
def test_torchruns_command_line_is_read_by_torchruns_own_parser(
    words: list[str], rendezvous: tuple[str, str, bool, str | None]
) -> None:
    own = ["run", *TWO, *words]
    command = torchrun.command(compose([*TWO, *words]), own)
    parsed = get_args_parser().parse_args(command[3:])
    found = (parsed.rdzv_backend, parsed.rdzv_endpoint, parsed.standalone, parsed.local_addr)
    assert found == rendezvous
    assert (parsed.nproc_per_node, parsed.max_restarts) == ("1", 0)
    assert parsed.module and parsed.training_script == "ropewalk.launch.cli"
    assert parsed.training_script_args == own and parsed.shutdown_timeout == torchrun.SHUTDOWN_S


def test_the_prefix_goes_before_torchrun() -> None:
    config = compose([*TWO, "launch.nodes=1", "launch.prefix=apptainer exec --nv 'my image.sif'"])
    assert torchrun.command(config, [])[:4] == ["apptainer", "exec", "--nv", "my image.sif"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "launch.address is unset; with launch=torchrun and launch.nodes 2 the machines meet"),
        (["launch.address=no.such.host.invalid"], "launch.address is no.such.host.invalid; this"),
    ],
)
def test_machines_that_would_not_meet_are_refused(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError) as error:
        torchrun.command(compose([*TWO, *words]), [])
    assert str(error.value).startswith(line)


def test_the_code_of_the_command_is_told_to_whom_started_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(torchrun.CODE_FILE, str(tmp_path / "code"))
    with pytest.raises(KeyboardInterrupt), torchrun.recorded_exit_code():
        raise KeyboardInterrupt
    assert (tmp_path / "code").read_text() == "75" and torchrun.CODE_FILE not in os.environ


def test_a_sweep_that_a_launcher_starts_twice_is_refused() -> None:
    env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    with pytest.raises(ConfigError, match="a sweep was started 2 times by a launcher that sets"):
        nodes.refuse_sweep([], env)
    nodes.refuse_sweep(["launch.nodes=1"], env)
    nodes.refuse_sweep([], {})


def test_variables_of_the_user_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = compose(
        ["recipe=demo", "launch.scratch=$NODE_DISK/me", "launch.env={CUDA_DEVICE_ORDER: X, A: b}"]
    ).launch
    monkeypatch.setenv("NODE_DISK", "/local")
    env = {"TRITON_CACHE_DIR": "/mine", "PYTHONFAULTHANDLER": "0"}
    assert rank_variables.missing(launch, True, env) == {
        "TORCHINDUCTOR_CACHE_DIR": "/local/me/inductor",
        "TORCH_EXTENSIONS_DIR": "/local/me/extensions",
        "CUDA_DEVICE_ORDER": "X",
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "A": "b",
    }


def test_caches_leave_a_disk_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """On several machines; one alone may keep them there."""
    launch = compose(["recipe=demo"]).launch
    monkeypatch.setattr(caches.disks, "is_network", lambda folder: ".triton" in str(folder))
    monkeypatch.setattr(caches, "existing", lambda folder: folder)
    env = {"HOME": "/nfs/me"}
    added = rank_variables.missing(launch, True, env)
    assert added["TRITON_CACHE_DIR"].endswith(f"/ropewalk-{os.getuid()}/triton")
    assert not {"TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR"} & added.keys()
    assert "TRITON_CACHE_DIR" not in rank_variables.missing(launch, False, env)
