"""How the ranks are started, stopped and reported.

world.py    the machines that a launcher started this command on, from its variables
leader.py   the first command of several: the others come to it, and start ranks when it does
follower.py one of the others: it waits, starts its ranks, and ends as the leader does
layout.py   which ranks each of them starts
command.py  how many ranks there are, and the command that starts them
environment.py  what the ranks find in their environment, on this machine and on others
hostfile.py the machines of a training, each line checked
ranks.py    run them to their end, from the command's process
node.py     the ranks of one machine: started, and ended when one of them fails
numa.py     each rank on the cores beside its GPU
rank_process.py  the process of a rank, before its libraries
rank_logs.py  what a rank prints, in a log of its own
process.py  how a process starts and that it ends with its parent
stop.py     the request to stop, as the ranks notice it
peers.py    connections to rank 0, by which a death is known at once
failure.py  the first rank's error, reported once
"""
