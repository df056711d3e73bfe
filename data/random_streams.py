"""Random numbers of every draw but torch's: one stream for each purpose."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is drawn for. A run's bytes depend on the numbers: add, never renumber."""

    SYNTHETIC_DOCUMENT = 0
    STEP_ORDER = 1
    BOOTSTRAP = 2
    EVAL_QUESTION = 3
    EVOLUTION = 4
    VALIDATION_HAYSTACK = 5
    RULER_QUESTION = 6
    RULER_ORDER = 7
    RULER_DEPTH = 8
    RULER_EXAMPLE = 9
    EVAL_KEY_VALUE = 10
    EVAL_NEEDLE = 11
    EVAL_BIOGRAPHIES = 12


def generator(purpose: Purpose, seed: int, index: int = 0) -> np.random.Generator:
    """The stream of one draw: a function of (purpose, seed, index), on any machine.

    Philox (Salmon et al., 2011) counts through 2^256 blocks under a key of two words. The key is
    (seed, index) and the purpose is the counter's highest word, so the streams of two purposes are
    2^192 blocks apart.
    """
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, int(purpose)]))
