"""Partial states: any split of the vocabulary against the float64 oracle, the slots of C++ against plain torch."""

import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from ssdfast.kernels import ProbeSpec, SamplingParams, merge_states
from ssdfast.kernels.probe_stats import state
from ssdfast.kernels.probe_stats.shards import partial_state

from .cases import CASES, assert_matches_oracle, language_like, make, tokens
from .state_cases import statistics
from .test_probe_stats_cpu import ISAS

pytest.importorskip("ssdfast.kernels._C")

DTYPES = [torch.float32, torch.bfloat16]


LISTED = [c for c in CASES if c.spec.eval_sampling.top_k and c.spec.train_sampling.top_k and c.name != "N = 0"]
SPLITS = {"one": [], "two": [0.5], "uneven": [0.03, 0.7], "with empty ones": [0.0, 0.4, 0.4, 0.41, 1.0]}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("case", LISTED, ids=lambda c: c.name)
def test_any_split_matches_the_oracle(case, backend, dtype, split):
    if case.large and (backend == "reference" or split != "uneven"):
        pytest.skip("large rows: one split is enough")
    a, b, token = make(case, dtype)
    assert_matches_oracle(statistics(a, b, token, case.spec, SPLITS[split], backend), a, b, token, case.spec)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sweeps", [1, 2])
@pytest.mark.parametrize("case", [c for c in LISTED if not c.large], ids=lambda c: c.name)
def test_cpp_fills_the_same_slots(case, sweeps, isa, monkeypatch):
    """Slot by slot, of a part in the middle that need not hold the token."""
    monkeypatch.setenv("SSDFAST_CPU", isa)
    spec = dataclasses.replace(case.spec, sweeps=sweeps)
    a, b, token = make(case, torch.bfloat16)
    token_z = torch.stack([z.gather(1, token[:, None])[:, 0].float() for z in (a, b)])
    first = a.shape[1] // 3
    part = a[:, first:], b[:, first:], token, token_z, spec, first
    got, want = partial_state(*part, "cpu"), partial_state(*part, "reference")
    if sweeps == 1:
        pair = 2 * want.layout.model_slots
        flagged = want.slots_SN[pair + state.A_D] == -torch.inf
        got.slots_SN[pair + state.A_DD, flagged] = want.slots_SN[pair + state.A_DD, flagged]
    torch.testing.assert_close(got.slots_SN, want.slots_SN, rtol=2e-6, atol=2e-6, equal_nan=True)
    both_valid = ~(want.model(0)[state.MAX].isnan() | want.model(1)[state.MAX].isnan())
    for actual, expected in zip(got.lists, want.lists, strict=True):
        assert torch.equal(actual.ids_NK[both_valid], expected.ids_NK[both_valid])
        assert torch.equal(actual.z_NK.double()[both_valid], expected.z_NK[both_valid])
        assert torch.equal(actual.other_NK.double()[both_valid], expected.other_NK[both_valid])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 1000), st.sampled_from([1, 2]))
def test_the_split_does_not_matter(cuts, seed, sweeps):
    g = torch.Generator().manual_seed(seed)
    a = (language_like(3, 700, g, 4.0) * 2).round() / 2  # ties
    b = a + torch.randn(3, 700, generator=g)
    for z in (a, b):
        z[torch.rand(3, 700, generator=g) < 0.2] = -torch.inf
    spec = ProbeSpec(sweeps=sweeps, token_class=(torch.arange(700) % 3).to(torch.uint8))
    token = torch.randint(0, 700, (3,), generator=g)
    whole = statistics(a, b, token, spec, [], "reference")
    parts = statistics(a, b, token, spec, sorted(cuts), "reference")
    for group in ("base", "trained", "pair"):
        for name, want in vars(getattr(whole, group)).items():
            got = getattr(getattr(parts, group), name)
            torch.testing.assert_close(got, want, rtol=2e-6, atol=1e-7, equal_nan=True, msg=f"{group}.{name}")


