"""Needles in real text: the pass keys of several names, and the question for each."""

from collections.abc import Sequence

import numpy as np

from ropewalk.data.retrieval.haystack import Encode, Haystack, Question, TooShort, ask, continuation
from ropewalk.data.retrieval.pass_key import random_key

TASK = "needle"
NEEDLE = "\nThe pass key of the {name} is {key}.\n"
QUESTION = "\nWhat is the pass key of the {name}? The pass key of the {name} is"
NAMES = (
    *("anchor", "barrel", "candle", "dagger", "easel", "feather", "garden", "hammer", "island"),
    *("jacket", "kettle", "ladder", "mirror", "needle", "orchard", "pencil", "quarry", "ribbon"),
    *("saddle", "temple", "umbrella", "violin", "wagon", "yacht", "zebra", "bridge", "castle"),
    *("desert", "engine", "forest", "guitar", "harbour", "insect", "jungle", "kitchen", "lantern"),
    *("meadow", "notebook", "oven", "palace", "rocket", "shovel", "tunnel", "valley", "window"),
)
FILLER_SHARE = 0.5
"""Of the length, at least: fewer tokens of real text make no haystack."""


def needles(
    encode: Encode,
    filler: np.ndarray,
    length: int,
    depths: Sequence[float],
    names: Sequence[str],
    keys: Sequence[str],
) -> Haystack:
    """`filler` cut to `length` tokens with a needle at each depth, and a question for each.

    Depth 0 is before the text, 1 after it; depths ascend.
    Raises: TooShort when half of the length is not left for the filler, or the filler is shorter
    than its part; DataError when the tokenizer joins question and answer.
    """
    parts = [_needle(encode, name, key) for name, key in zip(names, keys, strict=True)]
    questions = [
        Question(*_question(encode, name, key), name, key, depth)
        for name, key, depth in zip(names, keys, depths, strict=True)
    ]
    task = sum(map(len, parts)) + max(question.tokens for question in questions)
    room = length - task
    if room < FILLER_SHARE * length or room > len(filler):
        raise TooShort(
            f"{TASK} length is {length}; it must hold {task} tokens of {len(parts)} needles and a "
            f"question, {FILLER_SHARE:.0%} of filler, and no more filler than the {len(filler)} "
            "tokens there are; choose another length, or set fewer eval.needle.needles"
        )
    ends = [round(depth * room) for depth in depths]
    spans = np.split(filler[:room], ends)
    pieces = [piece for pair in zip(spans, parts, strict=False) for piece in pair]
    return Haystack(np.concatenate([*pieces, spans[-1]]), tuple(questions), len(parts))


def random_names(count: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """As many different names, and a key for each; the keys differ too."""
    keys: dict[str, None] = {}
    while len(keys) < count:
        keys[random_key(rng)] = None
    return [str(name) for name in rng.choice(NAMES, count, replace=False)], list(keys)


def _needle(encode: Encode, name: str, key: str) -> np.ndarray:
    return continuation(encode, ".", NEEDLE.format(name=name, key=key), TASK)


def _question(encode: Encode, name: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    return ask(encode, ".", QUESTION.format(name=name), f" {key}", TASK)
