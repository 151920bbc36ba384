"""An estimate counts what can be counted and is near in what it measures."""

import numpy as np
import pytest

from ssdfast import run_dir
from ssdfast.config import ExecutionConfig, ManyProbesConfig, NamedPath, PositionConfig, ProbeConfig
from ssdfast.probing import estimate
from ssdfast.probing.runner import probe

from .. import tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("estimate")
    baseline, trained = tiny.save_pair(directory)
    many = NamedPath(name="many", path=tiny.save_traces(directory / "many", 200, seed=5))
    return ProbeConfig(
        baseline=baseline, trained=trained, traces=(many,), max_batch_tokens=100, positions_per_shard=2000
    )


@pytest.mark.parametrize("select", ["all", "stride"])
def test_counts_are_those_of_the_run(config, tmp_path, select):
    config = config.model_copy(update={"positions": PositionConfig(select=select, stride=3)})
    found = estimate.estimate(config, ExecutionConfig())
    probe(config, tmp_path)
    shards = sorted((tmp_path / "positions").glob("shard-*.parquet"))
    assert found.positions == run_dir.read_json(tmp_path / "summary.json")["positions"]
    assert found.shards == len(shards)
    assert found.traces == 200
    size = sum(shard.stat().st_size for shard in shards)
    assert 0.5 < found.table_bytes / size < 2
    assert found.seconds_forward > 0
    assert found.seconds_statistics > 0
    assert found.peak_bytes > 10**8
    assert f"{found.positions:,} in {found.shards} shards" in str(found)


def test_several_models_count_the_baseline_once(config, tmp_path):
    values = config.model_dump(exclude_unset=True) | {"trained": dict.fromkeys("abcdef", config.trained)}
    many = ManyProbesConfig.model_validate(values)
    several, one = (estimate.estimate(settings, ExecutionConfig()) for settings in (many, config))
    assert (several.models, one.models) == (6, 1)
    assert several.tokens == one.tokens
    assert not several.loads_both
    probe(many, tmp_path)
    size = sum(shard.stat().st_size for shard in tmp_path.glob("models/*/positions/shard-*.parquet"))
    assert 0.5 < several.table_bytes / size < 2
    assert "6 beside one pass of the baseline" in str(several)


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
