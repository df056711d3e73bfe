"""The rope stage, the train stage and the export of a run.

stage.py        the train stage: starts the ranks, publishes their results
preflight.py    what is known of the ranks and of the base's files before there are ranks
__main__.py     `python -m ropewalk.train RUN_DIR`: one rank, as the launcher starts it
worker.py       one rank: starts, runs, saves
results.py      the files of a finished training, and the record that its ranks write last
assemble.py     from a run's folder to a Trainer
disk_space.py   the bytes that a training writes at least
base.py         where the base's weights lie, and its config
identity.py     what a base is known by: the content of its files, or its commit
ties.py         weights that the config ties and the files hold twice
remote_code.py  code that comes with a model: refused, run, taken along
torch_build.py  what torch's version file says, without importing it
kernel_packages.py  the packages of attention kernels: their GPUs, and why one cannot be used here
transfer.py     copies to the device that the host does not wait for
loss.py         the chunked cross-entropy
loss_model.py   LossModel, which the engine wraps
router_loss.py  the load-balancing loss of a mixture of experts
rope/ model/ weights/ attention/ zero/ optim/ memory/ loop/ metrics/ cost/ trace/ checkpoint/
adapters/ export/ gguf_base/ launcher/
"""
