"""`python -m ropewalk.launch.check FOLDER`: one rank of a self-test, as the launcher starts it."""

from ropewalk.train.launcher import rank_process

if __name__ == "__main__":
    rank_process.run("ropewalk.launch.check.worker")
