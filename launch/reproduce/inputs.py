"""What a run was made from, by its content: base, tokenizer, documents."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.conf.artifacts.records import fingerprint

if TYPE_CHECKING:
    from ropewalk.launch.pipeline.run import Run

MOST_FILES = 1000
"""Of a source, whose digests are recorded one by one; of more, one digest of all."""


def inputs(run: "Run", with_base: bool) -> dict[str, Any]:
    """By kind. `with_base`: also the base's files, the first look at which reads all weights."""
    result: dict[str, Any] = {"data": {name: source(run, name) for name in run.listings}}
    if with_base:
        result["base"] = base(run)
        if run.tokenizer is not None:
            from ropewalk.data import tokenizer as tokenizers

            result["tokenizer"] = tokenizers.encoding_fingerprint(run.tokenizer)
    return {kind: content for kind, content in result.items() if content}


def base(run: "Run") -> dict[str, Any]:
    """Name, commit, and the sha256 of each file that the model is loaded from."""
    from ropewalk.train import identity

    known, files = run.base, dict[str, str]()
    if known.path is not None and known.revision is not None:
        files = identity.hub_files(known.path, known.revision, run.cache)
    elif known.path is not None:
        files = identity.folder_files(Path(known.path), run.cache)
    return {
        "name": known.name,
        "revision": known.revision,
        "identity": known.identity,
        "files": files,
    }


def source(run: "Run", name: str) -> dict[str, Any]:
    """Files, bytes and digests of a text source, with the settings that its documents depend on."""
    content = run.listings[name].identity(run.cache)
    rows = content["files"]
    record: dict[str, Any] = {
        "files": len(rows),
        "bytes": sum(size or 0 for _, size, _ in rows),
        "sha256": fingerprint(content),
    }
    if len(rows) <= MOST_FILES:
        record["digests"] = {file: digest for file, _, digest in rows}
    return record


def changes(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
    """A line for each input whose content is not that of the manifest."""
    for name, known in recorded.get("data", {}).items():
        new = present.get("data", {}).get(name)
        if new is None:
            yield f"data.sources.{name} is not there; the manifest has {known['files']} files of it"
        elif new["sha256"] != known["sha256"]:
            yield f"data.sources.{name} has another content: {_first(known, new)}"
    for kind in ("base", "tokenizer"):
        known, new = recorded.get(kind), present.get(kind)
        if known and new and _content(known) != _content(new):
            key = "model.path"
            first = _first_file(known["files"], new["files"]) if kind == "base" else ""
            yield f"{key} has another {kind}{f': {first}' if first else ''}"


def _content(known: Any) -> Any:
    return known["identity"] if isinstance(known, dict) else known


def _first(known: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first file that differs, or the counts where single files were not recorded."""
    text = _first_file(known.get("digests", {}), new.get("digests", {}))
    if text:
        return text
    if (known["files"], known["bytes"]) == (new["files"], new["bytes"]):
        return "the settings that its documents are read with, or files of the same total size"
    return (
        f"{new['files']} files of {new['bytes']} bytes, {known['files']} of {known['bytes']} in "
        "the manifest"
    )


def _first_file(known: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for name in sorted({*known, *new}):
        if name not in new:
            return f"{Path(name)} is missing"
        if name not in known:
            return f"{Path(name)} is new"
        if known[name] != new[name]:
            return f"{Path(name)} is another (sha256)"
    return ""
