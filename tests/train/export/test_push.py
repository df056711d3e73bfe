"""A push to a stand-in of the hub, by huggingface_hub's own client in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, hub

PROGRAM = """
import sys
from pathlib import Path
from ropewalk.conf.errors import ConfigError
from ropewalk.train.export import push
folder, repository, private = sys.argv[1:]
try:
    push.refuse(repository, private == "True")
    print(push.push(Path(folder), repository, private == "True"))
except ConfigError as error:
    print(error)
    sys.exit(2)
"""


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = tmp_path / "hf"
    (result / ".eval_results").mkdir(parents=True)
    (result / "README.md").write_text("---\nlicense: mit\n---\n# card\n")
    (result / "config.json").write_text("{}")
    (result / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    (result / ".eval_results" / "gsm8k.yaml").write_text("[]\n")
    return result


def pushed(url: str, folder: Path, private: bool = True, token: str = TOKEN) -> tuple[int, str]:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HOME": str(folder.parent / "home"), "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    words = [sys.executable, "-c", PROGRAM, str(folder), "me/mine", str(private)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, done.stdout


def test_a_push_is_private_whole_and_sends_no_weights_twice(server: Hub, folder: Path) -> None:
    code, line = pushed(server.url, folder)
    assert (code, line) == (
        0,
        f"export: pushed hf/ to {server.url}/me/mine (private), commit {'b' * 40}\n",
    )
    repository = server.repositories["me/mine"]
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    assert repository == {"private": True, "files": files}
    assert sum("PUT /blob" in call for call in server.calls) == 1
    assert pushed(server.url, folder)[0] == 0  # again: what is there is not sent
    assert sum("PUT /blob" in call for call in server.calls) == 1


def test_a_push_that_broke_off_goes_on(server: Hub, folder: Path) -> None:
    server.refusing = {"/commit/": (503, "")}
    code, line = pushed(server.url, folder)
    assert code == 2 and "the hub answers 503" in line
    server.refusing = {}
    assert pushed(server.url, folder)[0] == 0
    assert sum("PUT /blob" in call for call in server.calls) == 1


def test_a_public_repository_is_not_pushed_to_unasked(server: Hub, folder: Path) -> None:
    server.repositories["me/mine"] = {"private": False, "files": {}}
    code, line = pushed(server.url, folder)
    assert code == 2 and "it is there and public" in line
    assert server.repositories["me/mine"]["files"] == {}
    assert pushed(server.url, folder, private=False)[0] == 0


@pytest.mark.parametrize(
    ("refusing", "token", "text"),
    [
        ({}, "hf_wrong", "401"),
        ({"/api/models/": (403, "GatedRepo")}, TOKEN, "gated"),
        ({"/api/repos/create": (403, "")}, TOKEN, "403"),
    ],
    ids=["a wrong token", "gated", "no right to write"],
)
def test_a_hub_that_refuses_is_the_users_line(
    server: Hub, folder: Path, refusing: dict[str, tuple[int, str]], token: str, text: str
) -> None:
    server.refusing = refusing
    code, line = pushed(server.url, folder, token=token)
    assert code == 2 and line.startswith("export.push is me/mine; the hub must let this user")
    assert text in line and "hf auth login" in line


def test_a_hub_that_does_not_answer_is_the_users_line(folder: Path) -> None:
    code, line = pushed("http://127.0.0.1:9", folder)
    assert code == 2 and "the hub does not answer" in line
