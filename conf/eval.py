"""Settings of eval and calibrate."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf import eval_models
from ropewalk.conf.eval_gates import GatesConfig
from ropewalk.conf.eval_language import (
    FarCopyConfig,
    LongPplConfig,
    PiCompatConfig,
    SlidingConfig,
    SwappedGainConfig,
    YarnCompatConfig,
)
from ropewalk.conf.eval_models import EvalModelConfig
from ropewalk.conf.eval_retrieval import KeyValueEvalConfig, MultiDocumentConfig, NeedleConfig
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.conf.eval_short_context import ShortContextConfig
from ropewalk.conf.eval_vllm import VllmConfig
from ropewalk.conf.rules import LARGEST, setting

CALIBRATED = ("pi", "ntk", "ntk_by_parts", "yarn", "llama3", "abf")
"""RoPE methods that calibrate can measure: one table for all lengths, from closed formulas."""

PROGRESS = (
    *("nll_by_position", "window_loss", "perplexity", "perplexity_by_length", "context_gain"),
    *("swapped_gain", "far_copy", "longppl", "short_context"),
    *("passkey", "json_kv", "needle", "lost_in_middle", "ruler", "effective_length"),
)
"""What is measured where `eval.tasks` names nothing: suite=progress."""
TASKS = (*PROGRESS, "multi_document_qa", "sliding", "yarn_compat", "pi_compat")
"""Measurements, one file each in eval/tasks/."""


@dataclass(kw_only=True)
class EvalConfig:
    """What the models are measured on."""

    tasks: list[str] = setting(factory=lambda: list(PROGRESS), one_of=TASKS, way_out="leave it out")
    """What is measured; a task that was measured before is read from the cache. suite=smoke,
    progress (these defaults), claim or publish chooses tasks and numbers together."""
    length: int | None = setting(None, at_least=2, way_out="unset it for the new window")
    """Longest context measured, tokens; unset: the new window."""
    windows: int = setting(32, at_least=1)
    """Windows of held-out text of that length; at most `windows_per_document` of one document."""
    windows_per_document: int = setting(2, at_least=1)
    """Most windows that one held-out document may give."""
    seed: int | None = setting(
        None, at_least=0, at_most=LARGEST, way_out="e.g. 0", fingerprint="if_set"
    )
    """Seed of the questions; unset: `seed`. Runs of several seeds that share it answer the same
    questions, and their base is measured once."""
    passkey_lengths: list[int] | None = setting(
        None, at_least=2, way_out="unset it for the default"
    )
    """Prompt lengths of the passkey task, tokens; unset: the original window, doubled up to
    `length`."""
    passkey_depths: list[float] = setting(
        factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0],
        at_least=0,
        at_most=1,
        way_out="0 is the start of the text",
    )
    """Where the passkey stands in the prompt, from 0 (start) to 1 (end)."""
    passkey_tries: int = setting(20, at_least=0, way_out="0 leaves passkey out")
    """Prompts for each length and depth of the passkey task; 0: none."""
    json_kv: KeyValueEvalConfig = setting(factory=KeyValueEvalConfig, fingerprint="if_set")
    needle: NeedleConfig = setting(factory=NeedleConfig, fingerprint="if_set")
    multi_document_qa: MultiDocumentConfig = setting(
        factory=MultiDocumentConfig, fingerprint="if_set"
    )
    context_gain_tokens: int | None = setting(None, at_least=2, way_out="unset it for the default")
    """Target tokens at each window's end, the same under every context length; unset: half the
    original window."""
    models: dict[str, EvalModelConfig] = setting(factory=dict, fingerprint=False)
    """Models measured beside those of the run, by the names of their columns."""
    run_models: bool | None = setting(None, fingerprint=False)
    """Also measure base, rescaled and extended model of this run. Unset: where the settings of a
    training are there; else only `eval.models` are measured, and nothing is trained."""
    reference: str | None = setting(None, fingerprint="if_set")
    """The column that the others are compared with, pair by pair; unset: base, or without one the
    first of `eval.models`."""
    judged: str | None = setting(None, fingerprint="if_set")
    """The column that gates and answers are about, against `reference`; unset: extended, or without
    one the last column that is not the reference."""
    ruler: RulerConfig = setting(factory=RulerConfig, fingerprint="if_set")
    sliding: SlidingConfig = setting(factory=SlidingConfig, fingerprint="if_set")
    yarn_compat: YarnCompatConfig = setting(factory=YarnCompatConfig, fingerprint="if_set")
    pi_compat: PiCompatConfig = setting(factory=PiCompatConfig, fingerprint="if_set")
    swapped_gain: SwappedGainConfig = setting(factory=SwappedGainConfig, fingerprint="if_set")
    far_copy: FarCopyConfig = setting(factory=FarCopyConfig, fingerprint="if_set")
    longppl: LongPplConfig = setting(factory=LongPplConfig, fingerprint="if_set")
    short_context: ShortContextConfig = setting(factory=ShortContextConfig)
    gates: GatesConfig = setting(factory=GatesConfig)
    strict: bool = setting(False, fingerprint=False)
    """Whether an undecided gate, or none that decides, ends run and eval with exit code 3."""
    precision: str | None = setting(None, one_of=("fp32", "bf16"))
    """Precision of the models while they are measured: fp32 or bf16; unset: the training's on a
    GPU, fp32 on a CPU."""
    batch_tokens: int = setting(8192, at_least=1, fingerprint=False)
    """Tokens that are computed at once."""
    chunk_tokens: int = setting(2048, at_least=1, fingerprint=False)
    """Tokens of a forward call of a text or prompt that is longer, whose keys and values are kept
    for the next call; prompts with the same beginning share the calls up to there."""
    backend: str = setting("transformers", one_of=("transformers", "vllm"), fingerprint="if_set")
    """What decodes replies: transformers' model, or vLLM in a process of its own. Losses, and
    answers that are judged without decoding, are always transformers' model's."""
    vllm: VllmConfig = setting(factory=VllmConfig, fingerprint=False)
    ranks_per_node: int | None = setting(None, at_least=1, fingerprint=False)
    """Processes that share the windows and questions, on each machine; unset: one per GPU, as
    `train.launcher` says, and one on a CPU."""
    sp_size: int = setting(1, at_least=1, fingerprint=False)
    """Ranks that share each text and prompt, for windows that one device does not hold: a divisor
    of the ranks. Every rank computes a slice, as with `train.sp_size`, keeps the keys and values of
    its own, and decodes over all of them."""
    zero_stage: int | None = setting(None, one_of=(0, 3), fingerprint=False)
    """0 keeps the whole weights on every process; 3 partitions them, for a model that no device
    holds; unset: 3 where the weights would take more than 60% of a device's memory."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from self._vllm_problems(prefix)
        if self.ranks_per_node is not None and self.ranks_per_node % max(self.sp_size, 1):
            yield (
                f"{prefix}sp_size is {self.sp_size}; it must divide {prefix}ranks_per_node "
                f"{self.ranks_per_node}; set a divisor, or start a multiple of it"
            )
        of_run = self.run_models is not False
        yield from eval_models.problems(self.models, of_run, prefix)
        if not of_run and not self.models:
            yield (
                f"{prefix}run_models is False; there must be a model to measure; set "
                f"{prefix}models.NAME.path"
            )
        names = [*(eval_models.OF_RUN if of_run else ()), *self.models]
        if names:
            yield from eval_models.column_problems(self.columns_asked, names, prefix)

    @property
    def columns_asked(self) -> dict[str, str | None]:
        """The columns that settings name, by setting."""
        evaluator = self.longppl.evaluator
        return {
            "reference": self.reference,
            "judged": self.judged,
            "longppl.evaluator": evaluator,
        }

    def _vllm_problems(self, prefix: str) -> Iterator[str]:
        if self.backend != "vllm":
            return
        for key, alone, value in (("sp_size", 1, self.sp_size), ("zero_stage", 0, self.zero_stage)):
            if value not in (alone, None):
                yield (
                    f"{prefix}backend is vllm; it holds a model whole, on the GPUs of "
                    f"{prefix}vllm.tensor_parallel_size, and {prefix}{key} is {value}; set "
                    f"{prefix}{key}={alone}, or {prefix}backend=transformers"
                )
        python = self.vllm.python
        if python is not None and not Path(python).expanduser().is_file():
            yield (
                f"{prefix}vllm.python is {python}; it must be the interpreter of an environment "
                "with vLLM; set its path"
            )
        if self.vllm.tensor_parallel_size > 1 and self.ranks_per_node != 1:
            yield (
                f"{prefix}vllm.tensor_parallel_size is {self.vllm.tensor_parallel_size}; one rank "
                f"must have all GPUs; set {prefix}ranks_per_node=1"
            )


