"""Settings of the train stage that decide what computes the attention, and what it sees."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.fields import fingerprint_if_set, not_fingerprinted

KERNELS = ("auto", "flash", "flash3", "flash4", "varlen", "sdpa")


@dataclass(kw_only=True)
class AttentionConfig:
    """Part of `train`: its keys are `train.KEY`."""

    attention: str = not_fingerprinted("auto")
    """auto, flash (flash-attn 2), flash3, flash4, varlen (torch's own) or sdpa (per document, CPU too); what was chosen is logged."""
    s2_group: int | None = fingerprint_if_set(None)
    """S2-Attn (LongLoRA): tokens of a group that attends to itself while training, half of the heads shifted by half of it; the paper
    takes a quarter of the sequence. Unset: full attention. Evaluation and export attend in full."""

    def attending_problems(self) -> Iterator[str]:
        if self.attention not in KERNELS:
            yield f"train.attention is {self.attention}; it must be one of {', '.join(KERNELS)}; choose one"
        if self.s2_group is None:
            return
        if self.s2_group < 2 or self.s2_group % 2:
            yield f"train.s2_group is {self.s2_group}; it is shifted by half of it, so it must be even and at least 2; e.g. 2048"

    def group_problems(self, seq_len: int) -> Iterator[str]:
        if self.s2_group is not None and self.s2_group >= seq_len:
            yield (
                f"train.s2_group is {self.s2_group}; a group must be shorter than data.seq_len {seq_len}; lower it, the paper takes "
                f"{seq_len // 4}"
            )
