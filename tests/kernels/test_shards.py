"""A vocabulary in shards on gloo ranks: the whole answer on each, the same bits, and a mistake named on all of them."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ssdfast.kernels import LmHead, ProbeSpec, SamplingParams, sharded_linear_probe_stats, sharded_probe_stats
from ssdfast.kernels.linear_probe_stats import shards as linear_shards

from .cases import CASES, assert_matches_oracle, make
from .linear_cases import assert_near_products, float64_logits

pytest.importorskip("ssdfast.kernels._C")

RUNS = [
    ("plain", torch.bfloat16, "cpu"),
    ("plain", torch.float32, "reference"),
    ("one sweep", torch.bfloat16, "cpu"),
    ("bad rows", torch.float32, "cpu"),
    ("some -inf", torch.bfloat16, "cpu"),
    ("some -inf, one sweep", torch.float32, "reference"),
    ("no head: long nucleus", torch.bfloat16, "cpu"),
    ("no head: long nucleus", torch.float32, "cpu"),
    ("ties", torch.bfloat16, "cpu"),
    ("KL of 1e-7", torch.float32, "cpu"),
    ("V = 17, top_k above V", torch.float32, "cpu"),
    ("N = 0", torch.float32, "cpu"),
]
# Where each rank's shard begins and ends, as shares of the vocabulary.
SHARDS = {
    "2 even": [(0, 0.5), (0.5, 1)],
    "2 with an empty one": [(0, 1), (1, 1)],
    "3 uneven": [(0, 0.05), (0.05, 0.9), (0.9, 1)],
    "3 in another order, one empty": [(0.4, 1), (0.2, 0.2), (0, 0.4)],
}


def _case(name):
    return next(c for c in CASES if c.name == name)


def _mistakes(rank, world):
    """(what the message says, arguments of this rank): on some rank only, one is wrong."""
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 12, generator=g), torch.randn(2, 12, generator=g)
    token, spec = (
        torch.tensor([0, 11]),
        ProbeSpec(top_logprobs=5, eval_sampling=SamplingParams(1, 5), train_sampling=SamplingParams(1, 5)),
    )
    first, last = rank * 12 // world, (rank + 1) * 12 // world
    good = {"logits_base_NV": a[:, first:last], "logits_trained_NV": b[:, first:last], "token_N": token, "spec": spec,
            "first_id": first}  # fmt: skip
    end, edge = world - 1, 12 * (world - 1) // world
    wrong = {
        f"rank {end} and rank 0 differ in their number of positions: 1 and 2": {
            "logits_base_NV": a[:1, first:last], "logits_trained_NV": b[:1, first:last], "token_N": token[:1]},
        f"rank {end} and rank 0 differ in their number of models: 1 and 2": {"logits_trained_NV": None},
        f"rank {end} and rank 0 differ in their tokens": {"token_N": token.flip(0)},
        f"rank {end} and rank 0 differ in their specification": {"spec": dataclasses.replace(spec, top_logprobs=6)},
        f"rank {end}: logits_base_NV and logits_trained_NV differ in shape": {"logits_trained_NV": b},
        f"rank {end}: first_id must be at least 0": {"first_id": -1},
        f"leave a gap: rank {end} begins at {edge + 1}": {"first_id": first + 1},
        f"overlap: rank {end} begins at {edge - 1}": {"first_id": first - 1},
    }  # fmt: skip
    everywhere = {
        r"token_N\[1\] must be in \[0, 11\], got 12": {"token_N": torch.tensor([0, 12])},
        "rank 0: top_k = 0 makes supports as long": {"spec": ProbeSpec(eval_sampling=SamplingParams())},
        "rank 0: shards must be bf16": {"logits_base_NV": good["logits_base_NV"].double(), "logits_trained_NV": None},
        "the vocabulary is empty on every rank": {"logits_base_NV": a[:, :0], "logits_trained_NV": None},
        "token_class has 3 entries": {"spec": dataclasses.replace(spec, token_class=torch.zeros(3, dtype=torch.uint8))},
    }
    cases = [(message, good | (change if rank == end else {})) for message, change in wrong.items()]
    return cases + [(message, good | change) for message, change in everywhere.items()], good


def _statistics(rank, _world, shards):
    stats = []
    for name, dtype, backend in RUNS:
        case = _case(name)
        a, b, token = make(case, dtype)
        first, last = (round(cut * a.shape[1]) for cut in shards[rank])
        part = a[:, first:last], b[:, first:last], token
        stats.append(sharded_probe_stats(*part, case.spec, first_id=first, backend=backend))
    return stats


def _messages(rank, world, _shards):
    messages = []
    cases, good = _mistakes(rank, world)
    for message, arguments in cases:
        with pytest.raises(ValueError, match=message) as error:
            sharded_probe_stats(**arguments)
        messages.append(str(error.value))
    sharded_probe_stats(**good)  # the group is still in step
    return messages


def _rank(rank, world, job, shards, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(job(rank, world, shards), f"{folder}/{rank}")
    dist.destroy_process_group()


def _on_ranks(world, job, shards, folder):
    mp.spawn(_rank, (world, job, shards, str(folder)), nprocs=world)
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(world)]


@pytest.mark.parametrize("shards", SHARDS.values(), ids=SHARDS)
def test_every_rank_has_the_whole_answer(shards, tmp_path):
    ranks = _on_ranks(len(shards), _statistics, shards, tmp_path)
    for (name, dtype, _), *stats in zip(RUNS, *ranks, strict=True):
        case = _case(name)
        a, b, token = make(case, dtype)
        assert_matches_oracle(stats[0], a, b, token, case.spec)
        for other in stats[1:]:
            for group in ("base", "trained", "pair"):
                for column, actual in vars(getattr(stats[0], group)).items():
                    expected = getattr(getattr(other, group), column)
                    assert torch.equal(actual.nan_to_num(7), expected.nan_to_num(7)), f"{name}: {group}.{column}"


@pytest.mark.parametrize("world", [2, 3])
def test_a_mistake_is_named_on_every_rank(world, tmp_path):
    ranks = _on_ranks(world, _messages, [], tmp_path)
    assert all(messages == ranks[0] for messages in ranks)


HEADS = [(0, 150), (150, 150), (150, 1000)]  # one rank holds nothing


def _heads():
    g = torch.Generator().manual_seed(2)
    hidden_a, hidden_b = torch.randn(11, 32, generator=g).bfloat16(), torch.randn(11, 48, generator=g).bfloat16()
    weight_a, weight_b = (torch.randn(1000, h, generator=g).bfloat16() for h in (32, 48))
    return hidden_a, weight_a, hidden_b, weight_b, torch.randn(1000, generator=g), torch.arange(11) * 90


def _linear_statistics(rank, _world, shards):
    hidden_a, weight_a, hidden_b, weight_b, bias, token = _heads()
    first, last = shards[rank]
    head_b = LmHead(weight_b[first:last], bias[first:last], scale=0.5, softcap=20.0)
    linear_shards.LOGITS_BYTES = 4 * 2 * 850 * 4  # blocks of four rows
    arguments = hidden_a, weight_a[first:last], hidden_b, head_b
    stats = sharded_linear_probe_stats(*arguments, token, ProbeSpec(), first_id=first)
    mistakes = (
        ("rank 2: hidden_base_NH has hidden size 16", (hidden_a[:, : 16 if rank == 2 else 32].contiguous(), token)),
        ("rank 1 has 10 positions and rank 0 has 11", (hidden_a, token[: 10 if rank == 1 else 11])),
    )
    for message, (hidden, tokens) in mistakes:
        n = tokens.shape[0]
        with pytest.raises(ValueError, match=message):
            sharded_linear_probe_stats(hidden[:n], arguments[1], hidden_b[:n], head_b, tokens, ProbeSpec(), first)
    return stats


def test_heads_in_shards(tmp_path):
    hidden_a, weight_a, hidden_b, weight_b, bias, token = _heads()
    logits = [float64_logits(hidden_a, LmHead(weight_a)), float64_logits(hidden_b, LmHead(weight_b, bias, 0.5, 20.0))]
    for stats in _on_ranks(3, _linear_statistics, HEADS, tmp_path):
        assert_near_products(stats, logits, token, ProbeSpec())
