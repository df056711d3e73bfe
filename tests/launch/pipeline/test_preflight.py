"""The preflight: every problem that is knowable before the first long stage, told at once."""

import json
import shutil
from pathlib import Path

import pytest

from ropewalk.conf.errors import DataError
from ropewalk.launch.cli import main
from ropewalk.train.base import BASES

LONGEST = "n" * 255  # NAME_MAX of Linux's file systems


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The problem lines of a command that is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    head, *lines = captured.err.splitlines()
    assert (stopped.value.code, head) == (2, "config error:"), captured.err
    return lines


def settings(folder: Path, *more: str) -> list[str]:
    places = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    return ["recipe=demo", *places, *more]


def test_model_sources_and_folders_that_are_missing_are_told_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file")
    paths = [f"model.path={tmp_path / 'none'}", f"data.sources.stdlib.path={tmp_path / 'nothing'}"]
    lines = refusal(capsys, "run", *settings(tmp_path, *paths))
    assert [line.split(" is ")[0] for line in lines] == [
        "runs_dir",
        "model.path",
        "data.sources.stdlib.path",
    ]
    assert "is a file" in lines[0] and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("key", ["runs_dir", "cache_dir"])
@pytest.mark.parametrize("place", ["file", "file/below", "link", LONGEST + "n"])
def test_folders_that_cannot_be_made_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (line,) = refusal(capsys, "rope", *settings(tmp_path, f"{key}={tmp_path / place}"))
    assert line.startswith(f"{key} is {tmp_path / place}; it must be a folder")


@pytest.mark.parametrize("place", ["/proc", "/proc/new", "/sys/new/below"])
def test_a_file_system_that_takes_no_folders_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    with pytest.raises(OSError):
        (Path(place) / "by-hand").mkdir(parents=True)
    (line,) = refusal(capsys, "rope", *settings(tmp_path, f"runs_dir={place}"))
    assert line.startswith(f"runs_dir is {place}; it must be a folder that can be made")


def test_a_working_folder_that_is_gone_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (line,) = refusal(capsys, "rope", *settings(tmp_path))
    assert line.startswith("the working folder is gone; ") and "cd to a folder" in line


@pytest.mark.parametrize("kernel", ["flash", "flash3", "flash4", "varlen"])
def test_a_kernel_that_this_machine_lacks_is_refused_before_data(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = settings(tmp_path, f"train.attention.kernel={kernel}")
    (line,) = refusal(capsys, "train", *arguments)
    assert line.startswith(f"train.attention.kernel is {kernel}; it needs a CUDA device")
    main(["data", *arguments, "--dry-run"])
    (tmp_path / "hosts").write_text("elsewhere slots=1\n")
    main(["train", *arguments, f"train.launcher.hostfile={tmp_path / 'hosts'}", "--dry-run"])


def base(folder: Path, **tokenizer: object) -> str:
    """The demo's base with other keys of tokenizer.json."""
    shutil.copytree(BASES / "demo", folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | tokenizer))
    return f"model.path={folder}"


def test_ids_without_an_embedding_and_a_begin_of_two_tokens_are_told_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": 2048, "content": "<x>", "special": True, **flags}]
    arguments = [base(tmp_path / "base", added_tokens=added), "data.begin=<s>"]
    lines = refusal(capsys, "data", *settings(tmp_path, *arguments))
    assert [line.split(";")[0] for line in lines] == [
        "model.path is base",
        "data.begin is <s>",
    ]
    assert "its tokenizer has ids up to 2048, and vocab_size in its config.json is 2048" in lines[0]
    assert "must be one token of the model's tokenizer" in lines[1]


def test_a_broken_tokenizer_is_one_line_before_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = settings(tmp_path, base(tmp_path / "base"))
    (tmp_path / "base" / "tokenizer.json").write_bytes(b"\xffgarbage")
    (line,) = refusal(capsys, "train", *arguments)
    assert "its tokenizer.json must be readable" in line


def test_rows_without_the_key_are_told_before_another_source_is_tokenised(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "some words"}\n' * 3)
    arguments = settings(tmp_path, f"data.sources.b.path={tmp_path / 'a.jsonl'}")
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments, "data.sources.b.weight=1", "data.sources.stdlib.weight=1"])
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert stopped.value.code == DataError.exit_code
    assert "(no text: 3); set data.sources.b.text_key" in line
    assert not (tmp_path / "cache" / "tokens").exists()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            ["eval.tasks=[ruler]", "eval.ruler.configurations=[vt,qa_1]"],
            "eval.ruler.configurations has qa_1; it asks about documents of a file, and none is "
            "set; set eval.ruler.squad=FILE or leave it out",
        ),
        (
            ["eval.backend=vllm"],
            "eval.backend is vllm; it must be installed, and is not in this environment; set "
            "eval.vllm.python to the interpreter of one that has it, or eval.backend=transformers",
        ),
    ],
)
def test_what_an_evaluation_needs_is_told_before_the_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, more: list[str], line: str
) -> None:
    assert line in refusal(capsys, "eval", *settings(tmp_path, *more, "--dry-run"))


@pytest.mark.parametrize("key", ["eval.reference", "eval.judged", "eval.longppl.evaluator"])
def test_a_column_that_this_run_does_not_have_is_told_before_the_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str
) -> None:
    """Only a scaled rope gives the column `rescaled`."""
    words = settings(tmp_path, f"{key}=rescaled", "--dry-run")
    main(["eval", *words])
    lines = refusal(capsys, "eval", *words, "rope=none")
    rule = "is rescaled; it must be a column that is measured; one of base, extended"
    assert f"{key} {rule}" in lines
