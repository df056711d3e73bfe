"""`ropewalk env` as a command: quick, complete, and on broken machines too."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.cli import main
from ropewalk.launch.environment import answers, packages, report
from ropewalk.launch.environment.answers import NoAnswerError

USAGE = "[resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]"
SECTIONS = ["system", "packages", "GPUs", "variables", "disks", "launchers", "extras"]


def in_a_process(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in env}
    shown = clean | {name: value for name, value in env.items() if value}
    command = [sys.executable, "-c", f"from ropewalk.launch.cli import main\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env=shown, timeout=120)


def test_rows_have_a_name_of_their_own_first() -> None:
    done = in_a_process("main(['env', '--json'])", NCCL_DEBUG="INFO", HF_TOKEN="hf_abcdefgh1234")
    rows = json.loads(done.stdout)
    assert all(list(row) == ["name", "value", "section"] for row in rows)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    assert list(dict.fromkeys(row["section"] for row in rows)) == SECTIONS
    values = {row["name"]: row["value"] for row in rows}
    assert (values["NCCL_DEBUG"], values["HF_TOKEN"]) == ("INFO", "(set, not shown)")
    expected = {"ropewalk", "python", "torch", "transformers", "deepspeed", "GPUs", "kernel sdpa"}
    expected |= {"cache_dir", "runs_dir", "cache HF_HOME", "launcher torchrun", "extra gguf"}
    assert expected <= set(names) and "hf_abc" not in done.stdout + done.stderr


def test_the_text_is_a_fence_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    main(["env"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "```" and lines[-2].startswith("--probe")
    assert all(": " in line for line in lines[1:-2] if line)
    assert lines.count("") == len(SECTIONS)


def test_no_library_is_imported_and_little_time_is_taken() -> None:
    """The bar is 1.5 s by the clock of a quiet machine; a busy one is timed by its processor."""
    code = (
        "import resource, sys\nmain(['env', '--json'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'omegaconf', 'hydra'} & set(sys.modules)\n"
        f"usage = {USAGE}\n"
        "print(sum(u.ru_utime + u.ru_stime for u in usage), sorted(heavy), file=sys.stderr)"
    )
    seconds, heavy = in_a_process(code).stderr.split(maxsplit=1)
    assert heavy.strip() == "[]" and float(seconds) < 1.5
    print(f"{seconds} s of processor time")


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "NCCL_X": "é"},
        {"LC_ALL": "xx_YY.ISO-8859-15", "LANG": "xx"},
        {"HOME": "", "USER": "", "LOGNAME": ""},
        {"HOME": "/nowhere", "TMPDIR": "/nowhere"},
        {"PATH": ""},
        {"CUDA_VISIBLE_DEVICES": "nonsense"},
        {"HF_HOME": "/proc/1/nowhere", "TRITON_CACHE_DIR": "/dev/null/x"},
    ],
)
def test_odd_environments(env: dict[str, str]) -> None:
    done = in_a_process("main(['env'])", **env)
    assert (done.returncode, done.stderr) == (0, "") and "kernel sdpa: can be used" in done.stdout


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["env", f"cache_dir={tmp_path}/cache", "runs_dir=mine"])
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    main(["env", "runs_dir=mine", "cache_dir=/dev/shm/cache"])
    output = capsys.readouterr().out
    assert re.search(r"^runs_dir: mine \(\S+, .*GiB free$", output, re.M)
    assert "cache_dir: /dev/shm/cache (tmpfs, node-local), " in output
    for word in ("seed=1", "cache_dir", "cache_dir="):
        with pytest.raises(ConfigError, match="is no setting of env; it takes cache_dir=DIR"):
            report.rows([word], probe=False)


def test_a_question_without_an_answer_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network disk, and code of ours that fails on a machine nobody thought of."""
    ended = threading.Event()

    def fail() -> report.Pairs:
        raise RuntimeError("odd")

    monkeypatch.setattr(report, "_disk", lambda *_: [ended.wait() and ("", "")])
    monkeypatch.setattr(packages, "extras", fail)
    monkeypatch.setattr(report, "LIMIT_S", 0.2)
    started = time.monotonic()
    values = {row["name"]: row["value"] for row in report.rows([], probe=False)}
    ended.set()
    assert values["cache_dir"] == values["cache HF_HOME"] == "no answer in 0.2 s"
    assert values["extras"] == "cannot be told (RuntimeError: odd)" and "memory" in values
    assert time.monotonic() - started < 60


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(NoAnswerError, match="did not answer in 0.2 s"):
        answers.output_of([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    with pytest.raises(NoAnswerError, match="/nowhere/x did not start"):
        answers.output_of(["/nowhere/x"])
    with pytest.raises(NoAnswerError, match="exit code 3: last"):
        script = "import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)"
        answers.output_of([sys.executable, "-c", script], 60)
    with pytest.raises(NoAnswerError, match="this printed no JSON"):
        answers.child_json("this", 60)


def test_the_probe_says_what_torch_says() -> None:
    """Beside torch's own report of an environment."""
    rows = report.rows([], probe=True)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    values = {row["name"]: row["value"] for row in rows}
    import torch
    from torch.utils.collect_env import get_env_info

    info = get_env_info()
    assert values["torch imported"].startswith(f"{info.torch_version}, ")
    assert values["torch"].startswith(info.torch_version)
    assert (values["torch GPUs"] == "none: torch.cuda.is_available() is False") == (
        not torch.cuda.is_available()
    )
    assert values["torch CPU kernels"] == torch.backends.cpu.get_cpu_capability()
    if torch.version.cuda is not None:
        assert f"(CUDA {info.cuda_compiled_version}, " in values["torch"]
        assert "sm_90" in values["torch architectures"]
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        assert values["torch NCCL"] == values["NCCL"] == nccl
    assert values["kernel auto"].startswith("takes ")


def test_a_torch_that_does_not_import_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PROBE", "ropewalk.nowhere")
    values = {row["name"]: row["value"] for row in report.rows([], probe=True)}
    assert "ended with exit code 1" in values["torch probe"]
    assert values["torch"].startswith(version("torch").partition("+")[0]) and "memory" in values
