"""What a training step costs by arithmetic; MFU and the benchmarks read it.

flops.py          matrix FLOPs of a model, recomputation apart
traffic.py        bytes that the ranks send and that one device moves through its memory
layer_traffic.py  bytes of a decoder layer outside its products, counted op by op
step_time.py      the seconds of a step by term: these counts over rates that others have reached
kernel_choice.py  what a faster attention kernel would save, and how it is installed
zero_stage.py     bytes that a ZeRO stage holds and sends, and one that suits a training better
hardware.py       published peaks of devices
"""
