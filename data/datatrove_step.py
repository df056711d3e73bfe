"""The shards of the token stores as a step of datatrove, so that its executors (local, Slurm, Ray) run the tasks.

    config = compose([...])
    LocalPipelineExecutor([MakeShards(config, data_inputs(config))], tasks=4, logging_dir=...).run()

Then `ropewalk data ... --merge`. A task that was killed is redone alone, and of it only the shards that are not finished.
"""

from typing import Any

from datatrove.pipeline.base import PipelineStep

from ropewalk.conf.schema import Config
from ropewalk.data import stage
from ropewalk.data.stage import Inputs
from ropewalk.data.tokens import shards


class MakeShards(PipelineStep):
    """Task `rank` of `world_size`: the same as `ropewalk data --shard RANK/WORLD_SIZE`."""

    name = "token store shards"
    type = "ropewalk"

    def __init__(self, config: Config, inputs: Inputs) -> None:
        super().__init__()
        self.config, self.inputs = config, inputs

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        with self.track_time("task"):
            made = stage.make_shards(self.config, self.inputs, rank, world_size)
        for source, number in made:
            self.stat_update(f"{source}/{shards.folder_name(number)}", unit="shard")
        return data
