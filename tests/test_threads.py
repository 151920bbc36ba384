"""Threads by what others leave free, unless somebody says how many."""

import pytest
import torch

from ssdfast import threads


@pytest.fixture
def computing(monkeypatch):
    """A machine of four cores; the number of threads as it is set."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    number = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: number.__setitem__(0, n))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
    return number


@pytest.mark.parametrize(("busy", "expected"), [(0, 4), (40, 4), (100, 3), (190, 2), (400, 1)])
def test_as_many_threads_as_cores_are_free(computing, monkeypatch, busy, expected):
    looks = iter([(1000, 5000), (1000 + busy, 5400)])
    monkeypatch.setattr(threads, "_busy_and_total", lambda: next(looks))
    with threads.free_cores_only(0):
        assert computing[0] == expected
    assert computing[0] == 4


def test_a_busy_moment_does_not_last(computing, monkeypatch):
    for busy, expected in ((400, 1), (0, 4)):
        looks = iter([(1000, 5000), (1000 + busy, 5400)])
        monkeypatch.setattr(threads, "_busy_and_total", lambda looks=looks: next(looks))
        with threads.free_cores_only(0):
            assert computing[0] == expected


def test_a_number_and_the_environment_decide(computing, monkeypatch):
    monkeypatch.setattr(threads, "_busy_and_total", lambda: pytest.fail("the machine was watched"))
    with threads.free_cores_only(3):
        assert computing[0] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads.free_cores_only(0):
        assert computing[0] == 4  # torch has read the variable when it was imported
    threads.set_threads(3)
    assert computing[0] == 3


def test_training_and_probing_do_not_depend_on_the_load(computing, monkeypatch):
    """The last bits of a product depend on the number of threads."""
    monkeypatch.setattr(threads, "_busy_and_total", lambda: pytest.fail("the machine was watched"))
    threads.set_threads(0)
    assert computing[0] == 4


def test_a_quota_of_a_control_group_counts(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads._quota(tmp_path / "cpu.max") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads._quota(tmp_path / "cpu.max") is None
    assert threads._quota(tmp_path / "none") is None
    assert 1 <= threads.free_cores(threads.usable_cores()) <= threads.usable_cores()
