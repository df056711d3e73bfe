"""Whether two runs computed the same, and the first thing that differs. Pure but for the files of
the evidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.artifacts.manifest import first_difference
from ropewalk.conf.artifacts.records import fingerprint
from ropewalk.launch.reproduce.evidence import Evidence
from ropewalk.launch.reproduce.results import computed, measured

STAGES = ("rope", "data", "train", "eval")
FREE = ("seed", "name", "runs_dir", "cache_dir")
"""Settings in which a run that reproduces another may differ from it."""


@dataclass(frozen=True)
class Difference:
    """The first difference in the order of the stages."""

    stage: str
    text: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.text}"


def of_settings(recorded: Mapping[str, Any], new: Mapping[str, Any]) -> Difference | None:
    """The first setting that decides numbers and is another; both as fingerprints have them."""
    old, present = ({k: v for k, v in s.items() if k not in FREE} for s in (recorded, new))
    line = first_difference(old, present)
    return Difference("settings", line) if line else None


def of_results(recorded: Evidence, new: Evidence) -> Difference | None:
    """The first stage, and in it the first artifact, step or measure, that is not the same."""
    for entry in recorded.record.get("phases", []):
        old, present = recorded.phase(entry["folder"]), new.phase(entry["folder"])
        if old is None:
            continue
        if present is None:
            return Difference(f"phase {entry['name']}", "it is missing")
        if difference := of_results(old, present):
            return Difference(f"phase {entry['name']}: {difference.stage}", difference.text)
    for stage in STAGES:
        known = recorded.record["results"].get(stage)
        made = new.record["results"].get(stage)
        if known is None:
            continue
        text = "it has no result" if made is None else _OF_STAGE[stage](known, made, recorded, new)
        if text:
            return Difference(stage, text)
    return None


def _plain(known: Any, made: Any, _recorded: Evidence, _new: Evidence) -> str:
    return first_difference(known, made) or ""


def _train(known: Any, made: Any, recorded: Evidence, new: Evidence) -> str:
    """The first step whose line differs, else the first file of weights, else of the checkpoint."""
    if known["steps_sha256"] != made["steps_sha256"]:
        return _step(known, made, recorded, new)
    if line := first_difference(known["files"], made["files"]):
        return line
    checkpoints = known["checkpoint"], made["checkpoint"]
    return "" if None in checkpoints else first_difference(*checkpoints, "checkpoint") or ""


def _step(known: Any, made: Any, recorded: Evidence, new: Evidence) -> str:
    old, present = _lines(known, recorded), _lines(made, new)
    if old is not None and present is not None:
        for before, after in zip(old, present, strict=False):
            if line := first_difference(before, after):
                return f"step {before['step']}: {line}"
        return f"steps was {len(old)}, is {len(present)}"
    losses = known.get("losses") or [], made.get("losses") or []
    for number, (before, after) in enumerate(zip(*losses, strict=False), 1):
        if before != after:
            return f"step {number}: loss was {before}, is {after}"
    return "a step differs in more than its loss; metrics.jsonl is not beside the manifest"


def _lines(known: Any, evidence: Evidence) -> list[dict[str, Any]] | None:
    """What was computed in each step, if metrics.jsonl is at hand and that of the manifest."""
    lines = evidence.lines()
    content = None if lines is None else [computed(line) for line in lines]
    return content if fingerprint(content) == known["steps_sha256"] else None


def _eval(known: Any, made: Any, recorded: Evidence, new: Evidence) -> str:
    if known["measures"] != made["measures"]:
        old, present = (side.json("eval/results.json") for side in (recorded, new))
        if old is not None and fingerprint(measured(old)) == known["measures"]:
            return first_difference(_by_name(measured(old)), _by_name(measured(present))) or ""
        return "its measures differ; results.json is not beside the manifest"
    return first_difference(known["samples"], made["samples"]) or ""


def _by_name(value: Any) -> Any:
    """Lists as mappings, so that a difference names the row."""
    if isinstance(value, dict):
        return {key: _by_name(item) for key, item in value.items()}
    if isinstance(value, list):
        return {str(number): _by_name(item) for number, item in enumerate(value)}
    return value


_OF_STAGE = {"rope": _plain, "data": _plain, "train": _train, "eval": _eval}


def environments(recorded: Evidence, new: Evidence) -> list[str]:
    """What differs in code, packages, hardware and variables: where a difference may come from."""
    old, present = ({**side.environment, "mesh": side.record["mesh"]} for side in (recorded, new))
    return list(_named(_shown(old), _shown(present)))


def _shown(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Without the text of the diff, and what follows from others."""
    code = dict(environment.get("code") or {})
    kept = {key: code.get(key) for key in ("ropewalk", "commit", "digest")}
    rest = {key: value for key, value in environment.items() if key != "lock_sha256"}
    return rest | {"code": kept}


def _named(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _named(before, after, f"{name} ")
        elif before != after:
            yield f"{name} was {_text(before)}, is {_text(after)}"


def _text(value: Any) -> str:
    if value is None:
        return "absent"
    return (
        ", ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
