"""One model that answers requests: losses of texts, answers to prompts.

engine.py   the engine: which documents share a pass, which are computed in calls with a cache
calls.py    the calls that compute a prompt, and which of them two prompts share; no torch
passes.py   inputs of the forward passes, and what is computed of their hidden states
forward.py  a model's passes; of weights that all ranks gather, equally many on each
cache.py    keys and values that are appended and rolled back without a copy
branches.py keys and values of prompts that continue a common context
branch_attention.py  the attention of their decoding steps
decoding.py greedy decoding, a batch of prompts a step
finite.py   logits that are NaN or infinite are refused
whole.py    models that compute every document whole, without a cache, and why
"""
