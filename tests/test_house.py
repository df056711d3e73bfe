"""The structure of the repository: which files know DeepSpeed, which import which, and whether the
documents name every file. Nothing is imported."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("conf", "data", "train", "eval", "launch")
# what data, train and eval may use of one another (CONTRIBUTING, "The house")
FACES = {
    "data": ("dataset", "proportion", "random_streams", "retrieval", "tokenizer"),
    "train": (
        *("base", "identity", "model.build", "model.attention_swap", "loss", "attention"),
        "rope.plan",
        *("launcher", "weights.one_reader", "zero.mesh", "zero.inference", "zero.params"),
    ),
}
DEEPSPEED_ROOMS = ("train/zero/", "train/launcher/")
DEEPSPEED_NAMES = {
    *("ds_id", "ds_shape", "ds_numel", "ds_tensor", "ds_status", "ds_process_group"),
    *("_hp_mapping", "_index_in_param_group", "_hp_optimizer_states_linked", "_get_norm_groups"),
    *("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp32_flat_groups"),
    *("bit16_groups", "fp16_groups", "averaged_gradients", "scaled_global_norm"),
    *("set_gradient_accumulation_boundary", "is_gradient_accumulation_boundary"),
    *("_copy_recovery_script", "module_state_dict", "checkpoint_event_prologue"),
    *("_do_optimizer_sanity_check", "GatheredParameters", "set_hf_deepspeed_config"),
}


@cache
def files(folder: str) -> list[tuple[str, ast.Module]]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("floor", FLOORS)
def test_deepspeed_is_known_in_its_rooms_only(floor: str) -> None:
    for path, tree in files(floor):
        if not path.startswith(DEEPSPEED_ROOMS):
            assert not [n for n in imported(tree) if "deepspeed" in n.split(".")], path
            assert not DEEPSPEED_NAMES & {*names(tree)}, path


@pytest.mark.parametrize("floor", FLOORS)
def test_no_import_goes_upwards(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for path, tree in files(floor):
        for name in imported(tree):
            package, _, rest = name.partition(".")
            if package == "ropewalk":
                assert rest.split(".")[0] not in above, (path, name)


@pytest.mark.parametrize(("user", "used"), [("train", "data"), ("eval", "data"), ("eval", "train")])
def test_floors_use_one_another_through_their_faces(user: str, used: str) -> None:
    faces = tuple(f"ropewalk.{used}.{face}." for face in FACES[used])
    for path, tree in files(user):
        for name in imported(tree):
            if name.startswith(f"ropewalk.{used}."):
                assert f"{name}.".startswith(faces), (path, name)


def test_numpy_draws_come_from_the_streams() -> None:
    """Two draws of one Philox key are the same numbers: only data/random_streams.py makes keys."""
    for floor in FLOORS:
        for path, tree in files(floor):
            if path != "data/random_streams.py":
                assert not {"Philox", "default_rng", "RandomState"} & {*names(tree)}, path


PACKAGES = [path.parent for floor in FLOORS for path in sorted((ROOT / floor).rglob("__init__.py"))]
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "design").glob("*.md"))]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_packages_docstring_lists_its_files(package: Path) -> None:
    doc = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    listed = set(re.findall(r"(?<![\w/])\w+\.py\b", doc))
    assert listed == {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders <= set(re.findall(r"(?<![\w/])(\w+)/", doc))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_packages_docstring_names_existing_paths(package: Path) -> None:
    doc = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    paths = re.findall(r"(?<![\w/])\w+/[\w/.]*\w\.(?:py|yaml|j2)\b", doc)
    missing = [p for p in paths if not any((f / p).exists() for f in (package, *package.parents))]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    paths = set(re.findall(r"(?<![\w/.])\w+/[\w/]+\.(?:py|md|yaml|j2)\b", page.read_text()))
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_modules_of_the_stage_diagram_exist() -> None:
    """Modules without a suffix, from the floor's folder on or from another's: `loop/step`."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## The stages")[1].split("##")[0]
    modules = set(re.findall(r"(?<![\w/])\w+/[\w/]*", text))
    assert len(modules) > 20
    folders = [ROOT, *(ROOT / floor for floor in FLOORS)]
    for module in modules:
        paths = [path for f in folders for path in (f / module, f / f"{module}.py")]
        assert any(path.exists() for path in paths), module
