"""Replies that vLLM decodes (`eval.backend=vllm`); losses and verdicts stay with eval/engine.

engine.py   the engine: prompts to replies
process.py  vLLM in another process: how it is started, asked and ended
server.py   that process, in an interpreter that need not have this package
folder.py   the folder that vLLM reads a column's model from
"""
