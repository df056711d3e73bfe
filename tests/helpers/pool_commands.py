"""Commands for the processes of a local pool, which stand for `ropewalk WORDS`."""

import os
import signal
import sys
import time
from pathlib import Path


def command(words: list[str]) -> None:
    """`run ACTION ...`, by the first override."""
    action, *rest = words[1:]
    print(f"{action} in {os.getcwd()}")
    if action == "exit":
        sys.exit(int(rest[0]))
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "meet":
        print(f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
        meet(Path(rest[0]), int(rest[1]))
    if action == "serve":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        Path(rest[0]).write_text(str(os.getpid()))
        time.sleep(60)


def meet(folder: Path, count: int) -> None:
    """End once `count` processes are here at the same time; give up after 20 s."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 20
    while len([*folder.iterdir()]) < count:
        if time.monotonic() > deadline:
            sys.exit("alone")
        time.sleep(0.02)


def serve(logs: Path, started: Path) -> None:
    """A pool with one job, which serves."""
    from ropewalk.launch.sweep.jobs import Job
    from ropewalk.launch.sweep.local import LocalPool

    for _ in LocalPool(1, logs, command).run([Job("a", ("serve", str(started)))]):
        pass


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
