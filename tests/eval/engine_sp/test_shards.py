"""Attention over parts of the keys against one softmax over all of them, and what is refused."""

from typing import Any

import pytest
import torch
from architectures import small_model

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.engine_sp.engine import refuse_unfit_tables
from ropewalk.eval.engine_sp.shards import merged, partial_attention


@pytest.mark.parametrize("sizes", [[40], [13, 27], [1, 0, 39], [0, 20, 20]])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_parts_merged_by_their_log_sum_exp_are_one_softmax(
    sizes: list[int], has_sinks: bool
) -> None:
    """Some keys are not seen, in one part none."""
    torch.manual_seed(0)
    scores, values = 5 * torch.randn(2, 3, 40), torch.randn(2, 40, 8)
    scores[:, :, :14] = -torch.inf
    sinks = torch.randn(2, 3) if has_sinks else None
    columns = scores if sinks is None else torch.cat([scores, sinks[..., None]], 2)
    expected = columns.double().softmax(2)[..., :40] @ values.double()
    pairs = zip(scores.split(sizes, 2), values.split(sizes, 1), strict=True)
    parts = [partial_attention(*pair) for pair in pairs]
    outputs, lse = (torch.stack(x) for x in zip(*parts, strict=True))
    torch.testing.assert_close(merged(outputs, lse, sinks), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
            r"its rotary table \(dynamic\) depends on the length of the call; set eval.sp_size=1",
        ),
    ],
)
def test_tables_that_depend_on_the_call_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"eval.sp_size is 2; .*extended.*{message}"):
        refuse_unfit_tables(small_model("Llama", changes), "extended", 2)
    refuse_unfit_tables(small_model("Llama", {}), "extended", 2)
