"""`python -m ropewalk.train RUN_DIR`: one rank, as the launcher starts it."""

from ropewalk.train.launcher import rank_process

if __name__ == "__main__":
    rank_process.run("ropewalk.train.worker")
