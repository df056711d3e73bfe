"""Report a failure once: the first rank to fail leaves a note, and later ones name that rank.

The launcher ends the other ranks when one exits, and passes on the exit code of whichever it polls
first. So a rank that only lost its neighbours exits with the code of the rank that failed.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import FAILED, RopewalkError

NOTE = "ended.json"
FOLDER_VARIABLE = "ROPEWALK_NOTE_FOLDER"
"""Tells the launcher of a machine's ranks where the note belongs."""
CAUSES: dict[int, str] = {
    signal.SIGKILL: "as the system does when memory runs out (see dmesg, or the job's limit)",
    signal.SIGABRT: "as libraries do when another rank is lost; its lines are above",
}
"""Of signals that end a rank. The launcher reports the one that it polls first."""
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a job to end, which is no failure of a rank."""
# messages of torch's collectives when another rank is gone
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process has failed",
    "Timed out waiting",
    "NCCL",
)


def report(error: BaseException, folder: Path) -> int:
    """Print to stderr which rank fails and why; returns its exit code.

    An error that all ranks have alike is printed by the first one only.
    """
    code = error.exit_code if isinstance(error, RopewalkError) else FAILED
    own_note = {
        "rank": int(os.environ.get("RANK", "0")),
        "host": socket.gethostname(),
        "exit_code": code,
        "error": str(error),
    }
    name = rank_name(own_note)
    if is_lost_peer(error):
        return _report_lost_peer(error, name, read(folder))
    first_note = leave_note(own_note, folder)
    if first_note == own_note or first_note["error"] != own_note["error"]:
        is_ours = isinstance(error, RopewalkError)
        message = str(error) if is_ours else "".join(traceback.format_exception(error))
        print(f"{name}: {message}", file=sys.stderr, flush=True)
    return code


def _report_lost_peer(error: BaseException, name: str, note: dict[str, Any] | None) -> int:
    if note is None:
        # no rank left an error note, so this message may be the only evidence
        reason = f"another rank was lost, it seems: {error}"
    else:
        reason = f"{rank_name(note)} ended ({type(error).__name__})"
    print(f"{name}: ended because {reason}", file=sys.stderr, flush=True)
    return FAILED if note is None else int(note["exit_code"])


def is_lost_peer(error: BaseException) -> bool:
    """Whether the error only means that another rank is gone."""
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, RopewalkError)
        and any(message in str(error) for message in LOST_PEER)
    )


def rank_name(note: dict[str, Any]) -> str:
    return f"rank {note['rank']} on {note['host']}"


def by_signal(number: int) -> str:
    """`ended by SIGKILL, as the system does when ...`"""
    cause = f", {CAUSES[number]}" if number in CAUSES else ""
    return f"ended by {signal.Signals(number).name}{cause}"


def leave_note_of_signal(rank: int, number: int) -> None:
    """For a rank that a signal ended, which can leave no note itself; and say so on stderr."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None or number in REQUESTS:
        return
    note = {"rank": rank, "host": socket.gethostname(), "exit_code": FAILED, "signal": number}
    if leave_note({**note, "error": by_signal(number)}, Path(folder))["rank"] == rank:
        print(f"{rank_name(note)}: {by_signal(number)}", file=sys.stderr, flush=True)


def text(note: dict[str, Any]) -> str:
    """`rank 1 on HOST: ERROR`; what another rank noted of it has the name already."""
    name, error = rank_name(note), str(note["error"])
    return error if error.startswith(name) else f"{name}: {error}"


def read(folder: Path) -> dict[str, Any] | None:
    """The note of the rank that failed first; None without one."""
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return note


def leave_note(note: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The first note: this one, unless another rank was earlier.

    A link is created in full or not at all, on shared file systems too.
    """
    # two may note the same rank: its launcher and rank 0
    own_file = folder / f"{NOTE}.{note['rank']}.{socket.gethostname()}.{os.getpid()}"
    try:
        own_file.write_text(json.dumps(note))
        os.link(own_file, folder / NOTE)
    except FileExistsError:
        return read(folder) or note
    except OSError:  # no folder, or a full disk: every rank reports for itself
        return note
    finally:
        own_file.unlink(missing_ok=True)
    return note
