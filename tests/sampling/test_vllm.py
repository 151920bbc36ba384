"""The vllm and server engines with a real vLLM on the CPU, against transformers and the definition of sampling.

`make test-vllm` runs it: vLLM wants an environment of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ssdfast.config import EngineSamplingParams, ServerConfig, VllmConfig
from ssdfast.loop_detection import LoopDetector, LoopRule
from ssdfast.sampling.engine import Completion, Engine, Request, Rules, trace_seed
from ssdfast.sampling.server_client import ServerEngine
from ssdfast.sampling.vllm import VllmEngine
from tests import tiny

from .oracle import chi_squared_p, distribution

pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

CONTEXT = 640
IN_FLIGHT = 128
TOP = 5
END = 1
DRAWS = 8_000
PROMPT = [5, 17, 60, 3]
LOOPS = LoopRule(4, 64, 64)
# All that a server might take from the model's directory in place of what it is asked for.
GENERATION = {
    "temperature": 0.3,
    "top_k": 2,
    "top_p": 0.5,
    "repetition_penalty": 1.5,
    "min_p": 0.3,
    "eos_token_id": [2, 3],
}

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A Llama whose heads are as large as vLLM needs them, eos_token_id 1."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=END,
        bos_token_id=None,
        initializer_range=0.05,  # little enough for greedy sampling to loop
    )
    made = LlamaForCausalLM(config)
    with torch.no_grad():
        made.lm_head.weight.mul_(4.0)  # far enough from uniform for truncation to matter
    made.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps(GENERATION))
    return path


@pytest.fixture(scope="module")
def reference(model) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


@pytest.fixture(scope="module")
def server_url(model, tmp_path_factory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model), "--served-model-name", "tiny", "other", "--dtype", "float32"]
    command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(IN_FLIGHT), "--enforce-eager"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + 240
        while True:
            try:
                httpx2.get(f"{url}/models").raise_for_status()
                break
            except httpx2.HTTPError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def rules(sampling: EngineSamplingParams | None = None, **changes: Any) -> Rules:
    return Rules(sampling or EngineSamplingParams(), **({"end_ids": frozenset({END}), "top_logprobs": 0} | changes))


@pytest.fixture(scope="module")
def in_process(model, server_url) -> Iterator[VllmEngine]:
    made = VllmEngine(str(model), VllmConfig(max_num_seqs=IN_FLIGHT), rules(top_logprobs=TOP), "float32", CONTEXT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def over_http(model, server_url) -> ServerEngine:
    config = ServerConfig(
        urls=(server_url,), served_model_name="other", max_concurrent_requests=IN_FLIGHT, read_timeout=120
    )
    return ServerEngine(config, AutoTokenizer.from_pretrained(model), tiny.VOCABULARY, rules())


@pytest.fixture(params=["vllm", "server"])
def engine(request) -> Engine:
    return request.getfixturevalue("in_process" if request.param == "vllm" else "over_http")


def run(engine: Any, rules: Rules, asked: Sequence[Request]) -> list[Completion]:
    """In the order of the requests; the rules are changed under the engine, for loading takes half a minute."""
    engine.rules = rules
    counted: list[int] = []
    found = {(c.request.problem_id, c.request.sample): c for c in engine.complete(asked, counted.append)}
    completions = [found.pop((request.problem_id, request.sample)) for request in asked]
    assert not found
    assert sum(counted) >= sum(len(c.ids) for c in completions)
    return completions


def requests(count: int, max_new_tokens: int, seed: int = 0, **changes: Any) -> list[Request]:
    return [
        Request(f"p{i}", [*PROMPT, 4 + i % 80], trace_seed(seed, f"p{i}"), max_new_tokens, **changes)
        for i in range(count)
    ]


def logits(reference: Any, ids: Sequence[int]) -> torch.Tensor:
    """Float32 [L, V] after each of `ids`."""
    with torch.inference_mode():
        return reference(torch.tensor([list(ids)])).logits[0]


def test_ends_are_those_of_the_rules_alone(engine):
    ends = frozenset({7, 11})
    completions = run(engine, rules(EngineSamplingParams(top_k=0, top_p=1.0), end_ids=ends), requests(200, 60))
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for c in completions:
        assert not ends & set(c.ids[:-1])
        assert (c.ids[-1] in ends) == (c.finish_reason == "stop")
        assert len(c.ids) == 60 or c.finish_reason == "stop"
    assert {END, 2, 3} <= {token for c in completions for token in c.ids}, "the model's own ends end nothing"


def test_a_trace_has_its_own_seed(engine):
    asked = requests(40, 30)
    first, again = (run(engine, rules(), asked) for _ in range(2))
    assert [c.ids for c in first] == [c.ids for c in again]
    assert [c.ids for c in run(engine, rules(), requests(40, 30, seed=1))] != [c.ids for c in first]
    same_prompt = [Request("p", PROMPT, trace_seed(0, "p", i), 30, i) for i in range(20)]
    assert len({tuple(c.ids) for c in run(engine, rules(), same_prompt)}) == 20


def test_both_engines_draw_the_same(in_process, over_http):
    asked = requests(40, 30)
    assert [c.ids for c in run(in_process, rules(), asked)] == [c.ids for c in run(over_http, rules(), asked)]


GREEDY = EngineSamplingParams(temperature=1.0, top_k=1)


def test_loops_end_where_they_are_found_and_audited_ones_run_on(engine):
    asked = requests(24, 500)
    whole = run(engine, rules(GREEDY), asked)
    ended = run(engine, rules(GREEDY, loops=LOOPS, top_logprobs=2), asked)
    audited = run(engine, rules(GREEDY, loops=LOOPS), requests(24, 500, audited=True))
    for full, cut, noted in zip(whole, ended, audited, strict=True):
        detector = LoopDetector(LOOPS)
        detector.feed(full.ids)
        assert cut.loop_at == noted.loop_at == detector.loop_at
        assert cut.ids == full.ids[: detector.loop_at]
        assert cut.top_ids is not None
        assert len(cut.top_ids) == len(cut.ids)
        assert (cut.finish_reason == "loop") == (detector.loop_at is not None)
        assert (noted.ids, noted.finish_reason) == (full.ids, full.finish_reason)
    assert sum(c.finish_reason == "loop" for c in ended) >= 5


def test_log_probabilities_are_the_models_own(engine, reference):
    sampling = EngineSamplingParams(temperature=0.6, top_k=3, presence_penalty=1.0)
    for c in run(engine, rules(sampling, top_logprobs=TOP), requests(20, 40)):
        expected_LV = logits(reference, [*c.request.prompt_ids, *c.ids])[len(c.request.prompt_ids) - 1 : -1]
        expected = expected_LV.double().log_softmax(1).topk(TOP)
        assert c.top_ids.tolist() == expected.indices.tolist()
        np.testing.assert_allclose(c.top_logprobs, expected.values.numpy(), atol=2e-4)


def test_abandoning_leaves_nothing_behind(engine):
    engine.rules = rules(EngineSamplingParams(top_k=0, top_p=1.0), end_ids=frozenset())
    completions = engine.complete([Request("short", PROMPT, 1, 2), *requests(60, 600)], lambda n: None)
    assert next(completions).request.problem_id == "short"
    completions.close()
    if isinstance(engine, VllmEngine):
        assert not engine.engine.has_unfinished_requests()
    else:
        deadline = time.monotonic() + 20
        while (running := _running(engine.load_balancer.servers[0].url)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert running == 0
    assert len(run(engine, rules(), requests(3, 5))) == 3


def _running(url: str) -> float:
    metrics = httpx2.get(url.removesuffix("/v1") + "/metrics").text
    counts = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running{")]
    assert counts
    return sum(float(line.split()[-1]) for line in counts)


def test_a_request_that_does_not_fit_is_an_error_and_the_others_go_on(engine):
    long = Request("long", [5] * (CONTEXT + 10), 1, 4)
    found = run(engine, rules(), [long, *requests(3, 4)])
    assert [c.finish_reason == "error" for c in found] == [True, False, False, False]
    assert found[0].reason
    assert found[0].ids == []


ONE_TOKEN = {
    "temperature, top-k and top-p": EngineSamplingParams(temperature=1.3, top_k=12, top_p=0.8),
    "min-p at a temperature": EngineSamplingParams(temperature=1.5, top_k=0, top_p=1.0, min_p=0.15),
    "the whole vocabulary": EngineSamplingParams(temperature=1.1, top_k=0, top_p=1.0),
}


@pytest.mark.parametrize("name", ONE_TOKEN)
def test_the_next_token_follows_the_definition(engine, reference, name):
    sampling = ONE_TOKEN[name]
    asked = [Request("p", PROMPT, trace_seed(0, "p", i), 1, i) for i in range(DRAWS)]
    counts = np.zeros(tiny.VOCABULARY)
    for completion in run(engine, rules(sampling), asked):
        (token,) = completion.ids
        counts[token] += 1
    expected = distribution(logits(reference, PROMPT)[-1].double(), sampling)
    assert chi_squared_p(counts, expected.tolist()) > 1e-3
    nearly = distribution(logits(reference, PROMPT)[-1].double(), sampling.model_copy(update={"temperature": 1.0}))
    assert chi_squared_p(counts, nearly.tolist()) < 1e-6


def test_the_presence_penalty_follows_the_definition(engine, reference):
    sampling = EngineSamplingParams(temperature=1.2, top_k=6, top_p=1.0, presence_penalty=1.2)
    asked = [Request("p", PROMPT, trace_seed(0, "p", i), 2, i) for i in range(DRAWS)]
    counts = np.zeros((tiny.VOCABULARY, tiny.VOCABULARY))
    for completion in run(engine, rules(sampling, end_ids=frozenset()), asked):
        first, second = completion.ids
        counts[first, second] += 1

    def joint(sampling: EngineSamplingParams, seen: Callable[[int], list[int]]) -> list[float]:
        p_V = distribution(logits(reference, PROMPT)[-1].double(), sampling)
        p_VV = torch.zeros(len(p_V), len(p_V), dtype=torch.float64)
        for first in torch.nonzero(p_V)[:, 0].tolist():
            second_V = logits(reference, [*PROMPT, first])[-1].double()
            p_VV[first] = p_V[first] * distribution(second_V, sampling, seen(first))
        return p_VV.flatten().tolist()

    assert chi_squared_p(counts.ravel(), joint(sampling, lambda first: [first])) > 1e-3
    assert chi_squared_p(counts.ravel(), joint(sampling, lambda first: [])) < 1e-6
    assert chi_squared_p(counts.ravel(), joint(sampling, lambda first: [*PROMPT, first])) < 1e-6
