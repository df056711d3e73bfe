"""How a source is read: which settings belong to which kind, and the rules of a template."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Any

from ropewalk.conf.data_mixture import SourceLengths

FILES = ("tree", "text", "html")  # a document is a file or a folder of them: no columns
TABLES = ("jsonl", "parquet", "arrow", "hub")
_FROM_FILES = tuple(kind for kind in (*FILES, *TABLES) if kind != "hub")
_READ_BY = {
    "text_key": TABLES,
    "template": TABLES,
    "id_key": TABLES,
    "pattern": _FROM_FILES,
    "follow_links": _FROM_FILES,
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


def _reading_problems(source: Any, at: str) -> Iterator[str]:
    """What is wrong with the reading of a `SourceConfig` that the settings at `at` hold."""
    for key in [key for key in _READ_BY if getattr(source, key) == ""]:
        yield f"{at}.{key} is empty; it must say something; unset it"
    if source.template:
        if not _is_template(source.template):
            yield (
                f"{at}.template is {source.template!r}; it must name columns in plain braces, "
                "such as {title}, and double the braces that are text; correct it"
            )
        if source.text_key != "text":
            yield (
                f"{at}.text_key is {source.text_key}; {at}.template says what the text is; unset "
                "one of them"
            )
    if source.follow_links and "://" in (source.path or "").removeprefix("file://").removeprefix(
        "local://"
    ):
        yield (
            f"{at}.follow_links is {source.follow_links}; only folders of this machine have "
            "links; unset it"
        )
    if source.kind == "hub" and "://" in (source.path or ""):
        yield (
            f"{at}.path is {source.path}; kind hub takes a name such as org/name; unset {at}.kind "
            "to read files by URL"
        )
    if source.kind != "auto":
        yield from misplaced(source, source.kind, at)


def misplaced(source: Any, kind: str, at: str) -> Iterator[str]:
    """A line for each setting that says something and is not read by `kind`: it would do
    nothing, in silence."""
    for key, kinds in _READ_BY.items():
        value = getattr(source, key)
        if value and (key, value) != ("text_key", "text") and kind not in kinds:
            yield (
                f"{at}.{key} is {value!r}; it is read by kind {', '.join(kinds)}, and this is "
                f"{kind}; unset one of them"
            )


def _is_template(template: str) -> bool:
    try:
        return bool(parts(template))
    except ValueError:
        return False


KINDS = ("auto", *FILES, *TABLES, "passkey", "repeat")

SYNTHETIC = ("passkey", "repeat")


@dataclass(kw_only=True)
class SourceConfig(SourceLengths):
    path: str | None = None
    """File, folder, glob (books/**/*.jsonl) or URL that fsspec reads (s3://, hf://, https://);
    with kind=hub the name of a dataset; or `python:stdlib`, the standard library of the running
    Python, one document a package."""
    kind: str = "auto"
    """tree (one document a sub-folder), text, html, jsonl, parquet, arrow (also a folder that
    datasets saved) or hub (a dataset's name); auto looks at the files' names. passkey and repeat
    are synthetic and need `filler`."""
    text_key: str = "text"
    """The column or field that holds the text (jsonl, parquet, arrow, hub)."""
    template: str | None = None
    """Instead of `text_key`: a text with columns in braces, such as "{title}: {body}"; {{ and }}
    are braces. A command line's \\n is no new line: write one in YAML, or $'{title}\\n{body}' in
    a shell."""
    id_key: str | None = None
    """The column of a document's id, text or whole number; unset: the file and the place in it."""
    pattern: str | None = None
    """Glob of the files inside a folder, by name, or by the path inside when it has a slash;
    unset: by kind."""
    config: str | None = None
    """Which of a hub dataset's configurations."""
    split: str | None = None
    """Which split of a hub or saved dataset; unset: its only one."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    follow_links: bool = False
    """Read files that a link inside the folder leads to outside of it (a hub's cache); links to
    folders are never followed."""
    weight: float | None = None
    """Share of the plan's tokens, relative to the other sources; unset everywhere: every
    document once."""
    loss: bool = True
    """false: the source is read as context and teaches nothing, none of its labels counts."""
    filler: str | None = None
    """Synthetic kinds: the source whose text surrounds what is to be found."""
    piece_len: int | None = None
    """The longest piece of this source's documents, tokens; longer documents follow
    `data.overlong`; unset: `data.seq_len`."""

    def problems(self, at: str, names: set[str]) -> Iterator[str]:
        if self.kind not in KINDS:
            yield f"{at}.kind is {self.kind}; it must be one of {', '.join(KINDS)}; choose one"
        if self.kind in SYNTHETIC and self.filler not in names:
            yield (
                f"{at}.filler is {self.filler}; it must name another source; one of "
                f"{', '.join(sorted(names))}"
            )
        if self.kind not in SYNTHETIC and self.path is None:
            yield (
                f"{at}.path is not set; it must be a file, folder, glob, URL, name or "
                f"python:stdlib; e.g. {at}.path=./documents"
            )
        yield from _reading_problems(self, at)
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight >= 0):
            yield (
                f"{at}.weight is {self.weight}; it must be a finite number of at least 0; set a "
                "share such as 0.3"
            )
        yield from self.length_problems(at, self.kind in SYNTHETIC)
