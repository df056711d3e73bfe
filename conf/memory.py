"""Settings of the train stage that decide what is held where, and what computes it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.fields import fingerprint_if_set, not_fingerprinted

OPTIMIZERS = ("adamw", "adamw_8bit")


@dataclass(kw_only=True)
class MemoryConfig:
    """Part of `train`: its keys are `train.KEY`."""

    optimizer: str = fingerprint_if_set("adamw")
    """adamw (torch's fused one; DeepSpeed's for the host when a GPU's is offloaded), or adamw_8bit (bitsandbytes: moments of 8 bits)."""
    offload_optimizer: bool = not_fingerprinted(False)
    """Master weights and moments in host memory, and updated there. In bf16 at ZeRO 1 and 2 the fp32 sums of the gradients stay on the
    device until the step (`zero_stage`); at ZeRO 3 they do not."""
    offload_params: bool = not_fingerprinted(False)
    """Weights in host memory until a layer needs them; ZeRO 3."""
    offload_path: str | None = not_fingerprinted()
    """A folder on a fast local disk (NVMe): what is offloaded lies there, not in host memory; ZeRO 3."""
    activation_checkpointing: bool = not_fingerprinted(True)
    """Keep the inputs of the decoder layers only, and compute each layer again in the backward pass."""
    offload_activations: bool = not_fingerprinted(False)
    """Keep those inputs in host memory; each is fetched while the layer after it is computed."""
    tile_mlp: int = not_fingerprinted(0)
    """Tokens that an MLP computes at once, tile by tile, and once more in the backward pass; 0: all at once."""
    compile: bool = not_fingerprinted(False)
    """torch.compile of the norms and the MLP of each decoder layer."""

    zero_stage: int = not_fingerprinted(1)
    """0: everything on every rank; 1: optimizer in shares; 2: gradients too; 3: weights too. In bf16 gradients are added in fp32: 4 bytes a
    parameter on each rank at 1, of its share at 2 and 3."""
    zero_hpz_size: int | None = not_fingerprinted()
    """ZeRO++'s hierarchy (hpZ): neighbouring ranks that also keep a whole set of weights among them, so that the backward pass gathers them
    inside a machine. Set the ranks of a machine; ZeRO 3."""

    def memory_problems(self) -> Iterator[str]:
        if self.optimizer not in OPTIMIZERS:
            yield f"train.optimizer is {self.optimizer}; it must be one of {', '.join(OPTIMIZERS)}; choose one"
        if self.tile_mlp < 0:
            yield f"train.tile_mlp is {self.tile_mlp}; it must be a number of tokens, or 0 for no tiles; e.g. 4096"
        if self.offload_activations and not self.activation_checkpointing:
            yield (
                "train.offload_activations is True; it moves what activation checkpointing keeps; "
                "set train.activation_checkpointing=true, or leave it out"
            )
        if self.compile and self.tile_mlp:
            yield f"train.compile is True; an MLP in tiles is none that can be compiled; set train.tile_mlp=0, not {self.tile_mlp}"
        if self.compile and self.zero_stage == 3:
            yield (
                "train.compile is True; ZeRO 3 gathers weights between the operations that would be one; set train.compile=false, "
                "or train.zero_stage=2"
            )
        if self.zero_hpz_size is not None and self.zero_hpz_size < 2:
            yield f"train.zero_hpz_size is {self.zero_hpz_size}; it must be at least 2 ranks; unset it for none"
        if self.zero_hpz_size is not None and self.zero_stage != 3:
            yield f"train.zero_hpz_size is {self.zero_hpz_size}; it needs train.zero_stage 3, not {self.zero_stage}; change one"
        yield from self._offload_problems()

    def _offload_problems(self) -> Iterator[str]:
        if self.offload_params and self.zero_stage != 3:
            yield f"train.offload_params is True; it needs train.zero_stage 3, not {self.zero_stage}; change one"
        if self.offload_optimizer and self.zero_stage == 0:
            yield "train.offload_optimizer is True; ZeRO 0 keeps no state that can be offloaded; set train.zero_stage=1"
        if self.offload_optimizer and self.optimizer != "adamw":
            yield (
                f"train.optimizer is {self.optimizer}; offloaded states are updated on the host by DeepSpeed's AdamW; "
                "set train.optimizer=adamw, or train.offload_optimizer=false"
            )
        if self.offload_path is not None:
            yield from self._path_problems(self.offload_path)

    def _path_problems(self, path: str) -> Iterator[str]:
        if not (self.offload_optimizer or self.offload_params):
            yield (
                f"train.offload_path is {path}; nothing is offloaded to it; set train.offload_params=true or "
                "train.offload_optimizer=true, or leave it out"
            )
        if self.zero_stage != 3:
            yield f"train.offload_path is {path}; a disk takes part in ZeRO 3 only, not {self.zero_stage}; set train.zero_stage=3"


def missing_path(path: str) -> str | None:
    """What is wrong with the folder, seen from the machine that would write there."""
    folder = Path(path).expanduser()
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return None
    what = "cannot be written to" if folder.is_dir() else "is no folder"
    return f"train.offload_path is {path}; it must be a folder that every rank can write to, and {what} here; make it, or name another"
