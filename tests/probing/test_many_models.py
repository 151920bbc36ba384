"""Several trained models beside one baseline: the columns of separate probes, however they are made and disturbed."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssdfast.config import ExecutionConfig, ManyProbesConfig, NamedPath, ProbeConfig, dump, probe_class, read_yaml
from ssdfast.joined_shard import AT_TRAINED_TOP, with_known, without_known
from ssdfast.probing.runner import probe
from ssdfast.sharded_table import ShardedTable

from .. import tiny
from .runs import RUN, kill_when, start
from .test_runner import FAILING, fail_on

MOVED = {"a": 0.02, "b": 0.05, "c": 0.1}


def settings_of(directory):
    """A baseline, traces in some twenty shards, and the trained models by name."""
    baseline = tiny.save_model(directory / "baseline")
    trained = {name: tiny.save_model(directory / name, moved=moved) for name, moved in MOVED.items()}
    many = NamedPath(name="many", path=tiny.save_traces(directory / "many", 40, seed=5))
    settings = {"baseline": baseline, "traces": (many,), "max_batch_tokens": 40, "positions_per_shard": 30}
    return settings | {"train_sampling": {"temperature": 1.1, "top_k": 20, "top_p": 0.95}}, trained  # as in a file


def config_of(work, *names):
    settings, trained = work
    return ManyProbesConfig(**settings, trained={name: trained[name] for name in names or trained})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Settings and models, the directory of a probe of all, and those of separate probes."""
    directory = tmp_path_factory.mktemp("many")
    settings, trained = settings_of(directory)
    probe(config_of((settings, trained)), directory / "out")
    for name, path in trained.items():
        probe(ProbeConfig(**settings, trained=path), directory / f"alone-{name}")
    return (settings, trained), directory


def table_of(directory):
    table = ShardedTable(str(directory / "positions"))
    return pa.concat_tables([shard.read() for shard in table.shards()]).unify_dictionaries()


def contents(out, *names):
    """Every byte that must come again after any disturbance, of these models and the baseline."""
    files = [file for name in ("baseline", *names) for file in (out / "models" / name).rglob("*.parquet")]
    files += [out / "models" / name / "summary.json" for name in names]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def differing(out, other, *names):
    """The files of `contents` that are not the same."""
    ours, theirs = contents(out, *names), contents(other, *names)
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


@pytest.mark.parametrize("name", MOVED)
def test_every_column_and_number_is_that_of_a_separate_probe(work, name):
    _, directory = work
    many, alone = table_of(directory / "out" / "models" / name), table_of(directory / f"alone-{name}")
    assert set(many.column_names) == set(alone.column_names)
    for column in alone.column_names:
        assert many.schema.field(column).equals(alone.schema.field(column)), column
        assert many[column].equals(alone[column]), column
    summaries = [path / "summary.json" for path in (directory / "out" / "models" / name, directory / f"alone-{name}")]
    assert summaries[0].read_text() == summaries[1].read_text()


def test_the_baseline_is_read_and_written_once(work, tmp_path, forwards):
    settings, directory = work
    probe(config_of(settings), tmp_path)
    traces = {path: forwards.count(path) for path in forwards}
    assert len(set(traces.values())) == 1
    assert len(traces) == 4
    stored = pq.read_schema(directory / "out" / "models" / "a" / "positions" / "shard-00000.parquet").names
    assert [column for column in stored if column in ("base_entropy", "base_top_ids", "position_class")] == []
    assert not list((tmp_path / "spill").iterdir())


def test_a_shard_describes_its_columns(work):
    _, directory = work
    models = directory / "out" / "models"
    own, baseline = (
        json.loads(pq.read_schema(models / name / "positions" / "shard-00000.parquet").metadata[b"ssdfast"])
        for name in ("a", "baseline")
    )
    assert own["baseline"] == "baseline"
    assert own["train_sampling"]["top_k"] == own["eval_sampling"]["top_k"] == 20
    assert "train_sampling" not in baseline
    assert baseline["eval_sampling"] == own["eval_sampling"]
    assert baseline["compared_tokens"] == 96


def test_parts_stand_beside_each_other_in_pandas(work):
    _, directory = work
    models = directory / "out" / "models"
    baseline, own = (pq.read_table(models / name / "positions") for name in ("baseline", "b"))
    for key in ("trace_source", "trace_id", "position"):
        assert baseline[key].to_pylist() == own[key].to_pylist()


