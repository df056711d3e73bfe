"""What is asked of each model: the same windows and the same questions for all. Examples in, plain rows out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedModel

from ropewalk.conf.errors import DataError
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts, Window, heldout_text, heldout_windows
from ropewalk.data.retrieval import Passkey, passkey, random_key, random_span
from ropewalk.eval.measure import score, statistics, suite
from ropewalk.train.rope.plan import RopePlan

BINS = 16


@dataclass(frozen=True)
class EvalSuite:
    """Everything that is measured, made once a run."""

    window: int  # the base's
    length: int  # the longest context
    windows: list[Window]
    questions: dict[tuple[int, float], list[Passkey]]  # by (length, depth)
    targets: int  # tokens at each window's end, for context_gain
    batch_tokens: int
    seed: int

    @property
    def contexts(self) -> list[int]:
        return statistics.doublings(min(self.window, self.length), self.length)


def questions(
    config: EvalConfig,
    encode: Callable[[str], np.ndarray],
    filler: np.ndarray,
    lengths: Sequence[int],
    seed: int,
) -> dict[tuple[int, float], list[Passkey]]:
    """`passkey_tries` questions a cell, from held-out text. Raises: DataError when there is too little of it."""
    if not config.passkey_tries:
        return {}
    if len(filler) < max(lengths):
        raise DataError(
            f"eval.passkey_lengths is {list(lengths)}; held-out text has {len(filler)} tokens; raise data.heldout_share or lower the lengths"
        )
    found = {}
    for length in lengths:
        for at, depth in enumerate(config.passkey_depths):
            rngs = [
                np.random.Generator(
                    np.random.Philox(key=[seed + 1, (length << 20) + (at << 10) + k])
                )
                for k in range(config.passkey_tries)
            ]
            found[length, depth] = [
                passkey(encode, random_span(filler, length, r), random_key(r), length, depth)
                for r in rngs
            ]
    return found


def measure(model: PreTrainedModel, exam: EvalSuite, label: str) -> dict[str, Any]:
    """All results of one model, in the form of `eval/results.json`."""
    draws = statistics.resamples([w.document for w in exam.windows], exam.seed)
    ids = np.stack([w.ids for w in exam.windows])
    nll = _by_parts(model, ids, exam, f"{label}: loss by position")
    return {
        "nll_by_position": statistics.by_position(nll, draws, max(1, exam.length // BINS)),
        "perplexity": statistics.perplexities(nll, exam.contexts),
        "passkey": _passkey(model, exam, label),
        "context_gain": statistics.gains(_contexts(model, ids, nll, exam, label), draws),
    }


def _by_parts(model: PreTrainedModel, ids: np.ndarray, exam: EvalSuite, label: str) -> np.ndarray:
    """`window_nll` with a progress bar."""
    parts = list(score.batches([ids.shape[1]] * len(ids), exam.batch_tokens))
    bar = tqdm(parts, desc=label, disable=None, leave=False)
    return np.concatenate([score.window_nll(model, ids[part], exam.batch_tokens) for part in bar])


def _contexts(
    model: PreTrainedModel, ids: np.ndarray, nll: np.ndarray, exam: EvalSuite, label: str
) -> dict[int, np.ndarray]:
    """Losses of each window's last `targets` tokens, (N, targets), with ever more of the text before them."""
    found = {exam.length: nll[:, -exam.targets :]}  # the whole window was read already
    for context in exam.contexts[:-1]:
        found[context] = _by_parts(model, ids[:, -context:], exam, f"{label}: context {context}")[
            :, -exam.targets :
        ]
    return found


def _passkey(model: PreTrainedModel, exam: EvalSuite, label: str) -> list[dict[str, Any]]:
    rows = []
    for (length, depth), asked in tqdm(
        exam.questions.items(), desc=f"{label}: passkey", disable=None, leave=False
    ):
        hits = sum(score.greedy_correct(model, asked, exam.batch_tokens))
        low, high = statistics.wilson(hits, len(asked))
        rows.append(
            {
                "length": length,
                "depth": depth,
                "n": len(asked),
                "accuracy": hits / len(asked),
                "low": low,
                "high": high,
            }
        )
    return rows


def build_suite(config: Config, plan: RopePlan, data: DataArtifacts) -> suite.EvalSuite:
    """Windows and questions, the same for every model."""
    window = plan.base_window
    length = config.eval.length or plan.max_position_embeddings
    stores = data.text_stores(config.data)
    windows = heldout_windows(stores, length, config.eval.windows, config.eval.windows_per_document)
    if not windows:
        raise DataError(
            f"eval.length is {length}; no held-out document has so many tokens; raise data.heldout_share (now {config.data.heldout_share}), "
            "add longer documents or lower eval.length"
        )
    encode = tokenizers.text_encoder(tokenizers.load(str(data.tokenizer)))
    lengths = config.eval.passkey_lengths or statistics.doublings(min(window, length), length)
    asked = suite.questions(
        config.eval,
        encode,
        heldout_text(stores),
        lengths,
        config.seed,
    )
    targets = min(config.eval.context_gain_tokens or window // 2, min(window, length) - 1)
    return suite.EvalSuite(
        window, length, windows, asked, targets, config.eval.batch_tokens, config.seed
    )
