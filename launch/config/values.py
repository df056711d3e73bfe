"""Values as they were written, and their conversion to the declared type of a setting.

Text is taken to the letter: `1e3`, `2026_11_28`, `null`, `on` and `~/x` are what they look like.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args, get_origin

from ropewalk.conf import declared, renamed
from ropewalk.conf.rules import LARGEST

WHOLE_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*(_[0-9]+)*)")
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
KINDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "2048"),
    float: ("a number", "2.0"),
    bool: ("true or false", "true"),
}
"""What a type is called, and an example."""
_CLOSING = {"[": "]", "{": "}", "(": ")"}
LEFT_OUT = re.compile(r"data\.sources\.[^.]+")
"""The key of a source, which null leaves out of a phase."""
_REFERENCE = re.compile(r"\$\{[^}]*\}?")


@dataclass(frozen=True)
class Scalar:
    """A value without brackets."""

    text: str
    is_null: bool = False
    read_as: str = ""
    """What YAML takes an unquoted text for, when it is not text: `a number`."""
    line: int = 0  # in its file, from 1

    def __str__(self) -> str:
        return self.text


Node: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


def parse(text: str) -> Node:
    """`[a, b]` and `{key: value}` with their items; any other text as it is.

    Raises: ValueError for a bracket or quote that is not closed.
    """
    text = text.strip()
    if text.startswith("["):
        return [parse(item) for item in _items(text)]
    if text.startswith("{"):
        pairs = [_pair(item) for item in _items(text)]
        return {key: parse(value) for key, value in pairs}
    if quoted(text):
        return Scalar(text[1:-1])
    return Scalar(text, is_null=text == "null")


def quoted(text: str) -> bool:
    """Whether quotes surround the whole text."""
    return len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]


def split(text: str, separator: str = ",") -> list[str]:
    """The parts of a text between separators that stand outside of quotes and brackets.

    Raises: ValueError for a bracket or quote that is not closed.
    """
    parts, closing, quote, start = [], list[str](), "", 0
    for position, character in enumerate(text):
        opens = not text[start:position].strip() or closing
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and opens:
            quote = character
        elif character in _CLOSING:
            closing.append(_CLOSING[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == separator and not closing:
            parts.append(text[start:position])
            start = position + 1
    if closing or quote:
        raise ValueError(f"{quote or closing[-1]} is missing")
    return [*parts, text[start:]]


def _items(text: str) -> list[str]:
    """The items inside a text's outer brackets. Raises: ValueError."""
    if not text.endswith(_CLOSING[text[0]]):
        raise ValueError(f"{_CLOSING[text[0]]} is missing at its end")
    inner = text[1:-1]
    return split(inner) if inner.strip() else []


def _pair(item: str) -> tuple[str, str]:
    """Key and value of `key: value`. Raises: ValueError without a colon."""
    key, colon, value = item.strip().partition(":")
    if item.strip()[:1] in "\"'":
        quote = item.strip()[0]
        key, _, rest = item.strip()[1:].partition(quote)
        colon, value = rest.strip()[:1], rest.strip()[1:]
    if colon != ":":
        raise ValueError(f"{item.strip() or 'an item'} has no colon")
    return key.strip(), value


