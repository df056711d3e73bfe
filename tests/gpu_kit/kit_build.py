"""`make gpu-kit`: what a GPU machine without a network needs beside torch, in dist/gpu-kit.

    make gpu-kit
    make gpu-kit KIT="--python 3.12 --platform manylinux_2_28_x86_64 --have pip-list.txt"

`--have` is the output of `pip list` on that machine. Wheels are those of the versions here.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from io import BytesIO
from pathlib import Path

import kit_packages
from kit_packages import Target

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 60 * 2**20
TREE = ("tests", "pyproject.toml", "LICENSE")
OWN = "ropewalk"


def main() -> None:
    arguments = _arguments()
    folder, target = arguments.out, Target(arguments.python, arguments.platform)
    present = kit_packages.packages_of(arguments.have.read_text()) if arguments.have else None
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = _committed_files(Path(scratch) / "source")
        _build(str(source), wheels)
        for name in TREE:
            _copy(source / name, folder / name)
    own = metadata.requires(OWN) or []
    names = kit_packages.missing_packages(
        kit_packages.roots(own), present or kit_packages.usual_packages(), target
    )
    for name in names:
        _fetch(name, metadata.version(name), wheels, target)
    shutil.copy(ROOT / "tests" / "gpu_kit" / "run.sh", folder / "run.sh")
    (folder / "COMMIT").write_text(_git("rev-parse", "HEAD").decode())
    print(f"{folder}: {len(names) + 1} wheels, {checked_size(folder) / 2**20:.1f} MiB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=Target.python)
    parser.add_argument("--platform", default=Target.platform)
    parser.add_argument("--have", type=Path, help="a file with the machine's `pip list`")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "gpu-kit")
    return parser.parse_args()


def checked_size(folder: Path, limit: int = LIMIT_BYTES) -> int:
    """Bytes of all files. Raises: SystemExit when they are more than `limit`, with the largest."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
        names = ", ".join(f"{path.name} {sizes[path] / 2**20:.1f}" for path in largest)
        raise SystemExit(
            f"{folder} is {total / 2**20:.1f} MiB; it must be at most {limit / 2**20:.0f}; the "
            f"largest are {names}; name what the machine has with --have (its pip list)"
        )
    return total


def _committed_files(folder: Path) -> Path:
    folder.mkdir()
    with tarfile.open(fileobj=BytesIO(_git("archive", "HEAD"))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _fetch(name: str, version: str, wheels: Path, target: Target) -> None:
    """A wheel for the target; where there is none, one that is built here and fits any machine."""
    where = ["--python-version", target.python, "--only-binary", ":all:", "--dest", str(wheels)]
    for tag in platform_tags(target.platform):
        where += ["--platform", tag]
    command = ["download", "--quiet", "--no-deps", f"{name}=={version}", *where]
    if _pip(*command).returncode:
        _build(f"{name}=={version}", wheels)


def platform_tags(newest: str) -> list[str]:
    """`newest` and the older glibc that it runs as well: PEP 600."""
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", newest)
    if match is None:
        return [newest]
    minor, machine = int(match[1]), match[2]
    tags = [f"manylinux_2_{n}_{machine}" for n in range(minor, 4, -1)]
    return [*tags, f"manylinux2014_{machine}"] if minor >= 17 else tags


def _build(requirement: str, wheels: Path) -> None:
    """Raises: SystemExit when it cannot be built, or only for this machine."""
    before = set(wheels.iterdir())
    result = _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), requirement)
    if result.returncode:
        raise SystemExit(f"{requirement} has no wheel and cannot be built here:\n{result.stderr}")
    for wheel in set(wheels.iterdir()) - before:
        if not wheel.name.endswith("-none-any.whl"):
            raise SystemExit(f"{wheel.name} is built for this machine only; no kit can hold it")


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    # DeepSpeed's operators are compiled at their first use, on the machine that has the GPU
    environment = {**os.environ, "DS_BUILD_OPS": "0"}
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    main()
