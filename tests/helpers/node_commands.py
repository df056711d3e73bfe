"""Commands of several nodes without stages: `python node_commands.py RANK SIZE PORT FOLDER ACT`.

Process 0 leads, and does `ACT`; the others follow, and would start a process that sleeps. Each ends
as `ropewalk` does. No library is loaded.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import STOPPED, ConfigError, RopewalkError
from ropewalk.train.launcher import follower, leader
from ropewalk.train.launcher.layout import Layout
from ropewalk.train.launcher.world import World

words = sys.argv[1:] if __name__ == "__main__" else ["0", "1", "0", ".", ""]
rank, size, port = (int(word) for word in words[:3])
folder, act = Path(words[3]), words[4]
facts = json.loads(os.environ.get("FACTS", "{}")) or {"torch": "2.14.1"}
timeout_s = float(os.environ.get("TIMEOUT_S", "30"))
world = World("test", rank, size, rank, size, 0, "127.0.0.1", port or None, f"job {folder}")
own = {"host": f"host-{rank}", "node": rank, "local_rank": 0, "facts": facts}


def body() -> None:
    leading.gather(timeout_s, None, [folder / "runs"])
    (folder / "gathered").touch()
    if act == "refuse":
        raise ConfigError("data.seq_len is 7; it must be even; raise it")
    if act == "fail":
        raise ValueError("a defect")
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "sleep":
        time.sleep(60)
    if act == "start":
        ranks = subprocess.Popen(["sleep", os.environ.get("RANKS_S", "60")])
        leading.start({"code": 0}, ranks.kill)
        code = leading.code_of(ranks.wait())
        leading.kill_ranks = None
        if code:
            raise RopewalkError(f"the ranks ended with {code}; {leading.lost}")


def start(message: Mapping[str, Any], layout: Layout) -> subprocess.Popen[bytes]:
    (folder / f"started-{layout.position(rank)}").touch()
    words = ["sh", "-c", os.environ.get("RANK_PROGRAM", "sleep 60")]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)


def main() -> int:
    global leading
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if rank:
            return follower.Follower(world, own, start).follow(timeout_s)
        leading = leader.Leader(world, own)
        (folder / "port").write_text(str(leading.port))
        leader.lead(leading, body)
        return 0
    except RopewalkError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return STOPPED


leading: leader.Leader
if __name__ == "__main__":
    leader.GRACE_S = follower.GRACE_S = 2.0
    if "BLIND" in os.environ:
        follower._seen = lambda paths, within_s: [False for _ in paths]
    sys.exit(main())
