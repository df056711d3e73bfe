"""Processor seconds to build RULER's six data-free configurations at 4K to 128K tokens."""

import time
from typing import Any

import common

LENGTHS = [4096 * 2**k for k in range(6)]
SAMPLES = 2  # of each configuration and length


# -- in the child ----------------------------------------------------------------------------------


def build(lengths: list[int], samples: int) -> dict[str, float]:
    """Seconds and how many prompts; the demo's tokenizer, one core."""
    import ruler_suite

    from ropewalk.eval.ruler.configurations import ALL
    from ropewalk.eval.ruler.draft import CannotFit
    from ropewalk.eval.tasks.ruler import cells

    names = [c.name for c in ALL.values() if not c.data and c.haystack != "prose"]
    suite = ruler_suite.suite(configurations=names, lengths=lengths)
    started, prompts = time.process_time(), 0
    for cell in cells(suite):
        try:
            prompts += len(cell.samples(samples))
        except CannotFit:  # cwe at 4K, where a tokenizer has few words
            continue
    return {"seconds": time.process_time() - started, "prompts": prompts}


# -- in the parent ---------------------------------------------------------------------------------


def ruler_prompts(quick: bool) -> list[dict[str, Any]]:
    """CPU seconds of all prompts together."""
    lengths = LENGTHS[:2] if quick else LENGTHS
    common.say(f"ruler_prompts {lengths}")
    built = common.alone(
        lambda: common.child("ruler_prompts:build", lengths=lengths, samples=SAMPLES)
    )
    return [
        common.result(
            "ruler_prompts",
            built["seconds"],
            "CPU s",
            bar="value <= 60",
            prompts=built["prompts"],
        )
    ]
