"""Bytes are counted from when a storage is made to when it is freed, for what it is made for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdfast.training.planning.memory_tracker import HOST, LiveBytes
from ssdfast.training.planning.shape_cache import Remembered

aten = torch.ops.aten


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(1, 10**12)), max_size=30))
def test_now_and_peak_are_those_of_a_ledger(events):
    """True makes a tensor of so many bytes for a part, False frees the oldest."""
    live, held, ledger = LiveBytes(""), [], []
    peak: dict[str, int] = {}
    with live:
        for makes, part, size in events:
            live.part = part
            if makes:
                held.append(torch.empty(size, dtype=torch.uint8, device="meta"))
                ledger.append((part, size))
            elif held:
                del held[0], ledger[0]
            now = {name: sum(size for part, size in ledger if part == name) for name in "ab"}
            assert {name: live.now[name] for name in "ab"} == now
            if sum(now.values()) > sum(peak.values()):
                peak = now
    assert {name: live.peak[name] for name in peak} == peak
    assert live.most == sum(peak.values())


def test_a_view_and_a_change_in_place_take_nothing():
    live = LiveBytes("a")
    with live:
        x = torch.empty(3, 100, device="meta")
        for _ in range(2):  # the first time it is found out, then remembered
            x.view(-1)[:50].mul_(2)
            x.copy_(torch.empty(100, device="meta"))
            x.reshape(100, 3).T.add_(1)
    assert (live.now["a"], live.most) == (1200, 1600)


def test_a_conversion_of_weights_is_a_part_of_its_own():
    live = LiveBytes("layer", copies=("master", "weights"))
    weight = torch.empty(10, 10, device="meta")
    live.count(weight, "master")
    with live:
        converted = weight.to(torch.bfloat16)
        x = converted.to(torch.float32) @ converted.to(torch.float32)
    assert (live.now["master"], live.now["weights"], live.now["layer"]) == (400, 200, 400)
    live.give(x, "kept")
    live.give_all("kept", "gone")
    assert (live.now["layer"], live.now["kept"], live.now["gone"]) == (0, 0, 400)


def test_room_counts_for_the_peak_alone():
    live = LiveBytes("a", rooms={aten.mm.default: lambda x, y: 1000 * x.shape[0]})
    with live:
        x = torch.empty(4, 4, device="meta")
        y = x @ x
    assert (live.now["a"], live.most) == (x.nbytes + y.nbytes, x.nbytes + y.nbytes + 4000)


def test_the_host_is_beside_the_device_and_pins_powers_of_two():
    live = LiveBytes("a")
    with live:
        x = torch.empty(1000, device="meta")
        there = torch.empty_like(x, device="cpu", pin_memory=False)
        there.copy_(x)
        pageable = x.to("cpu")
    assert (live.now["a"], live.now[HOST], live.total) == (4000, 4096 + 4000, 4000)
    del there, pageable
    assert (live.now[HOST], live.peak[HOST]) == (0, 8096)


def test_gradients_of_a_tensor_used_twice_add_up_in_place():
    live = LiveBytes("a")
    with live:
        x = torch.empty(1000, device="meta", requires_grad=True)
        a, b = x * 2, x * 3
        flows_in = torch.empty_like(a)
        live.start()
        before = live.total
        torch.autograd.backward([a, b], [flows_in, flows_in])
    assert live.most - before == 2 * x.nbytes  # one of each product


def test_remembered_results_have_the_operators_layouts():
    remembered = Remembered()
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
        want = _told(func(*args, **kwargs))
        for _ in range(3):
            assert _told(remembered.call(func, args, kwargs)) == want, func


def _told(found):
    if isinstance(found, torch.Tensor):
        return found.shape, found.stride(), found.dtype
    return None if found is None else [_told(x) for x in found]
