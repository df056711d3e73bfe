"""The kit for a GPU machine without a network: what it holds, its size, and that it starts."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import kit_build
import kit_packages
import pytest
from kit_packages import Target, missing_packages
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TABLE = {
    "trainer": ["Engine>=1", "torch>=2", "old; python_version < '3.12'", "win; os_name == 'nt'"],
    "engine": ["config[yaml]>=2", "numpy"],
    "config": ["parser", "yaml; extra == 'yaml'", "toml; extra == 'toml'"],
    "parser": ["Engine"],  # a circle
    "yaml": [],
    "torch": ["nvidia-cublas"],
    "old": [],
}


def missing(present: dict[str, str | None], python: str = "3.12") -> list[str]:
    return missing_packages(["trainer"], present, Target(python), TABLE.__getitem__)


def test_what_is_missing_is_closed_without_what_stands_beside_torch() -> None:
    """By hand from the table: markers of the target, extras that are asked for, no circle."""
    assert missing({"numpy": None}) == ["config", "engine", "parser", "trainer", "yaml"]
    assert "old" in missing({"numpy": None}, python="3.11")


def test_a_present_package_brings_nothing_and_an_old_one_is_missing() -> None:
    present = {"numpy": None, "engine": "1.0", "trainer": None}
    assert missing(present) == []
    assert missing(present | {"trainer": None, "engine": "0.9"}) == []
    assert missing({"numpy": None, "engine": "0.9"}) == missing({"numpy": None})


@pytest.mark.parametrize(
    "text",
    [
        "Package    Version\n---------- -------\ntorch      2.11.0+cu130\nTyping_Extensions 4.1",
        "torch==2.11.0+cu130\ntyping-extensions==4.1\n-e git+x@1#egg=y\n",
    ],
)
def test_a_pip_list_is_read(text: str) -> None:
    assert kit_packages.packages_of(text) == {"torch": "2.11.0+cu130", "typing-extensions": "4.1"}


def real_missing(present: kit_packages.Versions) -> list[str]:
    roots = kit_packages.roots(metadata.requires("ropewalk") or [])
    return missing_packages(roots, present, Target())


def test_the_kit_holds_what_a_usual_machine_lacks() -> None:
    """Each requirement of each wheel, for the target, is another wheel, present, or torch's."""
    present = kit_packages.usual_packages()
    names = real_missing(present)
    assert {"deepspeed", "hjson", "hydra-core", "omegaconf", "antlr4-python3-runtime"} <= {*names}
    assert not {"torch", "numpy", "wandb", "matplotlib", "triton"} & {*names}
    environment: Any = {**Target().markers, "extra": ""}
    for name in names:
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                needed = canonicalize_name(requirement.name)
                assert needed in {*names, *present, "torch"}, f"{name} needs {needed}"


def test_a_machine_that_has_everything_needs_nothing() -> None:
    present = {canonicalize_name(d.name): d.version for d in metadata.distributions()}
    assert real_missing(present) == []
    assert "transformers" in real_missing(present | {"transformers": "5.17.0"})


def test_a_kit_above_its_size_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    (tmp_path / "large.whl").write_bytes(bytes(3 << 20))
    (tmp_path / "small.whl").write_bytes(bytes(1 << 20))
    assert kit_build.checked_size(tmp_path) == 4 << 20
    with pytest.raises(SystemExit, match=r"4\.0 MiB; it must be at most 3; .* large.whl 3\.0"):
        kit_build.checked_size(tmp_path, limit=3 << 20)


def test_wheels_for_an_older_glibc_fit() -> None:
    tags = kit_build.platform_tags("manylinux_2_28_x86_64")
    assert {"manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= {*tags}
    assert "manylinux_2_29_x86_64" not in tags
    assert kit_build.platform_tags("win_amd64") == ["win_amd64"]


@pytest.mark.slow
def test_the_kit_starts_beside_torch_and_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    """For this machine's Python; it needs a package registry, or pip's cache."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    kit = tmp_path / "kit"
    build = [sys.executable, str(ROOT / "tests" / "gpu_kit" / "kit_build.py")]
    built = subprocess.run(
        [*build, "--python", python, "--out", str(kit)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert kit_build.checked_size(kit) <= kit_build.LIMIT_BYTES
    beside_torch = tmp_path / "beside-torch"
    beside_torch.mkdir()
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.name)
        if name in kit_packages.USUAL.split() or kit_packages.BESIDE_TORCH.fullmatch(name):
            _link(distribution, beside_torch)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHON": str(_empty_venv(tmp_path / "venv", beside_torch)),
    }
    result = subprocess.run(
        [str(kit / "run.sh"), "1"], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 1 and "no CUDA device: torch" in result.stderr, result
    imported = subprocess.run(
        [environment["PYTHON"], "-c", "import ropewalk.train.worker as w; print(w.__file__)"],
        env={**environment, "PYTHONPATH": str(kit / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert str(kit / "site") in imported.stdout, imported.stderr


def _link(distribution: metadata.Distribution, folder: Path) -> None:
    """The files of an installed package, as links."""
    for top in {file.parts[0] for file in distribution.files or [] if ".." not in file.parts}:
        source = Path(str(distribution.locate_file(top)))
        if source.exists() and not (folder / top).exists():
            (folder / top).symlink_to(source)


def _empty_venv(folder: Path, site_packages: Path) -> Path:
    """A venv that has what lies in `site_packages` only."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (purelib,) = folder.glob("lib/python*/site-packages")
    (purelib / "beside-torch.pth").write_text(f"{site_packages}\n")
    return folder / "bin" / "python"
