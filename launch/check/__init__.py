"""`ropewalk check`: does this machine, with these ranks and settings, train as one process would?

command.py         this machine, then the ranks: lines as they come, then check.json and a page
before_training.py `check=auto`: before the first training on new hardware or another mesh
line.py            a line: verdict, value, bar, way out
facts.py           what a process sees of its machine
host.py            whether a machine has what the training needs
started_ranks.py   the ranks, from the command's process
worker.py          one rank: its process, and its lines to the command
checks.py          the checks of a rank, in order
__main__.py        the process of a rank
rehearsal.py       what the command puts into a folder for the ranks
together.py        what the ranks do together
equal_hosts.py     the same software, devices and time on all ranks
caches.py          compiled kernels on disks of each host
network.py         the interface between the hosts
network_probe.py   what this rank has of them, and whether it reaches the next host
shared_folder.py   one folder for all ranks: seen, renamed and locked alike
speed.py           matrix products, and copies between host and device
collectives.py     the training's collectives: values and rates
rates.py           rates beside the other ranks' and the hardware file's
transport.py       NCCL's ways inside a host and between hosts
nccl_log.py        what NCCL says of them
settings.py        the user's settings for the small model
small_model.py     the user's architecture, made small
small_data.py      its sequences, by the data stage's files
small_training.py  the trainer's own parts on them, and the same batch in one process
batches.py         what reaches the ranks; documents kept apart
numbers.py         loss, norm and gradients against one process and against transformers
real_step.py       a step of two layers at the asked length: peak and seconds
tensor_peak.py     the most bytes of tensors at once, on a GPU or a CPU
planned_step.py    the plan of this step, by a child
beside_plan.py     both side by side, and the correction of other plans
page.py            the lines as a page
resume.py          save, forget, resume

The numbers come from the code that trains: `train/assemble.py` builds the trainer and
`train/loop/step.py` makes its steps. They are held against the same loss and kernel in one process
without an engine, against transformers on each document alone, and against the arithmetic of the
token ids.
"""
