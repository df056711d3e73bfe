"""Every setting: its type, unit, default and rule. YAML chooses values; names and docs live here.

Fields marked `# ~` do not decide what a stage produces (speed, logging, places): changing one redoes nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from ropewalk.conf.data import DataConfig
from ropewalk.conf.fields import at_default, neutral
from ropewalk.conf.scaling import ROPE_CLASSES, RopeConfig
from ropewalk.conf.training import TrainConfig


@dataclass(kw_only=True)
class ScratchConfig:
    """A Llama-architecture base made from nothing: random weights and a byte-level BPE trained on the sources."""

    vocab_size: int  # words of the tokenizer, special tokens included
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int  # the window it is trained at, tokens
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True

    def problems(self, at: str) -> Iterator[str]:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"):
            if getattr(self, name) < 1:
                yield f"{at}.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 1):
            yield f"{at}.rope_theta is {self.rope_theta}; it must be a finite number above 1; e.g. 10000"
        if self.vocab_size < 260:
            yield f"{at}.vocab_size is {self.vocab_size}; a byte-level BPE needs 256 bytes and 4 special words; set 260 or more"
        if self.num_attention_heads < 1 or self.hidden_size % (2 * max(self.num_attention_heads, 1)):
            yield (
                f"{at}.num_attention_heads is {self.num_attention_heads}; hidden_size {self.hidden_size} must be "
                "a multiple of twice that (rotary dimensions come in pairs); change one of them"
            )
        elif self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            yield (
                f"{at}.num_key_value_heads is {self.num_key_value_heads}; it must divide num_attention_heads "
                f"{self.num_attention_heads}; set a divisor"
            )


@dataclass(kw_only=True)
class ModelConfig:
    path: str | None = None
    """Folder, hub name, or `builtin:demo`. Unset only with `scratch`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: str | None = None
    """A GGUF file inside `path`; it is dequantised once and kept in the cache."""
    package: str | None = neutral()
    """If this Python package is installed, the model is taken from the GGUF file it carries, not from the hub."""
    trust_remote_code: bool = False
    scratch: ScratchConfig | None = None

    def problems(self) -> Iterator[str]:
        if self.scratch is not None:
            yield from self.scratch.problems("model.scratch")
            if self.path is not None:
                yield f"model.path is {self.path}; a model from model.scratch has no path; unset one of them"
        elif self.path is None:
            yield "model.path is not set; it must be a folder, a hub name or builtin:demo; e.g. model.path=builtin:demo"


@dataclass(kw_only=True)
class EvalConfig:
    length: int | None = None
    """Longest context measured, tokens; unset: the new window."""
    windows: int = 16
    """Stretches of held-out text of that length; at most `windows_per_document` of one document."""
    windows_per_document: int = 2
    passkey_lengths: list[int] | None = None
    """Unset: the original window, doubled up to `length`."""
    passkey_depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    passkey_tries: int = 20
    gain_targets: int | None = None
    """Target tokens at each window's end, the same under every context length; unset: half the original window."""
    precision: str = "fp32"
    """fp32 or bf16."""
    batch_tokens: int = neutral(8192)
    """Tokens computed at once."""

    def problems(self) -> Iterator[str]:
        for name in ("windows", "windows_per_document", "batch_tokens"):
            if getattr(self, name) < 1:
                yield f"eval.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if self.passkey_tries < 0:
            yield f"eval.passkey_tries is {self.passkey_tries}; it must be at least 0; 0 leaves passkey out"
        for name in ("length", "gain_targets"):
            value = getattr(self, name)
            if value is not None and value < 2:
                yield f"eval.{name} is {value}; it must be at least 2 tokens; unset it for the default"
        if any(length < 2 for length in self.passkey_lengths or []):
            yield f"eval.passkey_lengths is {self.passkey_lengths}; each must be at least 2 tokens; unset it for the default"
        if any(not 0 <= depth <= 1 for depth in self.passkey_depths):
            yield f"eval.passkey_depths is {self.passkey_depths}; each must be in [0, 1]; 0 is the start of the text"
        if self.precision not in ("bf16", "fp32"):
            yield f"eval.precision is {self.precision}; it must be fp32 or bf16; choose one"


