"""No key, password or user's name is in a report: names and values as programs have them."""

import getpass
import os

import pytest

from ropewalk.launch.environment import report, shown

KEY = "a1B2c3D4e5F6g7H8i9J0k1L2"
SECRETS = {
    "HF_TOKEN": KEY,
    "HUGGING_FACE_HUB_TOKEN": KEY,
    "WANDB_API_KEY": KEY * 2,
    "HF_SECRET": "short",
    "NCCL_PASSWORD": "p",
    "TORCH_PASSWD": "p",
    "GLOO_CREDENTIALS": "p",
    "WANDB_IDENTITY_TOKEN_FILE": "/run/secret",
    "TRITON_AUTH": "p",
    "HF_SESSION": "p",
    "TORCH_token": KEY,
    # an innocent name, and a key for its value
    "HF_ENDPOINT": f"https://user:{KEY}@mirror.example/hf",
    "HF_MIRROR": f"https://mirror.example/hf?token={KEY}",
    "https_proxy": f"http://alice:{KEY}@proxy.example:3128",
    "WANDB_NOTES": f"the key is hf_{KEY}",
    "NCCL_NOTE": f"password={KEY}",
    "TORCH_HEADER": f"Authorization: Bearer {KEY}",
    "DS_ONE": f"sk-{KEY}",
    "DS_TWO": f"ghp_{KEY}",
    "DS_THREE": f"eyJhbGciOiJIUzI1NiJ9.{KEY}.x",
    "DS_FOUR": KEY,
    "DS_FIVE": f"AKIA{KEY.upper()}",
    "PYTHONPATH": f"-----BEGIN PRIVATE KEY----- {KEY}",
}
PLAIN = {
    "NCCL_DEBUG": "INFO",
    "NCCL_SOCKET_IFNAME": "=eth0,ib0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True,pinned_max_round_threshold_mb:1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
    "LD_LIBRARY_PATH": "/usr/local/cuda-13.0/lib64:/opt/amazon/efa/lib",
    "TORCH_CUDA_ARCH_LIST": "8.0;9.0a;10.0+PTX",
    "HF_HOME": "/scratch/caches/huggingface-2026/a1b2c3d4e5f6a7b8c9d0e1f2a3b4",
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_never_shown(name: str) -> None:
    text = shown.value(name, SECRETS[name])
    assert KEY not in text and "alice" not in text and SECRETS[name] not in text
    rows = dict(report.variables(SECRETS | PLAIN))
    assert rows[name] == text  # it is listed


@pytest.mark.parametrize("name", PLAIN)
def test_other_values_are_shown_as_they_are(name: str) -> None:
    assert shown.value(name, PLAIN[name]) == PLAIN[name]


def test_an_address_keeps_its_host() -> None:
    assert shown.value("https_proxy", "http://alice:pw@proxy:3128") == "http://***@proxy:3128"
    assert shown.value("HF_ENDPOINT", "https://hub.example/a?x=1#y") == "https://hub.example/a?***"


def test_home_and_user_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("LOGNAME", "alice")
    assert getpass.getuser() == "alice"
    assert shown.path("/home/alice/.cache:/home/alice") == "~/.cache:~"
    assert shown.path("/home/alicent/x") == "/home/alicent/x"
    assert shown.path("/scratch/alice/hf") == "/scratch/$USER/hf"
    assert shown.path("/scratch/malice/hf") == "/scratch/malice/hf"


def test_without_home_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a number without a name in a container."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    assert shown.path("/scratch/hf") == "/scratch/hf"
    monkeypatch.setenv("HOME", "/")
    assert shown.path("/scratch/hf") == "/scratch/hf"


def test_a_value_is_one_line_of_bounded_length() -> None:
    assert shown.value("NCCL_DEBUG", "a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"
    assert len(shown.value("LD_LIBRARY_PATH", "/x" * 10_000)) == shown.LONGEST
    assert shown.value("NCCL_DEBUG", "") == "(set, empty)"


def test_of_a_launcher_the_names_alone() -> None:
    env = {"SLURM_JOB_ID": "12", "SLURM_JOB_USER": "alice", "RANK": "0", "EDITOR": "vi"}
    rows = list(report.variables(env))
    assert rows == [("inside a launcher", "RANK, SLURM_JOB_ID, SLURM_JOB_USER")]