class Converter:
    """Nodes to values of the declared types; the problems are collected, a line each."""

    def __init__(self, place: Callable[[Node], str] = lambda node: "") -> None:
        """`place(node)`: what stands before a problem's line, such as a file and its line."""
        self.place = place
        self.problems: list[str] = []

    def convert(self, node: Node, key: str, hint: Any) -> Any:
        """The value; None after a problem."""
        kind = declared.required_type(hint)
        if isinstance(node, Scalar):
            if node.is_null and declared.is_optional(hint):
                return None
            if kind is Any:
                if WHOLE_NUMBER.fullmatch(node.text) and node.read_as in ("", "a number"):
                    return self._number(node, key, int)
                kind = str
            if "${" in node.text and (kind is str or kind in KINDS):
                return self._reference(node, key)
            if kind is str:
                return self._text(node, key)
        if key == "phases" and isinstance(node, list):
            return [self._phase(item, f"phases[{n}]") for n, item in enumerate(node)]
        if kind in KINDS:
            return self._number(node, key, kind)
        return self._container(node, key, kind)

    def _text(self, node: Scalar, key: str) -> str:
        if node.text == "???":
            self._refuse(node, key, "it must be a value; ??? stands for none", "set it")
        elif node.read_as:
            self._refuse(
                node, key, f"YAML takes that for {node.read_as}", f'write {_last(key)}: "{node}"'
            )
        elif any(not c.isprintable() and c not in "\n\t\u3000\xa0" for c in node.text):
            self._refuse(node, key, "it must be text without control characters", "correct it")
        return node.text

    def _reference(self, node: Scalar, key: str) -> str:
        """Text with the values of other settings, which OmegaConf puts in."""
        for name in _REFERENCE.findall(node.text) or [node.text]:
            inner = name.removeprefix("${").removesuffix("}")
            if not (declared.exists(inner) or inner.startswith("oc.")) or inner == key:
                self._refuse(
                    node, key, f"{name} stands for a setting, and there is none such", "correct it"
                )
                break
        return node.text

    def _number(self, node: Node, key: str, kind: type) -> Any:
        text = node.text.strip() if isinstance(node, Scalar) else ""
        try:
            if kind is int and WHOLE_NUMBER.fullmatch(text) and abs(int(text[:30])) <= LARGEST:
                return int(text)
            if kind is float and text.isascii():
                return float(text)
            if kind is bool:
                return BOOLEANS[text.lower()]
        except (ValueError, KeyError):
            pass
        rule, example = KINDS[kind]
        if kind is int and WHOLE_NUMBER.fullmatch(text):
            rule = f"a whole number of at most {LARGEST}"
        self._refuse(node, key, f"it must be {rule}", _way_out(key, example))
        return None

    def _container(self, node: Node, key: str, kind: Any) -> Any:
        if declared.is_section(kind):
            return self._section(node, key, kind)
        if get_origin(kind) is dict:
            return self._mapping(node, key, get_args(kind)[1])
        (item,) = get_args(kind) or (Any,)
        if isinstance(node, list):
            return [self.convert(part, f"{key}[{n}]", item) for n, part in enumerate(node)]
        self._refuse(node, key, "it must be a list", f"e.g. {key}=[{_example(item)}]")
        return None

    def _mapping(self, node: Node, key: str, item: Any) -> Any:
        if isinstance(node, dict):
            return {name: self.convert(part, f"{key}.{name}", item) for name, part in node.items()}
        rule, example = "it must be sections by name", f"set {key}.NAME.KEY"
        if item is float:
            rule = "it must be numbers by ranges of length"
            example = f'e.g. \'{key}={{"<4K": 0.1, ">8K": 2}}\''
        self._refuse(node, key, rule, example)
        return None

    def _section(self, node: Node, key: str, kind: type) -> Any:
        names = declared.members(kind)
        if not isinstance(node, dict):
            some = ", ".join(f"{key}.{name}" for name in list(kind.__annotations__)[:2])
            self._refuse(node, key, "it is a section of settings", f"set {some} and the like")
            return None
        values = {}
        for name, item in node.items():
            if name in names:
                values[name] = self.convert(item, f"{key}.{name}", names[name])
            else:
                self.problems.append(self.place(item) + declared.unknown(f"{key}.{name}"))
        return values

    def _phase(self, node: Node, key: str) -> Any:
        """The settings of a phase, by dotted key or nested; its own keys beside."""
        if not isinstance(node, dict):
            return shown(node)
        own = {"name": str, "carry_optimizer": bool, "rope": str, "mixture": str}
        values: dict[str, Any] = {}
        for name, item in node.items():
            nested = isinstance(item, dict) and name == "rope"
            if LEFT_OUT.fullmatch(name) and isinstance(item, Scalar) and item.is_null:
                values[name] = None
            elif name in own and not nested:
                values[name] = self.convert(item, f"{key}.{name}", own[name])
            elif name in renamed.RENAMED:
                hint = declared.type_of(renamed.RENAMED[name])
                values[name] = self.convert(item, f"{key}.{name}", hint)
            elif declared.exists(name):
                values[name] = self.convert(item, f"{key}.{name}", declared.type_of(name))
            elif name.split(".")[0] in ("rope", "data", "train"):
                self.problems.append(f"{self.place(item)}{key}.{declared.unknown(name)}")
            else:
                values[name] = shown(item)
        return values

    def _refuse(self, node: Node, key: str, rule: str, way_out: str) -> None:
        text = shown(node) if not isinstance(node, Scalar) else node.text
        if isinstance(text, str) and not text.isprintable():
            text = repr(text)  # a control character, as a line's end, would break the line
        self.problems.append(f"{self.place(node)}{key} is {text or 'empty'}; {rule}; {way_out}")


def shown(node: Node) -> Any:
    """A node as plain values of text, for messages."""
    if isinstance(node, Mapping):
        return {key: shown(value) for key, value in node.items()}
    if isinstance(node, Sequence):
        return [shown(item) for item in node]
    return None if node.is_null else node.text


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _way_out(key: str, example: str) -> str:
    """No override sets a single item of a list, so there is no example for it."""
    is_item = key.endswith("]") or key.startswith("phases[")
    return "correct it" if is_item else f"e.g. {key}={example}"


def _example(item: Any) -> str:
    return KINDS[item][1] if item in KINDS else "a"
