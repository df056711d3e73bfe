"""The tasks on haystacks, tried before a training."""

from collections.abc import Callable
from dataclasses import replace

from ropewalk.eval.tasks import json_kv, multi_document_qa, needle
from ropewalk.eval.tasks.haystacks import Built
from ropewalk.eval.tasks.task import EvalSuite

TASKS: dict[str, Callable[[EvalSuite], Built]] = {
    "json_kv": json_kv.built,
    "needle": needle.built,
    "multi_document_qa": multi_document_qa.built,
}


def try_samples(suite: EvalSuite) -> None:
    """One haystack of the tasks that are asked, at each length. Raises: DataError."""
    asked = suite.config
    one = replace(
        asked,
        json_kv=replace(asked.json_kv, haystacks=1),
        needle=replace(asked.needle, haystacks=1, single_haystacks=0),
        multi_document_qa=replace(asked.multi_document_qa, haystacks=1),
    )
    small = replace(suite, config=one)
    read = {"lost_in_middle", "effective_length"} & {*asked.tasks}
    for name, built in TASKS.items():
        if name in asked.tasks or (name == "json_kv" and read):
            built(small)