def test_a_model_that_is_added_later_runs_alone(work, tmp_path, forwards, caplog):
    settings, directory = work
    kept = ExecutionConfig(baseline_states=str(tmp_path / "states"))
    probe(config_of(settings, "a", "b"), tmp_path / "out", kept)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "models").rglob("*.parquet")}
    forwards.clear()
    caplog.set_level("INFO", "ssdfast")
    probe(config_of(settings, "c"), tmp_path / "out", kept)
    assert "reads the traces again" not in caplog.text
    assert set(forwards) == {settings[1]["c"]}
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert differing(tmp_path / "out", directory / "out", *MOVED) == []
    saved = json.dumps(read_yaml(tmp_path / "out" / "config.yaml")["trained"])
    assert all(path in saved for path in settings[1].values())
    forwards.clear()
    probe(config_of(settings), tmp_path / "out")
    assert forwards == []


def test_without_kept_states_the_baseline_reads_again_and_writes_nothing(work, tmp_path, forwards, caplog):
    caplog.set_level("INFO", "ssdfast")
    settings, directory = work
    probe(config_of(settings, "a"), tmp_path)
    assert "reads the traces again" not in caplog.text
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    forwards.clear()
    probe(config_of(settings, "a", "b"), tmp_path)
    assert set(forwards) == {settings[0]["baseline"], settings[1]["b"]}
    assert "the baseline reads the traces again: --baseline-states" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert differing(tmp_path, directory / "out", "a", "b") == []


@pytest.mark.parametrize("max_spill_gb", [1e-5, 1e-9])
def test_a_small_disk_takes_the_shards_in_groups(work, tmp_path, max_spill_gb):
    settings, directory = work
    probe(config_of(settings), tmp_path, ExecutionConfig(max_spill_gb=max_spill_gb))
    assert differing(tmp_path, directory / "out", *MOVED) == []


def started(work, tmp_path, out, *execution, launcher=(), **env):
    """The probe of all models in a process of its own."""
    settings, _ = work
    (tmp_path / "config.yaml").write_text(dump(config_of(settings)))
    shutil.copy(work[1] / "run.py", tmp_path / "run.py")
    return start(tmp_path, out, *execution, launcher=launcher, **env)


@pytest.fixture(scope="module")
def script(work):
    (work[1] / "run.py").write_text(RUN)


def test_killed_several_times_it_ends_with_the_same_bytes(work, script, tmp_path):
    settings, directory = work
    out, rng = tmp_path / "out", random.Random(0)

    def files():
        return len(list(out.glob("models/*/positions/shard-*"))) + len(list(out.glob("spill/*.safetensors")))

    whole, stops = contents(directory / "out", *MOVED), []
    for _ in range(4):
        wanted = files() + rng.randint(3, 22)
        kill_when(started(work, tmp_path, out), lambda wanted=wanted: files() >= wanted)
        stops.append(len(list(out.glob("models/*/positions/shard-*"))))
    assert 0 < stops[-1] < len(whole) - 3, stops
    probe(config_of(settings), out)
    assert contents(out, *MOVED) == whole
    assert list(out.glob("spill/*")) == []


