"""A part is there whole or not at all, on a disk or behind a URL, and says what it was made from."""

import errno
import subprocess
import sys
import uuid

import fsspec
import pyarrow as pa
import pytest

from ssdfast.sharded_table import ShardedTable, ShardMetadata

TABLE = pa.table({"position": pa.array(range(1000), pa.int32())})
METADATA = ShardMetadata("abc", ({"trace_source": "a", "trace_id": "p#0", "reason": "out of memory"},))


@pytest.fixture(params=["directory", "file url", "memory url"])
def parts(request, tmp_path):
    root = {
        "directory": str(tmp_path / "positions"),
        "file url": f"file://{tmp_path}/probe",
        "memory url": f"memory://{uuid.uuid4().hex}/probe",
    }[request.param]
    return ShardedTable(root)


def test_what_is_written_is_there_in_order(parts):
    for index in (2, 0):
        parts.write(index, TABLE.slice(index, 3), METADATA)
    assert [file.read().column("position").to_pylist() for file in parts.shards()] == [[0, 1, 2], [2, 3, 4]]
    assert parts.metadata(0) == METADATA
    assert parts.metadata(1) is None


def test_a_part_that_is_written_again_takes_the_place(parts):
    parts.write(0, TABLE, METADATA)
    parts.write(0, TABLE.slice(0, 1), ShardMetadata("other"))
    assert [file.metadata.num_rows for file in parts.shards()] == [1]
    assert parts.metadata(0) == ShardMetadata("other")


def test_a_truncated_shard_is_named(parts):
    parts.write(3, TABLE, METADATA)
    fs, path = fsspec.core.url_to_fs(parts.root)
    (file,) = fs.glob(f"{path}/shard-*.parquet")
    for kept in (-1, 100, 0):
        fs.pipe_file(file, fs.cat_file(file)[:kept])
        with pytest.raises(ValueError, match=r"shard-00003.parquet is not a whole shard of a probe"):
            parts.metadata(3)
    parts.remove(3)
    assert parts.metadata(3) is None


def test_a_foreign_table_is_no_shard(tmp_path):
    pa.parquet.write_table(TABLE, tmp_path / "shard-00000.parquet")
    with pytest.raises(ValueError, match=r"shard-00000.parquet is not a whole shard"):
        ShardedTable(str(tmp_path)).metadata(0)


def test_clearing_removes_parts_alone(parts):
    parts.write(0, TABLE, METADATA)
    fs, path = fsspec.core.url_to_fs(parts.root)
    fs.pipe_file(f"{path}/vocabulary.json", b"{}")
    parts.clear()
    assert [name.rpartition("/")[2] for name in fs.ls(path, detail=False)] == ["vocabulary.json"]


FULL = """
import resource, sys
import pyarrow as pa
from ssdfast.sharded_table import ShardMetadata, ShardedTable
import random
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
table = pa.table({"x": [random.random() for _ in range(10000)]})
try:
    ShardedTable(sys.argv[1]).write(0, table, ShardMetadata("abc"))
except OSError as error:
    print(error.errno, error)
"""


def test_a_disk_without_room_leaves_nothing_and_says_what_to_do(tmp_path):
    """As far as a process can tell, a file that may not grow is on a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        f"{errno.EFBIG} [Errno {errno.EFBIG}] no room to write {tmp_path}/shard-00000.parquet"
    )
    assert "start the same command again" in done.stdout
    assert list(tmp_path.iterdir()) == []
