"""Which packages a machine lacks, from the metadata of those that are installed here."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BESIDE_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
"""The machine has them; a kit that held them would be gigabytes."""
NOT_NEEDED = ("wandb", "matplotlib")
"""Of our own requirements: no GPU test logs to a service or draws a report."""
FOR_TESTS = ("pytest", "hypothesis")
# what a machine with torch and transformers usually has; with `pip list` of the machine at hand the
# kit is exact
USUAL = """
accelerate aiohttp aiosignal attrs certifi charset-normalizer contourpy cycler einops filelock
fonttools frozenlist fsspec idna jinja2 kiwisolver markupsafe matplotlib mpmath multidict networkx
ninja numpy packaging pandas pillow pip propcache psutil pyarrow pyparsing python-dateutil pytz
pyyaml regex requests safetensors scipy setuptools six sympy tokenizers tqdm typing-extensions
tzdata urllib3 wheel yarl
"""

Versions = Mapping[str, str | None]
"""Of the packages that a machine has, by canonical name; None: a version that suits."""


@dataclass(frozen=True)
class Target:
    """The Python and the platform of the machine, as environment markers see them."""

    python: str = "3.12"
    platform: str = "manylinux_2_28_x86_64"
    markers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        machine = "aarch64" if self.platform.endswith("aarch64") else "x86_64"
        markers = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
            "os_name": "posix",
        }
        object.__setattr__(self, "markers", markers)


def usual_packages() -> Versions:
    return dict.fromkeys(USUAL.split())


def packages_of(pip_list: str) -> Versions:
    """What `pip list` or `pip freeze` printed."""
    versions: dict[str, str | None] = {}
    for line in pip_list.splitlines():
        words = re.split(r"==|\s+", line.strip())
        if len(words) >= 2 and re.match(r"\d", words[1]):
            versions[canonicalize_name(words[0])] = words[1]
    return versions


def installed_requirements(name: str) -> list[str]:
    """Raises: importlib.metadata.PackageNotFoundError when `name` is not installed here."""
    return metadata.requires(name) or []


def missing_packages(
    roots: Iterable[str],
    present: Versions,
    target: Target,
    requirements_of: Callable[[str], list[str]] = installed_requirements,
) -> list[str]:
    """Canonical names of all that `roots` (requirements) need and a machine lacks, sorted.

    A package that is present in a version that a requirement excludes is missing too, and so is
    what the version here needs beyond it.
    """
    missing: set[str] = set()
    queue = [Requirement(text) for text in roots]
    visited: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if not _applies(requirement, "", target) or BESIDE_TORCH.fullmatch(name):
            continue
        lacks = name not in present or not _suits(requirement, present[name])
        if name not in missing and not lacks:
            continue
        missing.add(name)
        extras = frozenset(requirement.extras)
        if (name, extras) in visited:
            continue
        visited.add((name, extras))
        needed = [Requirement(text) for text in requirements_of(name)]
        queue += [
            Requirement(_without_marker(r))
            for r in needed
            if any(_applies(r, extra, target) for extra in ("", *extras))
        ]
    return sorted(missing)


def _applies(requirement: Requirement, extra: str, target: Target) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({**target.markers, "extra": extra})


def _suits(requirement: Requirement, version: str | None) -> bool:
    return version is None or requirement.specifier.contains(version, prereleases=True)


def _without_marker(requirement: Requirement) -> str:
    return str(requirement).partition(";")[0].strip()


def roots(own_requirements: Iterable[str]) -> list[str]:
    """Of our own package what the GPU tests use, and what runs them."""
    needed = (Requirement(text) for text in own_requirements)
    own = [
        str(r)
        for r in needed
        if canonicalize_name(r.name) not in NOT_NEEDED and "extra ==" not in str(r.marker or "")
    ]
    return [*own, *FOR_TESTS]
