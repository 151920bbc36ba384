"""Bytes count for a category from the allocation of a storage until it is freed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdfast.training.planning.memory_tracker import HOST, MemoryTracker
from ssdfast.training.planning.shape_cache import ShapeCache

aten = torch.ops.aten


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(1, 10**12)), max_size=30))
def test_current_and_peak_bytes_are_those_of_a_ledger(events):
    """True makes a tensor of so many bytes for a category, False frees the oldest."""
    tracker, held, ledger = MemoryTracker(""), [], []
    peak: dict[str, int] = {}
    with tracker:
        for makes, category, size in events:
            tracker.category = category
            if makes:
                held.append(torch.empty(size, dtype=torch.uint8, device="meta"))
                ledger.append((category, size))
            elif held:
                del held[0], ledger[0]
            now = {name: sum(size for category, size in ledger if category == name) for name in "ab"}
            assert {name: tracker.current[name] for name in "ab"} == now
            if sum(now.values()) > sum(peak.values()):
                peak = now
    assert {name: tracker.peak[name] for name in peak} == peak
    assert tracker.max_total == sum(peak.values())


def test_a_view_and_a_change_in_place_take_nothing():
    tracker = MemoryTracker("a")
    with tracker:
        x = torch.empty(3, 100, device="meta")
        for _ in range(2):  # computed first, then from the cache
            x.view(-1)[:50].mul_(2)
            x.copy_(torch.empty(100, device="meta"))
            x.reshape(100, 3).T.add_(1)
    assert (tracker.current["a"], tracker.max_total) == (1200, 1600)


def test_a_conversion_of_weights_has_a_category_of_its_own():
    tracker = MemoryTracker("layer", copies=("master", "weights"))
    weight = torch.empty(10, 10, device="meta")
    tracker.count(weight, "master")
    with tracker:
        converted = weight.to(torch.bfloat16)
        x = converted.to(torch.float32) @ converted.to(torch.float32)
    assert (tracker.current["master"], tracker.current["weights"], tracker.current["layer"]) == (400, 200, 400)
    tracker.move(x, "kept")
    tracker.move_all("kept", "gone")
    assert (tracker.current["layer"], tracker.current["kept"], tracker.current["gone"]) == (0, 0, 400)


def test_a_workspace_counts_for_the_peak_alone():
    tracker = MemoryTracker("a", workspaces={aten.mm.default: lambda x, y: 1000 * x.shape[0]})
    with tracker:
        x = torch.empty(4, 4, device="meta")
        y = x @ x
    assert (tracker.current["a"], tracker.max_total) == (x.nbytes + y.nbytes, x.nbytes + y.nbytes + 4000)


def test_the_host_is_beside_the_device_and_pins_powers_of_two():
    tracker = MemoryTracker("a")
    with tracker:
        x = torch.empty(1000, device="meta")
        there = torch.empty_like(x, device="cpu", pin_memory=False)
        there.copy_(x)
        pageable = x.to("cpu")
    assert (tracker.current["a"], tracker.current[HOST], tracker.total) == (4000, 4096 + 4000, 4000)
    del there, pageable
    assert (tracker.current[HOST], tracker.peak[HOST]) == (0, 8096)


def test_gradients_of_a_tensor_used_twice_add_up_in_place():
    tracker = MemoryTracker("a")
    with tracker:
        x = torch.empty(1000, device="meta", requires_grad=True)
        a, b = x * 2, x * 3
        grad_output = torch.empty_like(a)
        tracker.reset_peak()
        before = tracker.total
        torch.autograd.backward([a, b], [grad_output, grad_output])
    assert tracker.max_total - before == 2 * x.nbytes  # one of each product


def test_cached_results_have_the_operators_layouts():
    cache = ShapeCache()
    x = torch.empty(6, 4, device="meta").T
    calls = [
        (aten.add.Tensor, (x, x), {}),
        (aten.mul.Tensor, (x, 2.0), {}),
        (aten._to_copy.default, (x,), {"dtype": torch.bfloat16}),
        (aten.sum.dim_IntList, (x, [0], True), {}),
        (aten.topk.default, (x, 2), {}),
        (aten.split.Tensor, (x, 2), {}),
        (aten._unsafe_view.default, (x.contiguous(), [24]), {}),
        (aten.add_.Tensor, (x, 1), {}),
        (aten.convolution_backward.default, (torch.empty(1, 2, 3, device="meta"), torch.empty(1, 2, 5, device="meta"),
         torch.empty(2, 2, 3, device="meta"), None, [1], [0], [1], False, [0], 1, [True, False, False]), {}),
    ]  # fmt: skip
    for func, args, kwargs in calls:
        want = _layouts(func(*args, **kwargs))
        for _ in range(3):
            assert _layouts(cache.call(func, args, kwargs)) == want, func


def _layouts(result):
    if isinstance(result, torch.Tensor):
        return result.shape, result.stride(), result.dtype
    return None if result is None else [_layouts(x) for x in result]
