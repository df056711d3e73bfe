"""Settings of vLLM, which may decode the replies of eval."""

from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class VllmConfig:
    """Where vLLM runs: in a process of its own, with an environment of its own."""

    python: str | None = None
    """Interpreter of the environment that has vLLM; unset: this one. vLLM 0.33 needs
    transformers below 5.21, so it does not go into the environment of Ropewalk."""
    tensor_parallel_size: int = setting(1, at_least=1)
    """GPUs that share the weights; above 1 with `eval.ranks_per_node` 1 only."""
    gpu_memory_utilization: float = setting(0.85, above=0, at_most=1, way_out="e.g. 0.85")
    """Share of each GPU's memory for weights and cache. Other models are loaded after vLLM has
    ended."""