def test_killed_between_the_shard_of_the_baseline_and_that_of_the_model(work, tmp_path, monkeypatch):
    settings, directory = work
    write = ShardedTable.write

    def dies(self, index, *rest):
        if index == 3 and self.run_name == "a":
            raise KeyboardInterrupt
        write(self, index, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(ShardedTable, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            probe(config_of(settings), tmp_path)
    assert (tmp_path / "models" / "baseline" / "positions" / "shard-00003.parquet").exists()
    assert not (tmp_path / "models" / "a" / "positions" / "shard-00003.parquet").exists()
    probe(config_of(settings), tmp_path)
    assert differing(tmp_path, directory / "out", *MOVED) == []


def test_ranks_share_the_shards(work, script, tmp_path):
    settings, _ = work
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    probe(config_of(settings), tmp_path / "whole")
    torch.set_num_threads(threads)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = started(work, tmp_path, tmp_path / "out", launcher=torchrun, OMP_NUM_THREADS="1")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert differing(tmp_path / "out", tmp_path / "whole", *MOVED) == []


def test_ray_actors_share_the_shards(work, script, tmp_path):
    pytest.importorskip("ray")
    settings, _ = work
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    probe(config_of(settings), tmp_path / "whole")
    torch.set_num_threads(threads)
    environment = {
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
    }  # on a busy machine they would not get their turn
    process = started(work, tmp_path, tmp_path / "out", "engine=ray", "num_workers=2", **environment)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert differing(tmp_path / "out", tmp_path / "whole", *MOVED) == []
    assert list((tmp_path / "out" / "spill").iterdir()) == []


@pytest.mark.parametrize("which", ["baseline", "b"])
def test_a_trace_that_one_model_fails_on_is_missing_there_alone(work, tmp_path, monkeypatch, which):
    (settings, trained), _ = work
    ids = [[4, 5, 6], [4, FAILING, 6], [7, 8], [FAILING, 3, 4]]
    some = NamedPath(name="some", path=tiny.save_traces(tmp_path / "some", 4, completion_ids=ids))
    work = {**settings, "traces": (some,)}, trained
    probe(config_of(work), tmp_path / "whole")
    with monkeypatch.context() as broken:
        fail_on(broken, trained.get(which, settings["baseline"]))
        failed = probe(config_of(work), tmp_path / "out")
        probe(ProbeConfig(**work[0], trained=trained["b"]), tmp_path / "alone")
    assert {one.trace_id for one in failed} == {"problem1#0", "problem3#0"}
    for name in MOVED:
        here = table_of(tmp_path / "out" / "models" / name)
        without = which in ("baseline", name)
        assert len(here) == (5 if without else 11), name
        alone = table_of(tmp_path / "alone") if without else table_of(tmp_path / "whole" / "models" / name)
        assert here.select(["trace_id", "position"]).equals(alone.select(["trace_id", "position"])), name
        near = {"abs": 1e-5 if without else 0, "rel": 0}  # a batch of other traces rounds differently
        for column in ("base_entropy", *(["base_token_logprob", "kl_trained_base"] if name == "b" else [])):
            assert here[column].to_pylist() == pytest.approx(alone[column].to_pylist(), **near), column
    assert probe(config_of(work), tmp_path / "out") == [], "what failed is tried again"
    assert differing(tmp_path / "out", tmp_path / "whole", *MOVED) == []


@pytest.fixture
def copy(work, tmp_path):
    shutil.copytree(work[1] / "out", tmp_path / "out")
    return tmp_path / "out"


def shard(out, name, index=2):
    return out / "models" / name / "positions" / f"shard-{index:05d}.parquet"


def test_a_shard_of_the_baseline_that_is_gone_is_named_and_made_again(work, copy):
    settings, directory = work
    shard(copy, "baseline").unlink()
    with pytest.raises(ValueError, match=r"baseline/positions/shard-00002.parquet is missing.*probe again"):
        table_of(copy / "models" / "a")
    for name in MOVED:
        (copy / "models" / name / "summary.json").unlink()
    probe(config_of(settings), copy)
    assert differing(copy, directory / "out", *MOVED) == []


def test_a_finished_probe_makes_a_lost_shard_of_the_baseline_again(work, copy):
    settings, directory = work
    shard(copy, "baseline").unlink()
    probe(config_of(settings), copy)
    assert differing(copy, directory / "out", *MOVED) == []


def test_a_damaged_shard_of_the_baseline_is_named(copy):
    file = shard(copy, "baseline")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"baseline/positions/shard-00002.parquet is not a whole shard of a probe"):
        table_of(copy / "models" / "a")


@pytest.mark.parametrize("change", ["order", "rows", "another shard"])
def test_a_baseline_with_other_rows_is_not_joined(copy, change):
    file = shard(copy, "baseline")
    table = pq.read_table(file)
    if change == "order":
        table = table.take(list(range(len(table)))[::-1])
    elif change == "rows":
        table = table.slice(1)
    else:
        table = pq.read_table(shard(copy, "baseline", 3)).replace_schema_metadata(table.schema.metadata)
    pq.write_table(table, file)
    with pytest.raises(ValueError, match="do not hold the same positions"):
        table_of(copy / "models" / "a")


def test_a_truncated_shard_of_the_baseline_is_made_again(work, copy, caplog):
    settings, directory = work
    file = shard(copy, "baseline")
    file.write_bytes(file.read_bytes()[:-10])
    for name in MOVED:
        (copy / "models" / name / "summary.json").unlink()
    probe(config_of(settings), copy)
    assert "shard-00002.parquet is not a whole shard of a probe" in caplog.text
    assert differing(copy, directory / "out", *MOVED) == []


def test_a_shard_names_only_a_directory_beside_its_own(copy):
    file = shard(copy, "a")
    table = pq.read_table(file)
    values = json.loads(table.schema.metadata[b"ssdfast"]) | {"baseline": "../../elsewhere"}
    pq.write_table(table.replace_schema_metadata({b"ssdfast": json.dumps(values).encode()}), file)
    with pytest.raises(ValueError, match=r"names no directory beside its own but '../../elsewhere'"):
        table_of(copy / "models" / "a")


def test_other_weights_and_other_settings_are_refused(work, copy):
    (settings, trained), _ = work
    with pytest.raises(
        ValueError, match=r"models/a holds a run with other settings \(trained: .*/a' there, .*/b' here"
    ):
        probe(ManyProbesConfig(**settings, trained={"a": trained["b"]}), copy)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed: 0 there, 1 here"):
        probe(ManyProbesConfig(**settings, trained={"a": trained["a"]}, seed=1), copy)
    with pytest.raises(ValueError, match="holds the probe of several models: name this one, --trained NAME="):
        probe(ProbeConfig(**settings, trained=trained["a"]), copy)


def test_several_models_do_not_go_where_one_is(work):
    settings, directory = work
    with pytest.raises(ValueError, match="holds the probe of one model: choose another --out for several"):
        probe(config_of(settings), directory / "alone-a")


def test_overwriting_starts_again(work, copy):
    settings, directory = work
    probe(config_of(settings, "a"), copy, overwrite=True)
    assert sorted(path.name for path in (copy / "models").iterdir()) == ["a", "baseline"]
    assert differing(copy, directory / "out", "a") == []


def test_a_head_with_fewer_rows_sets_the_tokens_that_are_compared(work, tmp_path):
    (settings, trained), _ = work
    settings = {**settings, "baseline": tiny.save_model(tmp_path / "padded", rows=tiny.VOCABULARY + 32)}
    wide = tiny.save_model(tmp_path / "wide", moved=0.02, rows=tiny.VOCABULARY + 32)
    work = settings, {"a": trained["a"], "wide": wide}
    probe(config_of(work), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "models" / "wide" / "summary.json").read_text())
    assert summary["vocabulary"] == {"compared": 96, "baseline": 128, "trained": 128}
    probe(config_of(work, "wide"), tmp_path / "out")  # alone it would be compared over all of its rows
    probe(config_of(work, "wide"), tmp_path / "wide-first")
    with pytest.raises(ValueError, match="compared over 128 tokens, and lm_head has 96 rows in"):
        probe(config_of(work, "a"), tmp_path / "wide-first")


