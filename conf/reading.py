"""How a source is read: which settings belong to which kind, and the rules of a template."""

from collections.abc import Iterator
from string import Formatter
from typing import Any

FILES = ("tree", "text", "html")  # a document is a file or a folder of them: no columns
TABLES = ("jsonl", "parquet", "arrow", "hub")
_READ_BY = {
    "text_key": TABLES,
    "template": TABLES,
    "id_key": TABLES,
    "pattern": (*FILES, "jsonl", "parquet", "arrow"),
    "follow_links": (*FILES, "jsonl", "parquet", "arrow"),
    "config": ("hub",),
    "split": ("arrow", "hub"),
    "revision": ("hub",),
}


def parts(template: str) -> list[tuple[str, str | None]]:
    """A template as texts and the column after each, in order; `{{` and `}}` are braces.

    Raises: ValueError when it names no column, or anything but a plain `{column}`.
    """
    found = []
    for text, column, form, conversion in Formatter().parse(template):
        if column is not None and (not column or form or conversion):
            raise ValueError(template)
        found.append((text, column))
    if all(column is None for _, column in found):
        raise ValueError(template)
    return found


def problems(source: Any, at: str) -> Iterator[str]:
    """What is wrong with the reading of a `SourceConfig` that the settings at `at` hold."""
    for key in [key for key in _READ_BY if getattr(source, key) == ""]:
        yield f"{at}.{key} is empty; it must say something; unset it"
    if source.template:
        if not _is_template(source.template):
            yield (
                f"{at}.template is {source.template!r}; it must name columns in plain braces, such as {{title}}, and double "
                "the braces that are text; correct it"
            )
        if source.text_key != "text":
            yield f"{at}.text_key is {source.text_key}; {at}.template says what the text is; unset one of them"
    if source.follow_links and "://" in (source.path or "").removeprefix("file://").removeprefix("local://"):
        yield f"{at}.follow_links is {source.follow_links}; only folders of this machine have links; unset it"
    if source.kind == "hub" and "://" in (source.path or ""):
        yield f"{at}.path is {source.path}; kind hub takes a name such as org/name; unset {at}.kind to read files by URL"
    if source.kind != "auto":
        yield from misplaced(source, source.kind, at)


def misplaced(source: Any, kind: str, at: str) -> Iterator[str]:
    """A line for each setting that says something and is not read by `kind`: it would do nothing, in silence."""
    for key, kinds in _READ_BY.items():
        value = getattr(source, key)
        if value and (key, value) != ("text_key", "text") and kind not in kinds:
            yield f"{at}.{key} is {value!r}; it is read by kind {', '.join(kinds)}, and this is {kind}; unset one of them"


def _is_template(template: str) -> bool:
    try:
        return bool(parts(template))
    except ValueError:
        return False
