"""What a wheel would hold: a package missing from pyproject.toml works here and is absent there."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("conf", "data", "train", "eval", "launch")
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def inits() -> set[str]:
    paths = (
        p.parent.relative_to(ROOT)
        for folder in FOLDERS
        for p in (ROOT / folder).rglob("__init__.py")
    )
    return {".".join(["ropewalk", *path.parts]) for path in paths}


def test_every_package_folder_is_listed() -> None:
    assert len(inits()) >= len(FOLDERS)
    assert inits() <= set(TOOLS["packages"])


def test_every_listed_package_has_a_folder() -> None:
    assert set(TOOLS["packages"]) <= inits()
    assert len(TOOLS["packages"]) == len(set(TOOLS["packages"]))


def test_no_python_file_lies_outside_a_listed_package() -> None:
    modules = {
        p.parent.relative_to(ROOT) for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")
    }
    assert {".".join(["ropewalk", *path.parts]) for path in modules} <= set(TOOLS["packages"])


def packed(package: str) -> set[Path]:
    folder = ROOT.joinpath(*package.split(".")[1:])
    return {
        p
        for pattern in TOOLS["package-data"].get(package, [])
        for p in folder.glob(pattern)
        if p.is_file()
    }


def test_package_data_holds_every_yaml() -> None:
    files = set((ROOT / "conf").rglob("*.yaml"))
    assert ROOT / "conf" / "config.yaml" in files
    assert packed("ropewalk.conf") == files


def test_package_data_holds_every_template() -> None:
    files = {p for folder in FOLDERS for p in (ROOT / folder).rglob("*.j2")}
    assert files
    assert set().union(*(packed(package) for package in TOOLS["packages"])) >= files


def test_data_of_packages_belongs_to_listed_packages() -> None:
    assert set(TOOLS["package-data"]) <= set(TOOLS["packages"])
