"""Whether the page of a run shows the results that stand. Nothing heavy is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.launch.pipeline.order import FOLDERS
from ropewalk.launch.runs import files

WORDS = {"train": "training", "eval": "evaluation"}
"""Stages whose results a page shows, in order, as messages name them."""
INPUTS = ("data", "train")
"""Stages before these that have a manifest."""


def former_stages(run: Path) -> list[str]:
    """The stages whose result stands but is not the one on the page; none without a page.

    An evaluation of another training than the one that stands belongs on no page. Raises: OSError.
    """
    page = files.stage_manifest(run / FOLDERS["report"])
    if page is None:
        return []
    stages = dict.fromkeys([*INPUTS, *WORDS])
    made = {name: files.stage_manifest(run / FOLDERS[name]) for name in stages}
    prints = {name: manifest.fingerprint for name, manifest in made.items() if manifest}
    shown = _inputs(page.content)
    return [
        name
        for name in WORDS
        if (result := made[name]) is not None
        and shown.get(name) != result.fingerprint
        and all(_inputs(result.content).get(n) in (None, prints.get(n)) for n in INPUTS)
    ]


def _inputs(content: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = content.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def is_former(stages: list[str]) -> str:
    """`the page is of a former training and evaluation`; empty without stages."""
    named = " and ".join(WORDS[stage] for stage in stages)
    return f"the page is of a former {named}" if named else ""
