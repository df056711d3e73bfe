""""""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ropewalk.conf.rules import setting
from ropewalk.conf.scaling import ROPE_CLASSES


@dataclass(kw_only=True)
class EvalConfig:
    length: int | None = None
    """Longest context measured, tokens; unset: the new window."""
    windows: int = 16
    """Stretches of held-out text of that length; at most `windows_per_document` of one document."""
    windows_per_document: int = 2
    """Most windows that one held-out document may give."""
    passkey_lengths: list[int] | None = None
    """Unset: the original window, doubled up to `length`."""
    passkey_depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Where the key lies in the text: 0 is its start, 1 its end."""
    passkey_tries: int = 20
    """Tries at each length and depth; 0 leaves passkey out."""
    context_gain_tokens: int | None = None
    """Target tokens at each window's end, the same under every context length; unset: half the original window."""
    precision: str = "fp32"
    """fp32 or bf16."""
    batch_tokens: int = setting(8192, fingerprint=False)
    """Tokens computed at once."""

    def problems(self) -> Iterator[str]:
        for name in ("windows", "windows_per_document", "batch_tokens"):
            if getattr(self, name) < 1:
                yield f"eval.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if self.passkey_tries < 0:
            yield f"eval.passkey_tries is {self.passkey_tries}; it must be at least 0; 0 leaves passkey out"
        for name in ("length", "context_gain_tokens"):
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
    methods: list[str] = field(
        default_factory=lambda: ["yarn", "pi", "ntk", "ntk_by_parts", "llama3", "abf"]
    )
    """Measured first with their papers' settings, and shown beside what is found; yarn is what the gain is counted from."""
    max_forward_passes: int = 300
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
        for name, least in (
            ("max_forward_passes", 1),
            ("windows", 1),
            ("report_windows", 1),
            ("population", 4),
        ):
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
