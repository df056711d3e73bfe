"""The list of all settings, from the dataclasses: `ropewalk settings`, docs/settings.md."""

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypedDict, get_args, get_origin, get_type_hints

import yaml

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.rules import Rule
from ropewalk.conf.schema import Config

# In no section that a stage takes a fingerprint of, nor in the base's identity.
WITHOUT_FINGERPRINT = ("schema", "name", "phase", "model.trust_remote_code")


class Row(TypedDict):
    """One setting."""

    name: str  # dotted key; NAME stands for a source's name, [] for an item of a list
    type: str
    default: str  # as YAML, or "required"
    rule: str  # choices or range; empty where any value is allowed or a condition checks it
    fingerprint: bool | str  # "if_set": only when it differs from its default
    methods: list[str]  # the rope methods that have the setting; empty: all of them
    doc: str


def rows() -> list[Row]:
    """Every setting, in the order of the dataclasses."""
    return list(_section_rows(Config, "", True))


def matching(word: str) -> list[Row]:
    """The settings with `word` in their key or doc, in either case.

    Raises: ConfigError with the nearest keys when there are none.
    """
    listed = rows()
    result = [r for r in listed if word.lower() in f"{r['name']} {r['doc']}".lower()]
    if not result:
        names = [name for r in listed for name in (r["name"], r["name"].split(".")[-1])]
        near = difflib.get_close_matches(word, names, 5, 0.5)
        keys = dict.fromkeys(
            r["name"] for n in near for r in listed if n in (r["name"], r["name"].split(".")[-1])
        )
        way_out = f"the nearest are {', '.join(keys)}" if keys else "try a shorter one"
        raise ConfigError(f"WORD is {word}; it must be part of a setting's key or doc; {way_out}")
    return result


def as_text(listed: Sequence[Row]) -> str:
    """For a terminal: a line with key, type, default and rule, and the doc below it."""
    wrapper = textwrap.TextWrapper(
        88,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(
        f"{row['name']}{_methods(row)}: {_value(row)}\n"
        + wrapper.fill(f"{row['doc']}{_fingerprint(row)}")
        for row in listed
    )


def as_markdown(listed: Sequence[Row]) -> str:
    """For docs/settings.md: one table a section."""
    lines = [
        "# Settings",
        "",
        "Written by `make settings` from the dataclasses in `conf/`. `ropewalk settings WORD`",
        "lists the settings with WORD in their key or meaning. `null` is unset. Recipes and",
        "mixture presets choose other values than these defaults; `--cfg job` prints a run's.",
        "A changed setting redoes the stages that depend on it, unless it is not fingerprinted.",
    ]
    section = None
    for row in listed:
        parent = row["name"].rpartition(".")[0]
        if parent != section:
            section = parent
            lines += ["", f"## {parent or 'The run'}", ""]
            lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        default = row["default"] if row["default"] == "required" else f"`{row['default']}`"
        rule = f" Rule: {row['rule']}." if row["rule"] else ""
        meaning = _escape(f"{row['doc']}{rule}{_fingerprint(row)}")
        name = f"`{row['name']}`{_methods(row)}"
        lines.append(f"| {name} | {row['type']} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _section_rows(section: type, prefix: str, fingerprint: bool | str) -> Iterator[Row]:
    """The settings of a dataclass, leaves before its sub-sections; they inherit `fingerprint`."""
    hints, docs = get_type_hints(section), attribute_docs(section)
    nested: list[Iterator[Row]] = []
    for item in fields(section):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        inherited = fingerprint
        if inherited is True:
            inherited = key not in WITHOUT_FINGERPRINT and item.metadata.get("fingerprint", True)
        if key == "rope":
            nested.append(_rope_rows())
            continue
        if not is_dataclass(hint):
            yield _row(item, key, hint, docs.get(item.name, ""), inherited)
        for kind, suffix in _sections_in(hint):
            nested.append(_section_rows(kind, f"{key}{suffix}.", inherited))
    for iterator in nested:
        yield from iterator


def _sections_in(hint: object) -> Iterator[tuple[type, str]]:
    """The dataclasses inside a type, each with `.NAME` for a key and `[]` for an index above it."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint, ""
    suffixes: dict[object, str] = {dict: ".NAME", list: "[]"}
    suffix = suffixes.get(get_origin(hint), "")
    for argument in get_args(hint):
        yield from ((kind, f"{suffix}{inner}") for kind, inner in _sections_in(argument))


def _rope_rows() -> Iterator[Row]:
    """The settings of all methods; equal ones once, with the methods that have them."""
    merged: dict[tuple[str, str], Row] = {}
    common = {item.name for item in fields(ROPE_METHODS["none"])}
    for method, section in ROPE_METHODS.items():
        for row in _section_rows(section, "rope.", True):
            name = row["name"].removeprefix("rope.")
            first = merged.setdefault((name, "" if name in common else row["doc"]), row)
            if name not in common:
                first["methods"].append(method)
    yield from merged.values()


def _row(item: "Field[Any]", key: str, hint: object, doc: str, fingerprint: bool | str) -> Row:
    return Row(
        name=key,
        type=_type_name(hint),
        default=_default(item),
        rule=item.metadata.get("rule", Rule()).text(0),
        fingerprint=fingerprint,
        methods=[],
        doc=doc,
    )


def _type_name(hint: object) -> str:
    """`list[int] | None` as `list[int] or null`, without modules."""
    name = hint.__name__ if type(hint) is type else str(hint)
    return re.sub(r"(\w+\.)+", "", name).replace("None", "null").replace(" | ", " or ")


def _default(item: "Field[Any]") -> str:
    """In YAML, on one line."""
    factory: Any = item.default_factory
    if item.default is MISSING and factory is MISSING:
        return "required"
    value = factory() if item.default is MISSING else item.default
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


@cache
def attribute_docs(section: type) -> dict[str, str]:
    """The docstring below each field, on one line; a class without one takes its base's."""
    docs: dict[str, str] = {}
    for base in reversed(section.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef), base
        for field_node, doc in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field_node, ast.AnnAssign) and isinstance(doc, ast.Expr):
                assert isinstance(field_node.target, ast.Name), base
                docs[field_node.target.id] = " ".join(ast.literal_eval(doc.value).split())
    return docs


def _value(row: Row) -> str:
    default = row["default"] if row["default"] == "required" else f"default {row['default']}"
    return "; ".join(part for part in (row["type"], default, row["rule"]) if part)


def _methods(row: Row) -> str:
    return f" (rope={', '.join(row['methods'])})" if row["methods"] else ""


def _fingerprint(row: Row) -> str:
    return "" if row["fingerprint"] else " Not fingerprinted."


def _escape(text: str) -> str:
    """Text outside of backticks without Markdown's signs; a bar would end the table's cell."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([*<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
