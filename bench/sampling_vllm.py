"""vLLM's CPU build on the prompts and lengths of `sampling.Race`, in an environment of its own (`make test-vllm`).

    .venv-vllm/bin/python bench/sampling_vllm.py MODEL REQUESTS.json THREADS

REQUESTS.json: a list of [prompt ids, number of tokens]. Prints tokens per second, the better of two runs after one that
warms up. The prefix cache is emptied between them, and no request has a seed, which costs vLLM nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ["VLLM_NO_USAGE_STATS"] = "1"


def main(model: str, file: str, threads: str) -> None:
    os.environ["OMP_NUM_THREADS"] = threads
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, sorted(os.sched_getaffinity(0))[: int(threads)]))
    import vllm

    requests = json.loads(Path(file).read_text())
    engine = vllm.LLM(
        model=model, dtype="float32", skip_tokenizer_init=True, max_num_seqs=len(requests), enable_prefix_caching=True,
        max_model_len=max(len(ids) + tokens for ids, tokens in requests), generation_config="vllm",
    )  # fmt: skip
    prompts = [{"prompt_token_ids": ids} for ids, _ in requests]

    def run(limit: int) -> float:
        params = [
            vllm.SamplingParams(
                temperature=1.1, top_k=20, top_p=0.95, max_tokens=min(limit, tokens), ignore_eos=True, detokenize=False
            )
            for _, tokens in requests
        ]
        engine.reset_prefix_cache()
        start = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        return made / (time.perf_counter() - start)

    run(2)
    print("tokens per second", max(run(1 << 20) for _ in range(2)))


if __name__ == "__main__":
    main(*sys.argv[1:])
