"""vLLM in an interpreter of its own, which need not have this package: nothing of it is imported.

The first line of stdin is the job: the arguments of `LLM` and of every `SamplingParams`. Each line
after it is a batch: token ids of prompts, and tokens to decode at most. An answer is a line of
stdout: the new token ids of each prompt. All are JSON.
"""

import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM and its processes print is no answer
    import vllm

    job = json.loads(sys.stdin.readline())
    llm = vllm.LLM(**job["llm"])
    for line in sys.stdin:
        batch = json.loads(line)
        prompts = [{"prompt_token_ids": ids} for ids in batch["prompts"]]
        params = [vllm.SamplingParams(**job["sampling"], max_tokens=n) for n in batch["max_tokens"]]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        answers.write(json.dumps([list(output.outputs[0].token_ids) for output in outputs]) + "\n")
        answers.flush()


if __name__ == "__main__":  # vLLM's own processes import this file again
    main()
