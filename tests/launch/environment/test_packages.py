"""Versions and builds beside torch's own words, importlib.metadata and pyproject.toml."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ropewalk.launch.environment import packages
from ropewalk.train import torch_build as builds
from ropewalk.train.torch_build import TorchBuild, torch_build

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPT = """
import sys, torch
print(torch.__version__, torch.version.cuda, torch.version.hip, torch.version.git_version)
has_nccl = torch.distributed.is_nccl_available()
print(".".join(map(str, torch.cuda.nccl.version())) if has_nccl else "")
"""


def test_the_build_is_that_of_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first, nccl = done.stdout.rstrip("\n").split("\n")
    build = torch_build()
    assert build is not None
    assert [build.version, str(build.cuda), str(build.hip), build.git_version] == first.split()
    if build.cuda is not None:
        assert dict(packages.rows())["NCCL"] == nccl


def test_every_need_of_the_project_is_a_row() -> None:
    rows = dict(packages.rows())
    for text in PROJECT["dependencies"]:
        name = Requirement(text).name
        version = importlib.metadata.version(name)
        assert rows[name].startswith(version.partition("+")[0]), name


def test_every_extra_is_a_row_with_its_packages_or_the_install_line() -> None:
    rows = dict(packages.extras())
    assert list(rows) == [f"extra {extra}" for extra in PROJECT["optional-dependencies"]]
    for extra, texts in PROJECT["optional-dependencies"].items():
        row, missing = rows[f"extra {extra}"], []
        for requirement in map(Requirement, texts):
            try:
                version = importlib.metadata.version(requirement.name)
                assert f"{requirement.name} {version}" in row
            except importlib.metadata.PackageNotFoundError:
                missing.append(requirement.name)
        assert ("missing" in row) == bool(missing)
        assert all(name in row.partition("missing")[2] for name in missing)
        if missing:
            line = row.partition(": ")[2]
            assert line.startswith("pip install ") and line.endswith(f" -e '.[{extra}]'")
            assert f".[{extra}]" in (ROOT / "README.md").read_text() or extra == "dev"


def test_an_installed_package_that_is_too_old_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda _: "1.0")
    requirement = Requirement("peft>=1.1")
    assert packages.installed_text(requirement) == "1.0, needed: >=1.1"
    assert packages.installed_text(Requirement("peft>=1.0")) == "1.0"
    monkeypatch.setattr(packages, "_requires", lambda: ['peft>=1.1; extra == "lora"'])
    expected = "missing peft>=1.1: pip install -e '.[lora]'"
    assert packages.extra_text("lora") == expected
    monkeypatch.setattr(packages, "ROOT", Path("/nowhere"))
    assert packages.extra_text("lora").endswith("pip install 'ropewalk[lora]'")


def test_markers_of_this_machine_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a", 'b; sys_platform == "win32"', 'c; extra == "x"', 'd; extra == "y"']
    lines += ['e; extra == "x" and sys_platform == "win32"']
    monkeypatch.setattr(packages, "_requires", lambda: lines)
    assert [r.name for r in packages.requirements("")] == ["a"]
    assert [r.name for r in packages.requirements("x")] == ["c"]


def git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_a_checkout_has_its_commit() -> None:
    text = packages.ropewalk_text()
    assert text.startswith(f"{PROJECT['version']}, commit {git('rev-parse', 'HEAD')[:12]}")
    changed = git("status", "--porcelain", "-uno").splitlines()
    assert ("files changed" in text) == bool(changed)


def test_without_git_the_version_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    assert packages.ropewalk_text().startswith(f"{PROJECT['version']}, a checkout (git ended")
    monkeypatch.setenv("PATH", "")
    assert "git did not start" in packages.ropewalk_text()
    monkeypatch.setattr(packages, "ROOT", tmp_path / "site-packages")
    assert packages.ropewalk_text() == PROJECT["version"]


# -- broken installs


def test_metadata_without_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda _: "2.14.1")
    assert packages.torch_text(None).startswith("broken: 2.14.1 by its metadata")
    monkeypatch.setattr(packages, "version", lambda _: None)
    assert packages.torch_text(None) == "not installed"


def test_metadata_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda _: "2.13.0")
    text = packages.torch_text(TorchBuild("2.14.1+cu130", "13.0", None, "5c4886908584029"))
    assert text == (
        "2.14.1+cu130 (CUDA 13.0, git 5c4886908584), but 2.13.0 by its metadata; reinstall"
    )


def test_a_rocm_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda _: "2.14.1")
    text = packages.torch_text(TorchBuild("2.14.1+rocm7.0", None, "7.0.2", ""))
    assert text == "2.14.1+rocm7.0 (ROCm 7.0.2, git unknown)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("__version__ = '2.14.1'\ncuda = None\n", TorchBuild("2.14.1", None, None, "")),
        (
            "__version__ = '3'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None",
            TorchBuild("3", "13.0", None, ""),
        ),
        ("cuda = '13.0'\n", None),
        ("__version__ = (", None),
        ("\0", None),
        (None, None),
    ],
)
def test_version_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: TorchBuild | None
) -> None:
    file = tmp_path / "version.py"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(builds, "module_path", lambda _: file if file.exists() else None)
    assert torch_build.__wrapped__() == expected
