"""Every installed package with its version, and the lock that installs them again."""

import importlib.metadata
import json
import re
from collections.abc import Mapping


def packages() -> dict[str, str]:
    """Version by name; of one that was installed from a repository, with its commit.

    Where a package lies in two folders, the one that Python imports.
    """
    result: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.name, distribution.version
        if name and version:
            result.setdefault(normalized(name), f"{version}{_origin(distribution)}")
    return dict(sorted(result.items()))


def normalized(name: str) -> str:
    """As PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _origin(distribution: importlib.metadata.Distribution) -> str:
    """` (editable)` or ` (git COMMIT)`; no address and no folder."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return ""
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f" (git {commit})"
    return " (editable)" if origin.get("dir_info", {}).get("editable") else ""


def lock(packages: Mapping[str, str]) -> str:
    """Requirements for pip: `name==version` a line; what no index has, as a comment."""
    lines = []
    for name, text in packages.items():
        version, _, origin = text.partition(" (")
        lines.append(f"# {name} {version} ({origin}" if origin else f"{name}=={version}")
    return "".join(f"{line}\n" for line in lines)
