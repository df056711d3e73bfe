"""A user's YAML files: each problem in one line with file, line and way out.

Hydra reads the same files afterwards; what it would refuse without a line, or read as something
else than what is written, is told here.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from ropewalk import conf
from ropewalk.conf import declared, renamed
from ropewalk.launch.config.values import Converter, Node, Scalar

GROUPS = ("recipe", "rope", "mixture", "suite", "launch", "cluster", "sweep")
PACKAGES = {
    "recipe": "_global_",
    "rope": "rope",
    "mixture": "data",
    "suite": "eval",
    "launch": "launch",
    "cluster": "launch",
    "sweep": "sweep",
}
"""Group -> the section that its files set; `_global_`: all settings."""
MAY_BE_NULL = ("mixture", "suite", "cluster", "sweep")
_PACKAGE = re.compile(r"#\s*@package\s+(\S+)")
_READ_AS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}
SHIPPED = Path(conf.__path__[0])


def search_folders(overrides: list[str]) -> list[Path]:
    """The folders with `recipe/NAME.yaml` and the like: ours, then the user's."""
    users = re.findall(r"file://([^\],]+)", " ".join(overrides))
    return [SHIPPED, *map(Path, users)]


def problems(group: str, name: str, folders: list[Path]) -> list[str]:
    """What is wrong with `GROUP=NAME`: there is no such file, or its content."""
    if name == "null" and group in MAY_BE_NULL:
        return []
    files = [file for folder in folders if (file := _file(folder, group, name)) is not None]
    if not files:
        return [_no_such(group, name, folders)]
    if len(files) > 1 and files[0].is_relative_to(SHIPPED):
        return [
            f"{group}={name}: {files[1]} has the name of one that ropewalk ships, which would be "
            "read; names must differ; rename yours"
        ]
    return [] if files[0].is_relative_to(SHIPPED) else list(_problems(files[0], group, folders))


def _file(folder: Path, group: str, name: str) -> Path | None:
    file = folder / group / f"{name}.yaml"
    if "\0" in name or len(name.encode(errors="replace")) > 200 or ".." in Path(name).parts:
        return None
    return file if file.is_file() else None


def _no_such(group: str, name: str, folders: list[Path]) -> str:
    known = sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})
    near = difflib.get_close_matches(name.removesuffix(".yaml"), known, 1)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    return f"{group}={name}: there is no {group} of that name; {hint}one of {', '.join(known)}"


def _problems(file: Path, group: str, folders: list[Path]) -> Iterator[str]:
    """The lines for one file, and for the files that its defaults name."""
    shown = f"{group}/{file.name}"
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        yield f"{shown} line {line}: its bytes are not UTF-8; save the file as UTF-8"
        return
    except OSError as error:
        yield f"{shown} cannot be read ({error.strerror}); mend it"
        return
    if text.startswith("\ufeff"):
        yield f"{shown} line 1: begins with a byte-order mark; save it as UTF-8 without one"
        return
    package = _package(text)
    if package is None and group != "rope":
        yield (
            f"{shown} line 1: must be `# @package {PACKAGES[group]}`, which says that the file "
            "sets these sections; add it as the first line"
        )
        return
    yield from _content_problems(text, shown, package or group, group, folders)


