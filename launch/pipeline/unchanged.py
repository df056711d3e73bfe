"""A command that has nothing to do says so without loading torch and transformers.

After a command, the content of all that it read is recorded beside the run's results: settings,
the base's files, documents, versions and ropewalk's own code. The next command with the same
content and undamaged results would skip every stage, so its lines are printed at once. Any doubt
takes the way through the stages.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.digests import file_digests
from ropewalk.conf.artifacts.records import fingerprint, read_signed, signed, write_json
from ropewalk.conf.artifacts.verify import digests_of, find_damage
from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.sources import list_source
from ropewalk.data.sources.local import STDLIB
from ropewalk.launch.pipeline.versions import code_digest, versions

RECORD = ".unchanged.json"
"""In the run's folder. Hidden, because it is no result."""
VERBS = ("run", "train", "eval", "report", "data")
FILES = ("rope.json", "config.yaml", "manifest.json", "data/ledger.json")
"""Of a run's folder, for which no stage's manifest vouches."""
BUILTIN = "builtin:"
BASES = Path(__file__).parents[2] / "train" / "bases"


def folder_of(config: Config) -> Path:
    return Path(config.runs_dir).expanduser() / config.name


def finished_stages(config: Config, verb: str) -> Sequence[str] | None:
    """The stages of a command that would skip them all; None when one may have to run."""
    try:
        return _finished_stages(config, verb)
    except OSError:  # the way through the stages says which file, and what to do
        return None


def _finished_stages(config: Config, verb: str) -> Sequence[str] | None:
    folder, cache = folder_of(config), Path(config.cache_dir).expanduser()
    record = read_signed(folder / RECORD)
    if record is None or verb not in record["verbs"]:
        return None
    if record["inputs"] != _inputs(config, cache) or find_damage(folder, record["files"]):
        return None
    results = {folder / name: value for name, value in record["stages"].items()}
    results |= {cache / name: value for name, value in record["cache"].items()}
    for path, expected in results.items():
        result = manifest.finished(path)
        if result is None or result.fingerprint != expected:
            return None
    stages: Sequence[str] = record["verbs"][verb]
    return stages


def record(config: Config, verb: str, stages: Sequence[str], cached: Sequence[Path]) -> None:
    """Record what the finished command `verb` read and made. `cached`: folders of the cache."""
    folder, cache = folder_of(config), Path(config.cache_dir).expanduser()
    inputs = _inputs(config, cache) if verb in VERBS else None
    if inputs is None:
        return
    former = read_signed(folder / RECORD) or {}
    verbs = former["verbs"] if former.get("inputs") == inputs else {}
    stage_fingerprints = {
        name: value for name in _stage_folders(folder) if (value := _made(folder / name))
    }
    content = {
        "inputs": inputs,
        "verbs": {**verbs, verb: list(stages)},
        "files": digests_of(folder, FILES),
        "stages": stage_fingerprints,
        "cache": {path.relative_to(cache).as_posix(): _made(path) for path in cached},
    }
    write_json(folder / RECORD, signed(content))


def _stage_folders(folder: Path) -> list[str]:
    return [name for name in ("data", "train", "eval", "report") if (folder / name).is_dir()]


def _made(path: Path) -> str | None:
    result = manifest.read(path)
    return None if result is None else result.fingerprint


def _inputs(config: Config, cache: Path) -> str | None:
    """Fingerprint of the content of everything that a command reads; None where that is not on this
    machine, where a phase starts from another, or where other models are measured."""
    base = _base_files(config, cache)
    documents = _documents(config, cache)
    if base is None or documents is None or config.phases or config.phase or config.eval.models:
        return None
    settings = asdict(config)
    named = [Path(text).expanduser() for text in _texts(settings)]
    folders = [config.eval.ruler.haystack, config.eval.short_context.lm_eval.include_path]
    for folder in (Path(text).expanduser() for text in folders if text is not None):
        named += sorted(folder.rglob("*"))
    files = {str(path): _digest(path, cache) for path in named if path.is_file()}
    values = [settings, base, documents, files, versions(), code_digest()]
    return fingerprint(values)


def _base_files(config: Config, cache: Path) -> Mapping[str, str] | None:
    """Digests of all files of the base's folder; None for a base that lies elsewhere."""
    model = config.model
    if model.scratch is not None:
        return {}
    if model.path is None or model.package or model.gguf_file:
        return None
    path = model.path
    builtin = BASES / path.removeprefix(BUILTIN)
    folder = builtin if path.startswith(BUILTIN) else Path(path).expanduser()
    if not folder.is_dir():
        return None
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    digests = file_digests(folder, names, cache)
    return digests if len(digests) == len(names) else None


def _documents(config: Config, cache: Path) -> dict[str, Any] | None:
    """The content of each text source; None when one lies elsewhere or cannot be listed."""
    result: dict[str, Any] = {}
    for name, source in config.data.sources.items():
        if source.kind in SYNTHETIC:
            continue
        if source.path is None or not _is_here(source.path):
            return None
        try:
            listing = list_source(source, name, config.data.max_document_bytes)
        except DataError:
            return None
        result[name] = listing.identity(cache)
    return result


def _is_here(path: str) -> bool:
    return path == STDLIB or Path(path).expanduser().exists()


def _digest(path: Path, cache: Path) -> str:
    return file_digests(path.parent, [path.name], cache).get(path.name, "")


def _texts(value: object) -> Iterator[str]:
    """Every text within settings: some name files, such as tables and hostfiles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
