"""mlx-lm has the logits of transformers for an export (slow: `make test-all`)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import (
    ODD,
    RMS,
    ROPES,
    assert_same,
    ids_of,
    mlx_logits,
    needs_mlx,
    needs_smollm2,
    rescale_and_export,
    rms_difference,
    transformers_logits,
)

from ropewalk.conf.rope_methods import (
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base

pytestmark = pytest.mark.slow


@needs_mlx
@pytest.mark.parametrize("name", ["yarn", "longrope", "linear"])
def test_mlx_has_the_logits_of_transformers(name: str, demo: Callable[[RopeConfig], Path]) -> None:
    export = demo(ROPES[name])
    ids = ids_of(export / "hf", 1024)
    assert json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]["same"] is True
    assert_same(
        mlx_logits(export / "hf", ids),
        transformers_logits(export / "hf", ids),
        f"mlx-lm, demo, {name}",
    )


def edited(hf: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the folder `hf` with another config.json."""
    shutil.copytree(hf, folder)
    config = json.loads((hf / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@needs_mlx
def test_mlx_without_the_legacy_keys_has_other_logits(
    demo: Callable[[RopeConfig], Path], tmp_path: Path
) -> None:
    """With `rope_parameters` alone its Llama has theta 10,000 and no scaling."""
    export = demo(ROPES["yarn"])
    ids = ids_of(export / "hf", 512)

    def without(config: dict[str, Any]) -> None:
        del config["rope_theta"], config["rope_scaling"]

    bare = edited(export / "hf", tmp_path / "bare", without)
    wrong = rms_difference(mlx_logits(bare, ids), transformers_logits(export / "hf", ids))
    assert np.median(wrong[16:]) > 50 * RMS


@needs_mlx
def test_mlx_computes_what_the_warning_says(
    demo: Callable[[RopeConfig], Path], tmp_path: Path
) -> None:
    """Its logits equal transformers' without the dropped keys, far from the plan's."""
    export = demo(ODD)
    ids = ids_of(export / "hf", 512)
    report = json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]
    dropped = {drop["key"] for drop in report["drops"]}
    assert dropped == {"attention_factor", "truncate"}

    def without(config: dict[str, Any]) -> None:
        for part in (config["rope_parameters"], config["rope_scaling"]):
            for key in dropped:
                del part[key]

    reference = mlx_logits(export / "hf", ids)
    ours = transformers_logits(edited(export / "hf", tmp_path / "without", without), ids)
    assert_same(reference, ours, "mlx-lm, dropped keys")
    assert (
        np.median(rms_difference(reference, transformers_logits(export / "hf", ids))[16:])
        > 10 * RMS
    )


@needs_mlx
def test_mlx_with_the_suggested_keys_computes_the_plan(
    demo: Callable[[RopeConfig], Path], tmp_path: Path
) -> None:
    export = demo(ROPES["ntk_by_parts"])
    ids = ids_of(export / "hf", 512)
    report = json.loads((export / "serving.json").read_text())["engines"]["mlx-lm"]
    assert report["same"] is False
    mended = edited(
        export / "hf", tmp_path / "mended", lambda c: c["rope_scaling"].update(report["way_out"])
    )
    ours = transformers_logits(export / "hf", ids)
    assert np.median(rms_difference(mlx_logits(export / "hf", ids), ours)[16:]) > 10 * RMS
    assert_same(mlx_logits(mended, ids), ours, "mlx-lm, way out")
    assert np.array_equal(transformers_logits(mended, ids), ours)


@needs_mlx
@needs_smollm2
def test_mlx_has_the_logits_of_smollm2_past_its_window(smollm2: Base, tmp_path: Path) -> None:
    """Takes a quarter of an hour or more: mlx on a CPU needs 12 to 40 s for 256 tokens."""
    export = rescale_and_export(smollm2, YarnConfig(factor=2.0), tmp_path)
    ids, start = ids_of(export / "hf", 9216), 8192
    ours = transformers_logits(export / "hf", ids, [*range(start, len(ids))])
    assert_same(
        mlx_logits(export / "hf", ids, start), ours, "mlx-lm, SmolLM2, yarn, past its window"
    )
    inside = transformers_logits(export / "hf", ids[:96])
    unscaled = transformers_logits(Path(str(smollm2.path)), ids[:96])
    # a dropped YaRN shows even inside the window
    assert np.median(rms_difference(unscaled, inside)[16:]) > 10 * RMS
