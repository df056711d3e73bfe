"""Our calls against the names in vLLM's own source, by version."""

import subprocess
import sys
from pathlib import Path

import pytest
import vllm_definitions

from ropewalk.conf.eval_vllm import VllmConfig
from ropewalk.eval.engine.decoding import End
from ropewalk.eval.engine_vllm.engine import job


def test_every_argument_has_the_name_of_a_parameter() -> None:
    record = vllm_definitions.recorded()
    about = job(Path("model"), VllmConfig(), End(frozenset([2]), None), dtype="", max_model_len=8)
    about["llm"]["trust_remote_code"] = False
    known = {*record["LLM"]["positional"], *record["LLM"]["by_name"]}
    assert record["LLM"]["others"] == ["kwargs"]  # which are those of EngineArgs
    assert {*about["llm"]} <= known | {*record["EngineArgs"]}
    assert {*about["sampling"], "max_tokens"} <= {*record["SamplingParams"]}
    assert record["LLM.generate"]["positional"][:2] == ["prompts", "sampling_params"]
    assert "use_tqdm" in record["LLM.generate"]["by_name"]
    assert "prompt_token_ids" in record["TokensPrompt"]
    assert "outputs" in record["RequestOutput"]["positional"]
    assert "token_ids" in record["CompletionOutput"]


@pytest.mark.slow
def test_the_record_is_that_of_the_wheel(tmp_path: Path) -> None:
    """Downloads 340 MB. A newer version with other names has another record."""
    record = vllm_definitions.recorded()
    name = f"vllm=={record['version']}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(tmp_path), name]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not to be had here")
    (wheel,) = tmp_path.glob("*.whl")
    assert vllm_definitions.of_wheel(wheel) == record
