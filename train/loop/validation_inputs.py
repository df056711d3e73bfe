"""What is measured while training: windows of held-out text, and haystacks with their questions."""

from dataclasses import replace

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts, describe
from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.retrieval import Haystack, key_value


def windows(config: Config, data: DataArtifacts) -> list[np.ndarray]:
    """Windows of held-out text, each (length,).

    Raises: DataError when no document is long enough.
    """
    settings = config.train.validation
    if "nll_by_position" not in settings.tasks:
        return []
    length = settings.length or config.data.seq_len
    heldout = data.heldout_text(config.data)
    held_windows = heldout.windows(length, settings.windows, settings.windows_per_document)
    if not held_windows:
        raise DataError(
            f"train.validation.length is {length}; no held-out document has that many tokens; "
            f"raise data.heldout_share (now {config.data.heldout_share}), lower "
            "train.validation.length or set train.validation.interval_steps=0"
        )
    log.info(f"validation: held-out {describe(heldout.layout(held_windows))}")
    return [window.ids for window in held_windows]


def haystacks(config: Config, data: DataArtifacts, count: int | None = None) -> list[Haystack]:
    """JSON objects of the window's length in the form of `eval.json_kv`; eval asks about others.

    `count`: how many; as set without it. Raises: DataError when the length does not hold one, or
    the tokenizer joins a question and its answer.
    """
    settings = config.train.validation
    if "json_kv" not in settings.tasks:
        return []
    tokenizer = tokenizers.load(
        str(data.tokenizer), trust_remote_code=config.model.trust_remote_code
    )
    encode = tokenizers.text_encoder(tokenizer)
    marks = data.heldout_text(config.data).boundary_tokens
    length = (settings.length or config.data.seq_len) - marks.before
    made: list[Haystack] = []
    for number in range(settings.haystacks if count is None else count):
        rng = generator(Purpose.VALIDATION_HAYSTACK, config.seed, number)
        try:
            text = key_value(
                encode,
                length,
                rng,
                positions=settings.positions,
                shots=config.eval.json_kv.shots,
                digits=config.eval.json_kv.digits,
            )
        except DataError as error:
            way_out = "leave json_kv out of train.validation.tasks"
            raise DataError(f"{error}, or {way_out}") from error
        made.append(replace(text, context=np.concatenate([marks.begin_ids, text.context])))
    return made
