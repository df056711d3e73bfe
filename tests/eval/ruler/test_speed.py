"""The configurations that need no data are built at 4K to 128K tokens within a minute."""

import time

import pytest
import ruler_suite

from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.tasks.ruler import cells

LENGTHS = [4096 * 2**k for k in range(6)]
DATA_FREE = [c.name for c in ALL.values() if not c.data and c.haystack != "prose"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ruler_exact", "ruler"])
def test_six_configurations_at_six_lengths_take_less_than_a_minute(
    mode: str, wording_file: str
) -> None:
    """Processor seconds of one core, two samples a cell; the demo's tokenizer of 2,048 words needs
    more than 4K tokens for the smallest list of common words."""
    wording = {"wording": wording_file} if mode == "ruler" else {}
    suite = ruler_suite.suite(mode=mode, configurations=DATA_FREE, lengths=LENGTHS, **wording)
    start, built = time.process_time(), 0
    for cell in cells(suite):
        if (cell.configuration.name, cell.length) != ("cwe", 4096):
            built += len(cell.samples(2))
    assert len(DATA_FREE) == 6 and built == 2 * 35
    assert time.process_time() - start < 60
