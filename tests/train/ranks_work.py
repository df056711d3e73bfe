"""What the ranks of tests do; a module of its own, so that a forked rank finds it by name."""

from ropewalk.train.mesh import Mesh


def places(sp_size: int) -> tuple[int, int, int, int]:
    mesh = Mesh.of(sp_size)
    return mesh.dp_rank, mesh.sp_rank, mesh.dp_size, mesh.sp_size
