"""What the manifest binds: the code by git's own word, packages by the libraries' own, settings
without folders, and no secret."""

import json
import os
import subprocess
from pathlib import Path

import numpy
import pytest
import torch
import transformers

from ropewalk.conf import check
from ropewalk.launch.config.compose import compose
from ropewalk.launch.reproduce import code, environment, packages, settings

SECRETS = [
    "hf_abcdefghijklmnopqrstuvwxyz012345",
    "sk-proj0123456789abcdef",
    "0123456789abcdef0123456789abcdef01234567",
    "correct-horse-9-battery",
    "AKIAIOSFODNN7EXAMPLE",
    "u:pw123456@example.org",
]
LINES = [
    f'+token = "{SECRETS[0]}"',
    f"+export API={SECRETS[1]}",
    f"+wandb login {SECRETS[2]}",
    f'-password: "{SECRETS[3]}"',
    f"+aws {SECRETS[4]}",
    f"+url = 'https://{SECRETS[5]}/x'",
]
PLAIN = [
    "+key = row[0]",
    "+for key, value in pairs:",
    " tokens: int = 4096",
    "-    key=lambda x: x",
    "+def test_that_a_long_name_with_2_digits_is_no_secret() -> None:",
    "+from ropewalk.launch.reproduce import code",
]


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("x = 1\ny = 2\n")
    (folder / "gone.py").write_text("z = 3\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    monkeypatch.setattr(code, "ROOT", folder)
    return folder


def test_the_recorded_changes_are_those_of_the_working_tree(checkout: Path, tmp_path: Path) -> None:
    """git applies them to the recorded commit and gets the same files."""
    (checkout / "a.py").write_text("x = 1\ny = 4\n")
    (checkout / "gone.py").unlink()
    (checkout / "new.py").write_text("w = 5\n\nv = 6\n")
    known = code.code()
    assert known["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert known["changed"] == ["a.py", "gone.py", "new.py"] and not known["hidden_lines"]
    git(tmp_path, "clone", "-q", str(checkout), "clone")
    git(tmp_path / "clone", "checkout", "-q", known["commit"])
    (tmp_path / "changes").write_text(known["diff"])
    git(tmp_path / "clone", "apply", "--unidiff-zero", str(tmp_path / "changes"))
    names = {path.name: path.read_text() for path in (tmp_path / "clone").glob("*.py")}
    assert names == {path.name: path.read_text() for path in checkout.glob("*.py")}


def test_a_clean_checkout_has_no_diff_and_no_checkout_says_so(checkout: Path) -> None:
    known = code.code()
    assert known["changed"] == [] and "diff" not in known
    (checkout / ".git").rename(checkout / "elsewhere")
    known = code.code()
    assert (known["commit"], known["reason"]) == (None, "not a git checkout")
    assert len(known["digest"]) == 64


def test_no_secret_and_no_user_stands_in_the_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/ada")
    lines = [*LINES, "+x = '/srv/people/ada/data'", "+y = '/home/grace/data'", *PLAIN]
    text, hidden = code.without_secrets("\n".join(lines))
    assert hidden == len(LINES)
    assert not [secret for secret in (*SECRETS, "ada", "grace") if secret in text]
    assert [line for line in PLAIN if line not in text.splitlines()] == []


def test_a_large_diff_is_its_digest_and_its_files() -> None:
    diff = "--- a/x.py\n+++ b/x.py\n" + "+ordinary text\n" * 40_000
    known = code.described(diff)
    assert known["diff"] is None and known["changed"] == ["x.py"] and "bytes" in known["reason"]


def test_packages_are_those_that_python_imports() -> None:
    known = packages.packages()
    assert known["numpy"] == numpy.__version__
    assert known["transformers"] == transformers.__version__
    assert known["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    lock = packages.lock({"a": "1.0", "b": "2.0 (editable)", "c": "3.0 (git 12ab)"})
    assert lock == "a==1.0\n# b 2.0 (editable)\n# c 3.0 (git 12ab)\n"


def test_variables_that_change_numbers_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0",
              "NCCL_ALGO": "Ring", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
              "TORCHINDUCTOR_MAX_AUTOTUNE": "1", "OMP_NUM_THREADS": "3"}  # fmt: skip
    others = {"HF_TOKEN": "hf_x", "WANDB_API_KEY": "k", "NCCL_SOCKET_IFNAME": "eth0",
              "TORCHINDUCTOR_CACHE_DIR": "/scratch/ada", "HOME": "/srv/people/ada"}  # fmt: skip
    for name in {*os.environ}:
        if environment.VARIABLES.fullmatch(name):
            monkeypatch.delenv(name)
    for name, value in {**wanted, **others}.items():
        monkeypatch.setenv(name, value)
    assert environment.variables() == wanted


def test_settings_lose_folders_alone_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/ada")
    paths = {"runs_dir": "/srv/people/ada/runs", "data.sources.stdlib.path": "~/texts"}
    words = [f"{key}={value}" for key, value in paths.items()]
    config = compose(["recipe=demo", "cache_dir=./cache", *words])
    given = settings.values(config)
    given["launch"]["env"] = {"HF_TOKEN": "abc"}
    kept = settings.recorded(given)
    assert "people" not in json.dumps(kept) and kept["cache_dir"] == "./cache"
    assert "HF_TOKEN" not in json.dumps(kept)
    assert settings.left_out(given, kept) == list(paths)
    assert check.of_values(settings.replaced(kept, paths)) == config
