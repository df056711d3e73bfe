"""Settings that trade memory for time: recomputing, offloading, tiling, compiling."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.rules import setting

ZERO3_SETTINGS = (
    "zero_hpz_size",
    "zero_prefetch_bucket_size",
    "zero_max_live_parameters",
    "zero_max_reuse_distance",
    "zero_persistence_threshold",
)


@dataclass(kw_only=True)
class MemoryConfig:
    """Where weights, optimizer states and activations are held."""

    activation_checkpointing: bool = setting(True, fingerprint=False)
    """Keep only the inputs of the decoder layers, and compute each layer again in the backward
    pass."""
    keep_attention: bool | None = setting(None, fingerprint=False)
    """Keep the output of each layer's attention as well, and do not compute its attention again;
    unset: where that fits the device by arithmetic. The choice is logged."""
    offload_activations: bool = setting(False, fingerprint=False)
    """Keep the checkpointed layer inputs (and attention's output, if it is kept) in host memory;
    each is fetched while the layer after it is computed."""
    offload_optimizer: bool = setting(False, fingerprint=False)
    """Keep master weights and moments in host memory and update them there. In bf16 at ZeRO 1
    and 2 the fp32 gradient sums stay on the device until the step (`zero_stage`); at ZeRO 3 they
    do not."""
    offload_params: bool = setting(False, fingerprint=False)
    """Keep weights in host memory until a layer needs them; ZeRO 3."""
    offload_path: str | None = setting(None, fingerprint=False)
    """Folder on a fast local disk (NVMe) that takes the offloaded tensors in place of host
    memory; ZeRO 3."""
    tile_mlp_tokens: int = setting(
        0, at_least=0, way_out="e.g. 4096, or 0 for no tiles", fingerprint=False
    )
    """Tokens per MLP tile; each tile is computed once more in the backward pass; 0: the whole
    sequence at once."""
    compile: bool = setting(False, fingerprint=False)
    """torch.compile of the norms and the MLP (or its tile) of each decoder layer."""
    zero_hpz_size: int | None = setting(
        None, at_least=2, way_out="unset it for none", fingerprint=False
    )
    """ZeRO++'s hierarchy (hpZ): ranks that together keep a second full copy of the weights, so
    that the backward pass gathers inside a machine. Set it to the ranks of a machine; ZeRO 3."""
    zero_overlap_comm: bool | None = setting(None, fingerprint=False)
    """Reduce gradients while the backward pass computes. Unset: yes at ZeRO 3, and at 1 and 2 on
    several ranks, but for an offloaded optimizer and a parameter of more than 671,088,640 elements
    at 2."""
    zero_reduce_bucket_size: int | None = setting(
        None, at_least=1, way_out="unset it", fingerprint=False
    )
    """Elements of gradients that are reduced at once. Unset: those of a layer, at least 25 and at
    most 250 million."""
    zero_prefetch_bucket_size: int | None = setting(
        None, at_least=0, way_out="unset it", fingerprint=False
    )
    """Most elements of weights that ZeRO 3 gathers ahead at once. Unset: those of a layer."""
    zero_max_live_parameters: int | None = setting(
        None, at_least=0, way_out="unset it", fingerprint=False
    )
    """ZeRO 3 gathers nothing ahead while it holds more elements of whole weights than this. Unset:
    those of a layer, and of another one or of the head, whichever is larger."""
    zero_max_reuse_distance: int | None = setting(
        None, at_least=0, way_out="unset it", fingerprint=False
    )
    """ZeRO 3 keeps a whole weight that is used again within this many elements. Unset: those of
    two layers, which keeps a layer from its recomputation to its backward pass."""
    zero_persistence_threshold: int | None = setting(
        None, at_least=0, way_out="unset it", fingerprint=False
    )
    """ZeRO 3 keeps weights of up to this many elements whole on every rank. Unset: vectors, and an
    adapter's matrices where they are together no more than a layer."""

    def problems(self, prefix: str) -> Iterator[str]:
        if self.offload_activations and not self.activation_checkpointing:
            yield (
                f"{prefix}offload_activations is True; it moves what activation checkpointing "
                f"keeps; set {prefix}activation_checkpointing=true, or unset it"
            )
        if self.keep_attention and not self.activation_checkpointing:
            yield (
                f"{prefix}keep_attention is True; without activation checkpointing everything is "
                f"kept; set {prefix}activation_checkpointing=true, or unset it"
            )
        if self.offload_path is not None and not (self.offload_optimizer or self.offload_params):
            yield (
                f"{prefix}offload_path is {self.offload_path}; nothing is offloaded to it; set "
                f"{prefix}offload_params=true or {prefix}offload_optimizer=true, or unset it"
            )

    def zero_problems(self, prefix: str, zero_stage: int) -> Iterator[str]:
        """Settings that the ZeRO stage does not allow."""
        if self.compile and zero_stage == 3:
            yield (
                f"{prefix}compile is True; ZeRO 3 gathers weights between the operations that "
                f"would be fused; set {prefix}compile=false, or train.zero_stage=2"
            )
        if self.offload_optimizer and zero_stage == 0:
            yield (
                f"{prefix}offload_optimizer is True; ZeRO 0 keeps no state that can be offloaded; "
                "set train.zero_stage=1"
            )
        for name in ("offload_params", "offload_path", *ZERO3_SETTINGS):
            value = getattr(self, name)
            if zero_stage != 3 and value is not None and value is not False:
                yield (
                    f"{prefix}{name} is {value}; it needs train.zero_stage 3, not {zero_stage}; "
                    "change one"
                )


def missing_path(path: str) -> str | None:
    """Why this machine cannot write to the folder, as one line; None if it can."""
    folder = Path(path).expanduser()
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return None
    reason = "cannot be written to" if folder.is_dir() else "is no folder"
    return (
        f"train.memory.offload_path is {path}; it must be a folder that every rank can write to, "
        f"and {reason} here; create it, or name another"
    )