def test_the_table_may_be_behind_a_url(work, tmp_path):
    settings, directory = work
    url = f"memory://{tmp_path}"
    config = config_of(settings, "a", "b").model_copy(update={"table_dir": url})
    probe(config, tmp_path / "out")
    table = ShardedTable(f"{url}/b/positions")
    want = table_of(directory / "out" / "models" / "b")
    assert pa.concat_tables([shard.read() for shard in table.shards()]).unify_dictionaries().equals(want)


def test_what_the_baseline_knows_already_is_stored_once(work):
    _, directory = work
    whole = table_of(directory / "out" / "models" / "a").combine_chunks()
    thin = without_known(whole)
    assert thin[AT_TRAINED_TOP].combine_chunks().flatten().null_count > 10 * len(whole)
    assert with_known(thin).equals(whole)
    infinite = np.array(whole[AT_TRAINED_TOP].combine_chunks().flatten().to_numpy())
    infinite[::7], infinite[::11] = -np.inf, np.nan
    values = pa.FixedSizeListArray.from_arrays(pa.array(infinite), type=whole.schema.field(AT_TRAINED_TOP).type)
    strange = whole.set_column(whole.column_names.index(AT_TRAINED_TOP), whole.schema.field(AT_TRAINED_TOP), values)
    again = with_known(without_known(strange))[AT_TRAINED_TOP].combine_chunks().flatten().to_numpy()
    assert again.tobytes() == infinite.tobytes()


def test_names_are_directories_and_differ():
    settings = {"baseline": "m", "traces": ["t"]}
    for trained, message in (
        ({"../x": "m"}, "names a directory"), ({"baseline": "m"}, "names a directory"),
        (["x/model", "y/model"], "x/model and y/model are both named 'model': give each its own name"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ManyProbesConfig(**settings, trained=trained)
    names = [model.name for model in ManyProbesConfig(**settings, trained=["x/checkpoint-5", "b=y"]).trained]
    assert names == ["checkpoint-5", "b"]
    assert probe_class("a/b=c") is probe_class(["m"]) is ProbeConfig
    assert probe_class("a=m") is probe_class(["a=m"]) is probe_class({"a": "m"}) is ManyProbesConfig


def test_both_models_in_memory_is_for_one(work, tmp_path):
    with pytest.raises(ValueError, match="model_loading: both is for one trained model"):
        probe(config_of(work[0]), tmp_path, ExecutionConfig(model_loading="both"))


def test_the_local_engine_reads_a_probe_without_torch(work):
    _, directory = work
    code = f"""
import sys
import ssdfast as ssd
assert len(ssd.load({str(directory / "out" / "models" / "a")!r}).positions(["base_entropy", "kl_trained_base"]))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