def test_states_merge_in_any_grouping_and_order():
    g = torch.Generator().manual_seed(2)
    a, b = language_like(4, 900, g), language_like(4, 900, g)
    token, spec = tokens(4, 900), ProbeSpec(sweeps=1)
    token_z = torch.stack([z.gather(1, token[:, None])[:, 0] for z in (a, b)])
    parts = [partial_state(z[0], z[1], token, token_z, spec, 300 * i, "reference")
             for i, z in enumerate(zip(a.split(300, 1), b.split(300, 1), strict=True))]  # fmt: skip
    flat = merge_states(parts)
    for other in (merge_states([merge_states(parts[:2]), parts[2]]), merge_states(parts[::-1])):
        torch.testing.assert_close(other.slots_SN, flat.slots_SN, rtol=1e-12, atol=1e-12)
        for actual, expected in zip(other.lists, flat.lists, strict=True):
            assert torch.equal(actual.ids_NK, expected.ids_NK)
            assert torch.equal(actual.other_NK, expected.other_NK)


def test_thousands_of_small_parts():
    """Blocks of one kernel: float32 states of 4 tokens each."""
    g = torch.Generator().manual_seed(3)
    a, b = language_like(2, 8000, g), language_like(2, 8000, g)
    token, spec = tokens(2, 8000), ProbeSpec(sweeps=1, token_class=(torch.arange(8000) % 3).to(torch.uint8))
    token_z = torch.stack([z.gather(1, token[:, None])[:, 0] for z in (a, b)])
    parts = [partial_state(a[:, i : i + 4], b[:, i : i + 4], token, token_z, spec, i, "reference")
             for i in range(0, 8000, 4)]  # fmt: skip
    whole = partial_state(a, b, token, token_z, spec, 0, "reference")
    merged = state.merge_slots(torch.stack([part.slots_SN.float() for part in parts]), whole.layout)
    inside = [i * whole.layout.model_slots + state.REST for i in (0, 1)]  # of the parts' own lists: nothing
    whole.slots_SN[inside] = 0
    torch.testing.assert_close(merged, whole.slots_SN, rtol=1e-6, atol=1e-6)


def test_an_invalid_part_makes_its_row_invalid():
    spec = ProbeSpec()
    layout = state.Layout.from_spec(spec, False)
    parts = torch.ones(3, layout.slots, 5, dtype=torch.float64)
    parts[0, state.MAX, 0], parts[1, state.MAX, 1], parts[2, state.SUM, 2] = torch.nan, torch.inf, torch.nan
    parts[:, state.MAX, 3], parts[:, state.SUM, 3] = -torch.inf, 0
    merged = state.merge_slots(parts, layout)
    assert merged[:, :3].isnan().all()
    assert merged[state.MAX, 3] == -torch.inf
    assert merged[state.SUM, 3] == 0
    assert merged[state.SUM, 4] == 3


def test_moments_of_a_move_far_from_that_of_the_top_token():
    """What goes into a variance must not be large numbers about the wrong constant."""
    a, b = torch.zeros(2, 4096), torch.zeros(2, 4096)
    a[:, 17] = 1e-3
    b[0, 17], b[1, 17] = -30, 3
    sure_a = 0.1 * torch.randn(3, 300, generator=torch.Generator().manual_seed(4))
    sure_b = sure_a.clone()
    sure_a[:, 17] += 20
    sure_b[:, 17] -= 20
    for x, y in ((a, b), (sure_a, sure_b)):
        token = tokens(*x.shape)
        assert_matches_oracle(statistics(x, y, token, ProbeSpec(), [0.3], "cpu"), x, y, token, ProbeSpec())


def test_supports_shorter_than_the_list():
    g = torch.Generator().manual_seed(6)
    a, b = torch.randn(4, 500, generator=g), torch.randn(4, 500, generator=g)
    spec = ProbeSpec(
        top_logprobs=30, eval_sampling=SamplingParams(1.2, 5, 1.0), train_sampling=SamplingParams(1.3, 7, 1.0)
    )
    token = tokens(4, 500)
    assert_matches_oracle(statistics(a, b, token, spec, [0.5], "cpu"), a, b, token, spec)


def test_one_model_alone():
    case = next(c for c in LISTED if c.name == "ties")
    a, b, token = make(case, torch.bfloat16)
    both, alone = (statistics(a, x, token, case.spec, [0.3], "reference") for x in (b, None))
    assert alone.trained is None
    assert alone.pair is None
    for name, column in vars(alone.base).items():
        assert torch.equal(column, getattr(both.base, name)), name


def test_a_list_cannot_hold_a_support_of_the_whole_vocabulary():
    case = next(c for c in CASES if c.name == "wide support")
    a, b, token = make(case, torch.float32)
    with pytest.raises(ValueError, match="top_k = 0"):
        statistics(a, b, token, case.spec, [], "reference")
