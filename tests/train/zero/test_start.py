"""What a ZeRO step looks up is imported without torch's inductor, which takes a second."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from ropewalk.train.zero import engine
{call}
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
from deepspeed.runtime.zero.muon.original_muon import muon_update
print("torch._inductor.compile_fx" in sys.modules, callable(muon_update))
"""


@pytest.mark.parametrize(("call", "compiled"), [("engine.import_muon()", False), ("", True)])
def test_deepspeeds_muon_is_not_compiled(call: str, compiled: bool) -> None:
    """Without our import it is compiled: once that is no more so, ours is needless."""
    program = [sys.executable, "-c", PROGRAM.format(call=call)]
    output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert output.split()[-2:] == [str(compiled), "True"]
