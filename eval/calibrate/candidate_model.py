"""The live model of the search: it takes each candidate's table, proved before measuring."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import HeldoutText, Window, in_turn
from ropewalk.eval.calibrate.trial import Candidate
from ropewalk.eval.engine.calls import Document
from ropewalk.eval.engine.forward import Forward
from ropewalk.eval.measure import columns
from ropewalk.train.base import Base, base_config
from ropewalk.train.model import build as models
from ropewalk.train.model.build import evaluating
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.plan import RopePlan


class CandidateModel:
    """A base model, loaded once and rescaled for every candidate."""

    def __init__(self, config: Config, base: Base, plan: RopePlan) -> None:
        self.base, self.plan, self.batch_tokens = base, plan, config.eval.batch_tokens
        self.sliding_window = config.model.sliding_window
        dtype = columns.dtype(config)
        kernel, when = config.train.attention.kernel, "before the search"
        # the windows of attention as the candidates have them
        unscaled = replace(plan.unscaled, sliding_window=plan.sliding_window)
        model = models.build(base, unscaled, dtype=dtype, attention_kernel=kernel, when=when)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]

    def plan_of(self, candidate: Candidate) -> RopePlan:
        """The rope plan of a candidate for this base, from the run's original window."""
        original = self.plan.original_max_position_embeddings
        rope = replace(candidate.rope, original_max_position_embeddings=original)
        config = base_config(self.base)
        return rope_plan.make(rope, config, self.base.name, self.sliding_window)

    def nll(self, plan: RopePlan, windows: np.ndarray) -> np.ndarray:
        """Losses under a plan, nats: (N, S) -> (N, S-1) float64.

        Raises: ProofError when the plan is not live.
        """
        models.rescale(self.model, plan)
        documents = [Document(window, first=1) for window in windows]
        with evaluating(self.model):
            scores = Forward(self.model).documents(documents, self.batch_tokens)
        return np.stack([part.nll for part in scores]).astype(np.float64)

    def measure(self, candidate: Candidate, windows: np.ndarray) -> np.ndarray:
        return self.nll(self.plan_of(candidate), windows)


def refuse(config: Config, plan: RopePlan) -> None:
    """Raises: ConfigError for a plan that cannot be calibrated; reads no weights."""
    window, length = plan.base_window, config.calibrate.length
    if plan.method == "none":
        raise ConfigError(
            "rope is none; calibrate searches a scaling, so it needs a factor; "
            "e.g. rope=yarn rope.factor=4"
        )
    if config.rope.max_position_embeddings is not None:
        raise ConfigError(
            f"rope.max_position_embeddings is {config.rope.max_position_embeddings}; calibrate "
            "searches a table for the window that the factor gives; unset it, and set it beside "
            "the table that is chosen"
        )
    if plan.qk_head_dim:
        raise ConfigError(
            f"model.path has decoupled rotary dimensions ({plan.qk_head_dim} a head); their "
            "temperature is set when the model is built, which calibrate does not vary yet; "
            "use rope=yarn"
        )
    if length is not None and not window < length <= plan.max_position_embeddings:
        raise ConfigError(
            f"calibrate.length is {length}; it must be above the base's window {window} and "
            f"at most the new one {plan.max_position_embeddings}; unset it for the new one"
        )


def findings(config: Config, plan: RopePlan) -> list[str]:
    """Warnings about the settings."""
    length = config.calibrate.length
    if length is None or length == plan.max_position_embeddings:
        return []
    return [
        f"calibrate.length is {length}; the plan reaches {plan.max_position_embeddings} tokens, "
        "and a choice on shorter stretches leaves the slowest dimensions untried beyond; "
        "unset it where time allows"
    ]


def split(config: Config, heldout: HeldoutText, plan: RopePlan) -> list[list[Window]]:
    """Held-out windows to choose on and to report on, of different documents, all sources in turn.

    Raises: DataError with fewer than two documents.
    """
    length, per_document = plan.max_position_embeddings, config.eval.windows_per_document
    windows = heldout.windows(length, None, per_document)
    documents = {window.origin: window for window in windows}
    if len(documents) < 2:
        raise DataError(
            f"data.heldout_share is {config.data.heldout_share}; {len(documents)} held-out "
            f"document(s) have {length} tokens, and calibrate needs two, one to choose on and one "
            "to report on; raise data.heldout_share, add long documents or lower rope.factor"
        )
    chosen = _half_of_each_source(documents.values(), config.seed)
    counts = {True: config.calibrate.windows, False: config.calibrate.report_windows}
    return [
        list(islice(_in_turn([w for w in windows if (w.origin in chosen) == side]), count))
        for side, count in counts.items()
    ]


def _half_of_each_source(documents: Iterable[Window], seed: int) -> set[str]:
    """Origins of half of the documents of each source, by a hash; of two odd ones, one."""
    by_source = _by_source(sorted(documents, key=lambda w: fingerprint([seed, w.document])))
    chosen: set[str] = set()
    odd = 0
    for _, windows in sorted(by_source.items()):
        half, odd = divmod(len(windows) + odd, 2)
        chosen |= {window.origin for window in windows[:half]}
    return chosen


def _in_turn(windows: Iterable[Window]) -> Iterator[Window]:
    return in_turn(list(_by_source(windows).values()))


def _by_source(windows: Iterable[Window]) -> dict[str, list[Window]]:
    by_source: dict[str, list[Window]] = {}
    for window in windows:
        by_source.setdefault(window.source, []).append(window)
    return by_source


def stack(windows: Sequence[Window], length: int | None = None) -> np.ndarray:
    """(N, S) int64"""
    return np.stack([w.ids[:length] for w in windows])
