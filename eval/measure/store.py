"""Results on disk, one line a request, written as they come: an interrupted evaluation goes on.

A folder of the cache holds the results of one model column. Losses lie in one file end to end,
and a line names their place. Results whose line or losses were damaged are measured again, and the
damaged lines are removed by the next process that holds the folder's lock.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts.records import move_aside, write_text
from ropewalk.conf.log import log
from ropewalk.eval.requests import Reply, Result

LINES, LOSSES = "results.jsonl", "losses.f32"


class ResultStore:
    """Results by the digest of their request. `folder`: None keeps them in memory alone."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.results = folder, dict[str, Result]()
        self.damaged = 0
        """Lines on disk that cannot be used."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in (folder / LINES, folder / LOSSES):
                if path.is_dir():
                    aside = move_aside(path, "damaged")
                    log.info(f"eval: {path} is a folder; moved to {aside.name}")
            self._read(folder)
            self._tell_damage()

    def _read(self, folder: Path) -> list[bytes]:
        """The undamaged lines; the damaged ones are counted."""
        self.damaged, intact = 0, list[bytes]()
        if not (folder / LINES).is_file():
            return intact
        losses = (folder / LOSSES).read_bytes() if (folder / LOSSES).is_file() else b""
        for line in (folder / LINES).read_bytes().splitlines():
            entry = _parse(line)
            result = None if entry is None else _result(entry, losses)
            if entry is None or result is None:
                self.damaged += 1
            else:
                self.results[entry["request"]] = result
                intact.append(line)
        return intact

    def _tell_damage(self) -> None:
        if self.damaged:
            log.info(
                f"eval: {self.damaged} results in {self.folder} are damaged; measured again where "
                "they are asked for"
            )

    def read_again(self) -> None:
        """What another process has added since; damaged lines are removed.

        The caller holds the folder's lock: nothing is appended meanwhile.
        """
        if self.folder is None:
            return
        before, intact = self.damaged, self._read(self.folder)
        if self.damaged > before:
            self._tell_damage()
        if self.damaged:
            text = "".join(f"{line.decode()}\n" for line in intact)
            write_text(self.folder / LINES, text)
            self.damaged = 0

    def append(self, digest: str, result: Result) -> None:
        self.extend({digest: result})

    def extend(self, results: Mapping[str, Result]) -> None:
        """Keep the results of a batch. Their losses are on disk before the lines that name them,
        which come at once: a process that is killed leaves the batch whole or not at all."""
        self.results |= results
        if self.folder is None:
            return
        lines = [self._entry(self.folder, name, result) for name, result in results.items()]
        with (self.folder / LINES).open("ab") as file:
            first = _new_line(file.tell(), self.folder / LINES)
            file.write(first + b"".join(_line(line) + b"\n" for line in lines))

    def _entry(self, folder: Path, digest: str, result: Result) -> dict[str, Any]:
        if isinstance(result, np.ndarray):
            return {"request": digest, **self._append_losses(folder / LOSSES, result)}
        return {"request": digest, "replies": [[r.correct, r.nll, list(r.ids)] for r in result]}

    def _append_losses(self, path: Path, losses: np.ndarray) -> dict[str, Any]:
        data = np.ascontiguousarray(losses, dtype="<f4").tobytes()
        with path.open("ab") as file:
            offset = file.tell()
            file.write(data)
        return {"offset": offset, "bytes": len(data), "losses": hashlib.sha256(data).hexdigest()}


def _new_line(size: int, path: Path) -> bytes:
    """What closes a line that an interrupted process left open."""
    if not size:
        return b""
    with path.open("rb") as file:
        file.seek(size - 1)
        return b"" if file.read(1) == b"\n" else b"\n"


def _line(entry: dict[str, Any]) -> bytes:
    check = hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]
    return json.dumps({**entry, "check": check}).encode()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None where it is cut or was changed."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    entry.pop("check", None)
    return entry if _line(entry) == line else None  # also other digits of an equal number


def _result(entry: dict[str, Any], losses: bytes) -> Result | None:
    if "replies" in entry:
        return tuple(Reply(correct, nll, tuple(ids)) for correct, nll, ids in entry["replies"])
    data = losses[entry["offset"] : entry["offset"] + entry["bytes"]]
    if hashlib.sha256(data).hexdigest() != entry["losses"]:
        return None
    return np.frombuffer(data, "<f4").astype(np.float32)
