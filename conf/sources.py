"""Settings of a source: its place, its kind, and the settings that each kind reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Any

from ropewalk.conf.rules import setting
from ropewalk.conf.source_ids import TOKEN_FILES, SourceIds

FILES = ("tree", "text", "html")  # a document is a file or a folder of them: no columns
TABLES = ("jsonl", "parquet", "arrow", "mds", "hub")
SYNTHETIC = ("passkey", "repeat")
KINDS = ("auto", *FILES, *TABLES, *TOKEN_FILES, *SYNTHETIC)
_FROM_FILES = tuple(kind for kind in (*FILES, *TABLES, *TOKEN_FILES) if kind != "hub")
CONTENT_READ_BY = {
    "text_key": TABLES,
    "template": TABLES,
    "id_key": TABLES,
    "where": TABLES,
    "group_by": TABLES,
    "ids_key": TABLES,
    "ids_spans": TABLES,
    "ids_begin": (*TABLES, *TOKEN_FILES),
    "ids_end": (*TABLES, *TOKEN_FILES),
    "ids_dtype": ("mds", "memmap"),
    "config": ("hub",),
}
"""Settings that decide which documents a kind makes of its files; part of a store's identity."""
READ_BY = CONTENT_READ_BY | {
    "pattern": _FROM_FILES,
    "follow_links": _FROM_FILES,
    "split": ("arrow", "hub"),
    "revision": ("hub",),
}
"""These, and the settings that decide which files are read, which are known by their content."""


def parts(template: str) -> list[tuple[str, str | None]]:
    """A template as texts and the column after each, in order; `{{` and `}}` are braces.

    Raises: ValueError when it names no column, or anything but a plain `{column}`.
    """
    result = []
    for text, column, form, conversion in Formatter().parse(template):
        if column is not None and (not column or form or conversion):
            raise ValueError(template)
        result.append((text, column))
    if all(column is None for _, column in result):
        raise ValueError(template)
    return result


def _is_template(template: str) -> bool:
    try:
        return bool(parts(template))
    except ValueError:
        return False


@dataclass(kw_only=True)
class SourceConfig(SourceIds):
    path: str | None = None
    """File, folder, glob (books/**/*.jsonl) or URL that fsspec reads (s3://, hf://, https://); with
    kind=hub the name of a dataset; or `python:stdlib`, the standard library of the running Python,
    one document a package."""
    kind: str = setting("auto", one_of=KINDS)
    """tree (one document a sub-folder), text, html, jsonl, parquet, arrow (also a folder that
    datasets saved), mds (MosaicML's shards) or hub (a dataset's name); of token ids alone memmap
    (.npy, .bin: one array of ids) or indexed (Megatron's .bin with .idx); auto looks at the files'
    names. passkey and repeat are synthetic and need `filler`."""
    text_key: str = "text"
    """The column or field with the text (jsonl, parquet, arrow, mds, hub)."""
    template: str | None = None
    """Instead of `text_key`: a text with columns in braces, such as "{title}: {body}"; {{ and }}
    are braces. A command line's \\n is no new line: write one in YAML, or $'{title}\\n{body}' in a
    shell."""
    id_key: str | None = None
    """The column of a document's id, text or whole number; unset: the file and the position in
    it."""
    where: dict[str, Any] | None = setting(None, fingerprint="if_set")
    """Only the rows with these values, by column: {meta.redpajama_set_name: RedPajamaBook}. A list
    takes any of its values; a dot goes into the fields of a column. The other rows are counted."""
    group_by: str | None = setting(None, way_out="e.g. repo_name", fingerprint="if_set")
    """The column whose equal values make one document, such as a repository: the texts of its rows,
    in the order of the files, with a blank line between; the value is the document's id."""
    pattern: str | None = None
    """Glob of the files inside a folder, by name, or by the path inside when it has a slash; unset:
    by kind."""
    config: str | None = None
    """Configuration of a hub dataset."""
    split: str | None = None
    """Split of a hub or saved dataset; unset: its only one."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    follow_links: bool = False
    """Read files outside the folder that a link inside it leads to (a hub's cache); links to
    folders are never followed."""
    weight: float | None = setting(None, at_least=0, way_out="set a share such as 0.3")
    """Share of the plan's tokens, relative to the other sources; unset everywhere: every document
    once."""
    loss: bool = True
    """false: the source is context only, and none of its labels counts."""
    filler: str | None = None
    """Synthetic kinds: the source whose text surrounds the passkey or the repeated passage."""
    piece_len: int | None = None
    """Longest piece of this source's documents, tokens; longer documents follow `data.overlong`;
    unset: `data.seq_len`."""

    @property
    def gives_ids(self) -> bool:
        """Whether its documents are token ids, not text."""
        return self.ids_key is not None or self.kind in TOKEN_FILES

    def problems(self, prefix: str) -> Iterator[str]:
        if self.kind in SYNTHETIC:
            yield from self._synthetic_problems(prefix)
        elif self.path is None:
            yield (
                f"{prefix}path is not set; it must be a file, folder, glob, URL, name or "
                f"python:stdlib; e.g. {prefix}path=./documents"
            )
        yield from self._template_problems(prefix)
        yield from self.ids_problems(self.kind, prefix)
        yield from self._text_problems(prefix)
        if self.group_by is not None and self.id_key is not None:
            yield (
                f"{prefix}id_key is {self.id_key}; with {prefix}group_by the value of the group is "
                "the id; unset one of them"
            )
        yield from self._path_problems(prefix)
        if self.kind != "auto":
            yield from self.unread_problems(self.kind, prefix)
        yield from super().problems(prefix)

    def _synthetic_problems(self, prefix: str) -> Iterator[str]:
        for key in ("min_len", "max_len", "length_weights"):
            if value := getattr(self, key):
                yield (f"{prefix}{key} is {value}; made-up documents are all used, once; unset it")

    def _template_problems(self, prefix: str) -> Iterator[str]:
        if not self.template:
            return
        if not _is_template(self.template):
            yield (
                f"{prefix}template is {self.template!r}; it must name columns in plain braces, "
                "such as {title}, and double the braces that are text; correct it"
            )
        if self.text_key != "text":
            yield (
                f"{prefix}text_key is {self.text_key}; {prefix}template names the text's columns; "
                "unset one of them"
            )

    def _text_problems(self, prefix: str) -> Iterator[str]:
        """Settings of text beside `ids_key`."""
        for key, value, default in (
            ("text_key", self.text_key, "text"),
            ("template", self.template, None),
            ("group_by", self.group_by, None),
        ):
            if self.ids_key is not None and value != default:
                yield (
                    f"{prefix}{key} is {value}; {prefix}ids_key takes a row's ids, and this is for "
                    "text; unset one of them"
                )

    def _path_problems(self, prefix: str) -> Iterator[str]:
        path = self.path or ""
        if self.follow_links and "://" in path.removeprefix("file://").removeprefix("local://"):
            yield (
                f"{prefix}follow_links is True; only folders of this machine have links; unset it"
            )
        if self.kind == "hub" and "://" in path:
            yield (
                f"{prefix}path is {self.path}; kind hub takes a name such as org/name; unset "
                f"{prefix}kind to read files by URL"
            )

    def unread_problems(self, kind: str, prefix: str) -> Iterator[str]:
        """A line for each setting that `kind` does not read: it would have no effect."""
        for key, kinds in READ_BY.items():
            value = getattr(self, key)
            if value and (key, value) != ("text_key", "text") and kind not in kinds:
                yield (
                    f"{prefix}{key} is {value!r}; it is read by kind {', '.join(kinds)}, and this "
                    f"is {kind}; unset one of them"
                )