@dataclass(kw_only=True)
class CalibrateConfig:
    """The search of RoPE settings on held-out text."""

    searcher: str = setting("ramp", one_of=("ramp", "longrope", "both"))
    """ramp (TPE over beta_fast, beta_slow and attention_factor), longrope (evolution of a
    divisor a frequency) or both."""
    methods: list[str] = setting(
        factory=lambda: ["yarn", "pi", "ntk", "ntk_by_parts", "llama3", "abf"],
        one_of=CALIBRATED,
        way_out="leave it out",
    )
    """Methods that are measured first, with their papers' settings, and shown beside the result;
    the gain is counted from yarn."""
    max_forward_passes: int = setting(300, at_least=1)
    """Budget of the search in forward passes of a whole window; a shorter window counts by its
    tokens."""
    windows: int = setting(8, at_least=1)
    """Windows of text that candidates are chosen on, from one half of the held-out documents."""
    report_windows: int = setting(16, at_least=1)
    """Windows that the gain is reported on, from the other half."""
    length: int | None = setting(None, at_least=2, way_out="unset it for the new window")
    """Tokens of a window while searching; unset: the new window. The report always reads the new
    window."""
    inside_weight: float = setting(0.5, at_least=0, below=1, way_out="e.g. 0.5")
    """Weight of the loss inside the original window in the objective; the loss beyond it has the
    rest."""
    population: int = setting(16, at_least=4)
    """Evolution: how many of the best candidates have children, at most a quarter of the
    measured ones."""

    def problems(self, prefix: str) -> Iterator[str]:
        if "yarn" not in self.methods:
            yield f"{prefix}methods has no yarn; the gain is counted from its defaults; add it"
