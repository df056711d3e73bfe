"""A datatrove step that makes the shards of token stores, for any of its executors.

    config = compose([...])
    step = MakeShards(config, data_inputs(config))
    LocalPipelineExecutor([step], tasks=4, logging_dir=...).run()

Then `ropewalk data ... --merge`. A killed task is run again alone, without its finished shards.
"""

from typing import Any

from datatrove.data import DocumentsPipeline
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
        self.config = config
        self.inputs = inputs

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Any:
        with self.track_time("task"):
            shards_made = stage.make_shards(self.config, self.inputs, rank, world_size)
        for source, number in shards_made:
            self.stat_update(f"{source}/{shards.folder_name(number)}", unit="shard")
        return data
