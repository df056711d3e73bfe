"""The settings of positional skip-wise training (PoSE)."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(kw_only=True)
class PoseConfig:
    """PoSE (arXiv 2309.10400): short sequences whose positions skip ahead, drawn anew each epoch, so that they cover a longer window."""

    target_length: int | None = None
    """The window that positions cover, tokens: the rope plan's new one; unset: no position is skipped."""
    chunks: int = 2
    """Parts of a document between which positions skip; the paper has 2."""

    def problems(self, seq_len: int, document_mask: bool, positions: str) -> Iterator[str]:
        if self.chunks < 2:
            yield f"data.pose.chunks is {self.chunks}; positions skip between at least 2; the paper has 2"
        if self.target_length is None:
            return
        if self.target_length <= seq_len:
            yield (
                f"data.pose.target_length is {self.target_length}; it must be above data.seq_len {seq_len}, or nothing can be "
                "skipped; raise it, or unset it"
            )
        wanted = "restart" if document_mask else "continue"
        if positions != wanted:
            yield (
                f"data.positions is {positions}; with data.pose and data.document_mask={str(document_mask).lower()} the positions "
                f"of what attends to itself must be one count from 0; set data.positions={wanted}"
            )
