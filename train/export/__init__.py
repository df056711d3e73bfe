"""The export stage: a trained model for servers, and what each engine computes from it.

- `stage`: writes hf/, the GGUF file, SERVING.md and serving.json
- `hf_folder`: the checkpoint, with config.json in the new and the legacy key style
- `formulas`, `engines`: what each engine computes from `rope_parameters`, and which keys it reads
- `compare`: each engine's table against the plan's
- `gguf_file`, `gguf_rope`, `gguf_tokens`: the GGUF file, its rotary keys, its tokenizer
- `handoff`, `serving`: the report as values, and as Markdown
"""
