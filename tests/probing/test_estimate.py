"""An estimate counts what can be counted and is near in what it measures."""

import numpy as np
import pytest

from ssdfast import run_dir
from ssdfast.config import ExecutionConfig, Labelled, PositionConfig, ProbeConfig
from ssdfast.probing import estimate
from ssdfast.probing.runner import probe

from .. import tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("estimate")
    baseline, trained = tiny.save_pair(directory)
    many = Labelled(label="many", path=tiny.save_traces(directory / "many", 200, seed=5))
    return ProbeConfig(baseline=baseline, trained=trained, traces=(many,), batch_tokens=100, part_positions=2000)


@pytest.mark.parametrize("select", ["all", "every"])
def test_counts_are_those_of_the_run(config, tmp_path, select):
    config = config.model_copy(update={"positions": PositionConfig(select=select, every=3)})
    found = estimate.estimate(config, ExecutionConfig())
    probe(config, tmp_path)
    parts = sorted((tmp_path / "probe").glob("part-*.parquet"))
    assert found.positions == run_dir.read_json(tmp_path / "summary.json")["positions"]
    assert found.parts == len(parts)
    assert found.traces == 200
    size = sum(part.stat().st_size for part in parts)
    assert 0.5 < found.table_bytes / size < 2
    assert found.seconds_forward > 0
    assert found.seconds_statistics > 0
    assert found.peak_bytes > 10**8
    assert f"{found.positions:,} in {found.parts} parts" in str(found)


def test_rates_come_back_from_seconds_made_of_them():
    work_RQ = np.array([[6000.0, 6000 * 1500], [500.0, 500 * 100]])
    rates_Q = np.array([1e-3, 2e-7])
    np.testing.assert_allclose(estimate._rates(work_RQ, work_RQ @ rates_Q), rates_Q)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        ([[100.0, 5000.0], [100.0, 5000.0]], [1.0, 1.1]),  # traces of one length
        ([[1000.0, 500_000.0], [10.0, 50.0]], [1.0, 0.5]),  # a short batch that wastes its time
    ],
)
def test_rates_are_never_negative(work, seconds):
    rates_Q = estimate._rates(np.array(work), np.array(seconds))
    assert (rates_Q >= 0).all()
    assert rates_Q.sum() > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 seconds"), (150, "2.5 minutes"), (9000, "2.5 hours"), (200_000, "2.3 days")]
)
def test_durations(seconds, text):
    assert estimate._duration(seconds) == text


def test_sizes():
    assert [estimate._size(x) for x in (999, 12_300, 4.56e10, 7.8e12)] == ["999 bytes", "12.3 kB", "45.6 GB", "7.8 TB"]
