"""What of ZeRO only a device shows: `make test-gpu` on a CUDA machine."""

from pathlib import Path

import gpu_checks
import pytest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_norms_of_an_offloaded_optimizer_are_those_without(tmp_path: Path, stage: int) -> None:
    """In the first step, whose gradients do not depend on the optimizer."""
    lines = [
        gpu_checks.train_demo("cuda", tmp_path, name, f"train.zero_stage={stage}", *overrides)[0]
        for name, overrides in (("here", ()), ("away", ("train.memory.offload_optimizer=true",)))
    ]
    here, away = (line["grad_norm_by_group"] for line in lines)
    assert away == pytest.approx(here, rel=1e-3)


@pytest.mark.gpu(count=2)
@pytest.mark.parametrize("stage", [1, 2])
def test_overlapped_reductions_change_no_loss(tmp_path: Path, stage: int) -> None:
    """Many small buckets, so that a reduction that nobody waits for would be read too early."""
    fixed = [f"train.zero_stage={stage}", "train.memory.zero_reduce_bucket_size=1100000"]
    fixed += ["train.deterministic=true"]
    after, beside = (
        [
            line["loss"]
            for line in gpu_checks.train_demo(
                "cuda", tmp_path, name, *fixed, f"train.memory.zero_overlap_comm={overlap}"
            )
        ]
        for name, overlap in (("after", "false"), ("beside", "true"))
    )
    assert beside == pytest.approx(after, rel=1e-4)