@dataclass(kw_only=True)
class CalibrateConfig:
    searcher: str = "ramp"
    """ramp (TPE over beta_fast, beta_slow and attention_factor), longrope (evolution of a divisor a frequency) or both."""
    methods: list[str] = field(default_factory=lambda: ["yarn", "pi", "ntk", "ntk_by_parts", "llama3", "abf"])
    """Measured first with their papers' settings, and shown beside what is found; yarn is what the gain is counted from."""
    passes: int = 300
    """Budget of the search in forward passes of a whole window; a prefix counts by its tokens."""
    windows: int = 8
    """Stretches of text that candidates are chosen on, from one half of the held-out documents."""
    report_windows: int = 16
    """Stretches that the gain is reported on, from the other half."""
    length: int | None = None
    """Tokens of a stretch while searching; unset: the new window. The report always reads the new window."""
    inside_weight: float = 0.5
    """Share of the loss inside the original window in what is minimised; the rest is the loss beyond it."""
    population: int = 16
    """Of the evolution: how many of the best have children, at most a quarter of what was measured."""

    def problems(self) -> Iterator[str]:
        if self.searcher not in ("ramp", "longrope", "both"):
            yield f"calibrate.searcher is {self.searcher}; it must be one of ramp, longrope, both; choose one"
        for name, least in (("passes", 1), ("windows", 1), ("report_windows", 1), ("population", 4)):
            if getattr(self, name) < least:
                yield f"calibrate.{name} is {getattr(self, name)}; it must be at least {least}; raise it"
        if not 0 <= self.inside_weight < 1:
            yield f"calibrate.inside_weight is {self.inside_weight}; it must be at least 0 and below 1; e.g. 0.5"
        if self.length is not None and self.length < 2:
            yield f"calibrate.length is {self.length}; it must be at least 2 tokens; unset it for the new window"
        allowed = [m for m in ROPE_CLASSES if m not in ("none", "dynamic", "longrope", "table")]
        if wrong := [m for m in self.methods if m not in allowed]:
            yield f"calibrate.methods has {', '.join(wrong)}; each must be one of {', '.join(allowed)}; leave it out"
        if "yarn" not in self.methods:
            yield "calibrate.methods has no yarn; the gain is counted from its defaults; add it"


@dataclass(kw_only=True)
class ExportConfig:
    gguf: str = "f16"
    """The weights of the GGUF file for llama.cpp: f32, f16 or bf16; off: no such file."""

    def problems(self) -> Iterator[str]:
        if self.gguf not in ("f32", "f16", "bf16", "off"):
            yield f"export.gguf is {self.gguf}; it must be one of f32, f16, bf16, off; choose one"


@dataclass(kw_only=True)
class Config:
    """One run."""

    schema: int = 1
    name: str
    """The run: its folder is `runs_dir/name`."""
    seed: int = 0
    runs_dir: str = neutral("runs")
    cache_dir: str = neutral("~/.cache/ropewalk")
    """Token stores, plans and converted models, shared by runs, named by their content."""
    phases: list[Any] = field(default_factory=list)
    """Trainings one after the other, each a set of settings on top of the run's, such as
    `{name: long, data.seq_len: 65536, rope.factor: 8, train.steps: 200}`; each starts from the model of the one before."""
    phase: int = 0
    """Of a phase's frozen settings: which one it is, from 1. Not to be set."""
    model: ModelConfig
    rope: RopeConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def problems(self) -> Iterator[str]:
        if not self.name or "/" in self.name or self.name.startswith("."):
            yield f"name is {self.name!r}; it must be a plain folder name; e.g. name=my-run"
        if self.schema != 1:
            yield f"schema is {self.schema}; this version reads 1; use the version that wrote the file"
        for section in (self.model, self.rope, self.data, self.train, self.eval, self.calibrate, self.export):
            yield from section.problems()
        yield from self.train.mixed_problems(self.rope.method, self.data.pose.target_length)
        yield from self.train.group_problems(self.data.seq_len)
        batch = self.micro_batch_tokens
        for key, _, tokens in self.batches():
            if tokens < 1 or tokens % max(batch, 1):
                yield (
                    f"{key} is {tokens}; it must be a multiple of train.micro_batch_size "
                    f"{self.train.micro_batch_size} x data.seq_len {self.data.seq_len} = {batch}; "
                    f"try {max(1, round(tokens / max(batch, 1))) * batch}"
                )

    @property
    def micro_batch_tokens(self) -> int:
        return self.train.micro_batch_size * self.data.seq_len

    @property
    def global_batch_tokens(self) -> int:
        return self.micro_batch_tokens if self.train.global_batch_tokens is None else self.train.global_batch_tokens

    def batches(self) -> list[tuple[str, int, int]]:
        """The setting, first step (from 0) and tokens of each size of the global batch, in order."""
        ramp = [pair for pair in self.train.batch_ramp if len(pair) == 2]
        later = [(f"train.batch_ramp[{n}][1]", step - 1, tokens) for n, (step, tokens) in enumerate(ramp)]
        return [("train.global_batch_tokens", 0, self.global_batch_tokens), *later]

    @property
    def tokens(self) -> int:
        """Of all steps."""
        sizes = self.batches()
        ends = [*(first for _, first, _ in sizes[1:]), self.train.steps]
        spans = [max(0, min(end, self.train.steps) - first) for (_, first, _), end in zip(sizes, ends, strict=True)]
        return sum(span * tokens for span, (_, _, tokens) in zip(spans, sizes, strict=True))


def content(section: Any) -> Any:
    """A section as plain values: what a fingerprint is taken of. Without its neutral fields, and those added later that are at
    their default."""
    if is_dataclass(section) and not isinstance(section, type):
        return {
            f.name: content(getattr(section, f.name)) for f in fields(section) if _decides(f, getattr(section, f.name))
        }
    if isinstance(section, dict):
        return {str(key): content(value) for key, value in section.items()}
    if isinstance(section, (list, tuple)):
        return [content(value) for value in section]
    return section


def _decides(of: "Field[Any]", value: Any) -> bool:
    return not of.metadata.get("neutral") and not (of.metadata.get("added") and at_default(of, value))