def _package(text: str) -> str | None:
    """The package that the first line declares; Hydra looks no further."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    match = _PACKAGE.match(first)
    return match[1] if match else None


def _content_problems(
    text: str, shown: str, package: str, group: str, folders: list[Path]
) -> Iterator[str]:
    try:
        root = yaml.compose(text, Loader=get_yaml_loader())
    except yaml.YAMLError as error:
        yield f"{shown} {_yaml_problem(error, text)}"
        return
    reader = _Reader(shown)
    content = reader.node(root) if root is not None else {}
    if not isinstance(content, dict):
        yield f"{shown} line 1: must be settings, `key: value` a line; correct it"
        return
    yield from reader.problems
    defaults = content.pop("defaults", [])
    yield from _defaults_problems(defaults, shown, group, folders)
    yield from _settings_problems(content, shown, "" if package == "_global_" else package)


def _yaml_problem(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    number = mark.line + 1 if mark else 1
    line = "".join(text.splitlines()[number - 1 : number])
    column = mark.column if mark else 0
    if "\t" in line[: len(line) - len(line.lstrip())] or line[column : column + 1] == "\t":
        return f"line {number}: has a tab; YAML indents with spaces; replace it"
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {number}: is no YAML ({reason}); correct it"


class _Reader:
    """YAML nodes to values as they were written, with the problems of their keys."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []

    def node(self, node: yaml.Node) -> Node:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.node(item) for item in node.value]
        kind = node.tag.rpartition(":")[2]
        read_as = _READ_AS.get(kind, "" if kind in ("str", "merge", "value") else f"a {kind}")
        return Scalar(node.value, kind == "null", read_as, node.start_mark.line + 1)

    def _mapping(self, node: yaml.MappingNode) -> Node:
        values: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key, place = key_node.value, f"{self.file} line {key_node.start_mark.line + 1}: "
            kind = key_node.tag.rpartition(":")[2]
            if not isinstance(key, str):
                self.problems.append(f"{place}a key must be text; correct it")
                continue
            if kind == "merge":
                continue
            if kind != "str":
                as_ = _READ_AS.get(kind, kind)
                self.problems.append(f'{place}the key {key} is {as_} in YAML; write "{key}"')
            elif key in values:
                self.problems.append(f"{place}{key} stands twice; each key once; remove one")
            values[key] = self.node(value_node)
        return values


def _defaults_problems(
    defaults: Node, shown: str, group: str, folders: list[Path]
) -> Iterator[str]:
    """The groups and files that a file's `defaults` choose."""
    for entry in defaults if isinstance(defaults, list) else ():
        pairs = entry if isinstance(entry, dict) else {group: entry}
        for key, value in pairs.items():
            target = re.sub(r"^(override |optional )+", "", key).split("@")[0].lstrip("/")
            if not isinstance(value, Scalar) or target not in GROUPS or value.text == "_self_":
                continue
            name = "null" if value.is_null else value.text
            for line in () if name.startswith("/") else problems(target, name, folders):
                names_file = line.startswith(f"{target}/")
                yield line if names_file else f"{shown} line {value.line}: {line}"


def _settings_problems(content: dict[str, Node], shown: str, prefix: str) -> Iterator[str]:
    former = dict(renamed.nested(_nested(content, prefix)))
    place = lambda node: f"{shown} line {_line(node)}: "  # noqa: E731
    converter = Converter(place)
    for key, node in _leaves(content, f"{prefix}." if prefix else ""):
        owner = next((k for k in former if key == k or key.startswith(f"{k}.")), None)
        if owner is not None:
            converter.problems.append(place(node) + renamed.message(owner, former[owner]))
        elif not declared.exists(key):
            converter.problems.append(place(node) + declared.unknown(key))
        else:
            converter.convert(node, key, declared.type_of(key))
    yield from dict.fromkeys(converter.problems)


def _nested(content: dict[str, Node], prefix: str) -> dict[str, Any]:
    nested: dict[str, Any] = content
    for name in reversed(prefix.split(".") if prefix else ()):
        nested = {name: nested}
    return nested


def _leaves(node: dict[str, Node], prefix: str) -> Iterator[tuple[str, Node]]:
    """The values of sections; a mapping that is one value stays whole."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        is_section = not declared.exists(key) or declared.is_section(
            declared.required_type(declared.type_of(key))
        )
        is_sources = key == "data.sources"
        if isinstance(value, dict) and value and (is_section or is_sources):
            yield from _leaves(value, f"{key}.")
        elif value or not is_section:
            yield key, value


def _line(node: Node) -> int:
    """The first line of a node."""
    if isinstance(node, Scalar):
        return node.line
    items = list(node.values()) if isinstance(node, dict) else node
    return _line(items[0]) if items else 1
