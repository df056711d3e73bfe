"""How a rank that fails says who it is, once: the first to fail leaves a note, and who fails because of it names it.

The launcher ends the others when it sees one leave, and hands on the code of whichever it looks at first; so a rank that only lost its
neighbours leaves with the code of the one that failed.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import FAILED, RopewalkError

NOTE = "ended.json"
# what torch's collectives raise when another rank is gone
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process has failed",
    "Timed out waiting",
    "NCCL",
)


def report(error: BaseException, folder: Path) -> int:
    """Say on stderr which rank ends and why; returns its exit code. What all ranks say alike is said by the first."""
    code = error.exit_code if isinstance(error, RopewalkError) else FAILED
    mine = {
        "rank": int(os.environ.get("RANK", "0")),
        "host": socket.gethostname(),
        "exit_code": code,
        "error": str(error),
    }
    who = f"rank {mine['rank']} on {mine['host']}"
    first = None if is_lost(error) else _first(mine, folder)
    if first is None:
        found = read(folder)
        # with no note nobody else has told a reason: the words may be all that there is of it
        after = (
            f"{named(found)} ended ({type(error).__name__})"
            if found
            else f"another rank was lost, it seems: {error}"
        )
        print(f"{who}: ended because {after}", file=sys.stderr, flush=True)
        return int(found["exit_code"]) if found else FAILED
    if first == mine or first["error"] != mine["error"]:
        said = (
            str(error)
            if isinstance(error, RopewalkError)
            else "".join(traceback.format_exception(error))
        )
        print(f"{who}: {said}", file=sys.stderr, flush=True)
    return code


def is_lost(error: BaseException) -> bool:
    """Whether it only says that other ranks are gone."""
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, RopewalkError)
        and any(w in str(error) for w in LOST)
    )


def named(note: dict[str, Any]) -> str:
    return f"rank {note['rank']} on {note['host']}"


def read(folder: Path) -> dict[str, Any] | None:
    """The note of the rank that ended first; None without one."""
    try:
        found: dict[str, Any] = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return found


def _first(mine: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The note that stands: mine, when nobody was before me. A link is made whole or not at all, on shared file systems too."""
    own = folder / f"{NOTE}.{mine['rank']}"
    try:
        own.write_text(json.dumps(mine))
        os.link(own, folder / NOTE)
    except FileExistsError:
        return read(folder) or mine
    except OSError:  # no folder or a full disk: say it oneself
        return mine
    finally:
        own.unlink(missing_ok=True)
    return mine
