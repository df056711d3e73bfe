"""What a training step costs by arithmetic; MFU and the benchmarks read it.

flops.py     matrix FLOPs of a model, recomputation apart
traffic.py   bytes that the ranks send and that one device moves through its memory
hardware.py  published peaks of devices
"""
