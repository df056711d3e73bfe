"""Ropewalk, torch's build, the packages that Ropewalk needs, and its extras, by their metadata."""

import importlib.metadata
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from packaging.requirements import Requirement

from ropewalk.launch.environment.answers import NoAnswerError, output_of
from ropewalk.train.kernel_packages import PACKAGES
from ropewalk.train.torch_build import TorchBuild, torch_build

ROOT = Path(__file__).parents[2]
OURS = "ropewalk"
NOT_INSTALLED = "not installed"
BESIDE_TORCH = {"triton": "triton", "cuDNN": "nvidia-cudnn-cu{}", "NCCL": "nvidia-nccl-cu{}"}
"""What comes with torch, by the package that has it; {} is CUDA's major version."""
GIT_LIMIT_S = 1.0


def rows() -> Iterator[tuple[str, str]]:
    """Name and version of each package."""
    build = torch_build()
    yield "torch", torch_text(build)
    cuda = build.cuda if build is not None else None
    for name, package in BESIDE_TORCH.items():
        if cuda is not None:
            package = package.format(cuda.partition(".")[0])
            yield name, version(package) or f"{NOT_INSTALLED} as {package}"
    for requirement in requirements(""):
        if requirement.name != "torch":
            yield requirement.name, installed_text(requirement)


def ropewalk_text() -> str:
    """Version, and the commit of a checkout."""
    text = version(OURS) or "of no known version"
    if not (ROOT / ".git").exists():
        return text
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        commit = output_of([*git, "rev-parse", "--short=12", "HEAD"], GIT_LIMIT_S).strip()
        changed = output_of([*git, "status", "--porcelain", "-uno"], GIT_LIMIT_S).splitlines()
    except NoAnswerError as error:
        return f"{text}, a checkout ({error})"
    return f"{text}, commit {commit}" + (f", {len(changed)} files changed" if changed else "")


def torch_text(build: TorchBuild | None) -> str:
    """torch's build; where metadata and files disagree, both."""
    recorded = version("torch")
    if build is None:
        if recorded is None:
            return NOT_INSTALLED
        return f"broken: {recorded} by its metadata, and its version file cannot be read; reinstall"
    parts = [f"CUDA {build.cuda}" if build.cuda else "", f"ROCm {build.hip}" if build.hip else ""]
    kind = " ".join(filter(None, parts)) or "no GPU"
    text = f"{build.version} ({kind}, git {build.git_version[:12] or 'unknown'})"
    if recorded is None or build.version.partition("+")[0] == recorded.partition("+")[0]:
        return text
    return f"{text}, but {recorded} by its metadata; reinstall"


def requirements(extra: str) -> list[Requirement]:
    """What an extra adds to what Ropewalk needs; for no extra, what it needs."""
    result = []
    for text in _requires():
        requirement = Requirement(text)
        marker = requirement.marker
        without = marker is None or marker.evaluate({"extra": ""})
        if without != bool(extra) and (marker is None or marker.evaluate({"extra": extra})):
            result.append(requirement)
    return result


def _requires() -> list[str]:
    try:
        return importlib.metadata.requires(OURS) or []
    except PackageNotFoundError:
        return []


def extras() -> Iterator[tuple[str, str]]:
    """Each extra: what of it is installed, and the install line of what is missing."""
    try:
        names = importlib.metadata.metadata(OURS).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        yield "extras", f"unknown: {OURS} is not installed, so it has no metadata"
        return
    for name in names:
        yield f"extra {name}", extra_text(name)


def extra_text(extra: str) -> str:
    """`gguf 0.17, missing accelerate: pip install -e '.[gguf]'`."""
    needed = requirements(extra)
    unfit = [f"{r.name}{r.specifier}" for r in needed if not fits(r)]
    there = [f"{r.name} {version(r.name)}" for r in needed if fits(r)]
    if not unfit:
        return ", ".join(there)
    missing = f"missing {', '.join(unfit)}: {install_line(extra)}"
    return ", ".join([*there, missing])


def install_line(extra: str) -> str:
    """Of a checkout, or of a package; a kernel's own line where it has one."""
    if extra in PACKAGES:
        return PACKAGES[extra].install
    is_checkout = (ROOT / "pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if is_checkout else f"pip install '{OURS}[{extra}]'"


def fits(requirement: Requirement) -> bool:
    """Whether a version that will do is installed."""
    installed = version(requirement.name)
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def installed_text(requirement: Requirement) -> str:
    """The version, and what is asked of it where it does not do; or a module that is not there."""
    installed = version(requirement.name)
    if installed is None:
        return f"{NOT_INSTALLED} (needed: {requirement.name}{requirement.specifier})"
    return installed if fits(requirement) else f"{installed}, needed: {requirement.specifier}"


def version(package: str) -> str | None:
    """By its metadata; None when it is not installed."""
    try:
        return importlib.metadata.version(package) or "unknown"
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
