"""``ssdfast view``: what the server answers, what it refuses, and the page in a real browser."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ssdfast.run_dir import parquet_metadata
from ssdfast.view.find_tables import find_tables
from ssdfast.view.queries import Explorer
from ssdfast.view.server import make_app, serve
from tests import tiny
from tests.report.synthetic import vocabulary, write_run

pytest.importorskip("httpx")
from starlette.testclient import TestClient

HOSTILE = "<img src=x onerror=window.hit=1>\u202e"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two arms, graded samples and traces, whose texts are hostile."""
    root = tmp_path_factory.mktemp("view") / "runs"
    texts = vocabulary()
    texts[5] = HOSTILE
    for arm in ("ssd-0", "control-0"):
        write_run(root / "probe" / f"{arm}-0123456789", problems=3, length=40, texts=texts)
    samples = pa.table(
        {"trace_id": ["p0#0", "p1#0"], "problem_id": ["p0", "p1"], "question": [HOSTILE, "1 + 1"],
         "gold": ["3", "2"], "answer": ["4", "2"], "grade": ["incorrect", "correct"], "length": [7, 9]}
    )  # fmt: skip
    (root / "compare" / "eval").mkdir(parents=True)
    pq.write_table(samples.replace_schema_metadata(parquet_metadata()), root / "compare" / "eval" / "samples.parquet")
    tiny.save_traces(root / "sample" / "traces", 4)
    return root


@pytest.fixture(scope="module")
def client(root):
    with TestClient(make_app(root), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def positions(root):
    return pq.read_table(root / "probe" / "ssd-0-0123456789" / "positions")


NAME = "positions of probe/ssd-0"


def rows(client, **query):
    return client.get("/api/rows", params={"table": NAME, **query}).json()["rows"]


def test_every_table_below_the_directory_is_found(client):
    tables = client.get("/api/tables").json()["tables"]
    assert [(table["name"], table["kind"]) for table in tables] == [
        ("positions of probe/control-0", "positions"), (NAME, "positions"), ("samples of compare", "samples"),
        ("traces of sample/traces", "traces"),
    ]  # fmt: skip
    assert [table["rows"] for table in tables] == [240, 240, 2, 4]


def test_sorting_is_that_of_the_table(client, positions):
    order = pc.sort_indices(positions, [("kl_trained_base", "descending")])
    want = positions["kl_trained_base"].take(order).to_pylist()
    assert [row["kl_trained_base"] for row in rows(client, sort="-kl_trained_base")] == pytest.approx(want[:60])
    later = rows(client, sort="-kl_trained_base", offset="60")
    assert [row["kl_trained_base"] for row in later] == pytest.approx(want[60:120])
    assert len(rows(client, offset="230")) == 10


@pytest.mark.parametrize("indexed", [False, True])
def test_filters_are_those_of_the_table(root, positions, monkeypatch, indexed):
    monkeypatch.setattr("ssdfast.view.queries._INDEX_FROM", 0 if indexed else 10**9)
    explorer = Explorer(find_tables(root), root)
    explorer.wait()
    try:
        assert (NAME in explorer._indexed) == indexed
        median = pc.quantile(positions["kl_trained_base"], 0.5)[0].as_py()
        large = pc.sum(pc.greater(positions["kl_trained_base"], median)).as_py()
        assert explorer.count(NAME, [("kl_trained_base", ">", str(median))]) == large
        forks = positions.filter(pc.equal(positions["position_class"].cast(pa.string()), "fork"))
        found = explorer.rows(NAME, [("position_class", "=", "fork")], "position", 0)
        assert [row["position"] for row in found] == sorted(forks["position"].to_pylist())[:60]
        assert explorer.count(NAME, [("position_class", "contains", "FOR"), ("position", "<", "5")]) == sum(
            position < 5 for position in forks["position"].to_pylist()
        )
        assert explorer.count(NAME, [("top1_changed", "=", "true")]) == pc.sum(positions["top1_changed"]).as_py()
        row = found[0]
        whole = explorer.row(NAME, row["_row"])
        assert {name: whole[name] for name in ("trace_id", "position", "token_id")} == {
            name: row[name] for name in ("trace_id", "position", "token_id")
        }
        assert len(whole["base_top_tokens"]) == 20
    finally:
        explorer.close()


def test_the_text_of_tokens_is_a_filter(client, positions):
    answers = [i for i, text in enumerate(vocabulary()) if "answer" in text]
    want = sum(token in answers for token in positions["token_id"].to_pylist())
    asked = {"table": NAME, "filters": '[["text", "contains", "answer"]]'}
    assert client.get("/api/count", params=asked).json() == {"count": want}
    asked["filters"] = '[["text", "!=", "answer"]]'
    assert client.get("/api/count", params=asked).json() == {"count": 240 - want}


def test_a_trace_has_its_positions_in_order(client, positions):
    found = client.get("/api/trace", params={"table": NAME, "trace": "problem-1#0", "source": "trained"}).json()
    assert [row["position"] for row in found] == list(range(40))
    assert all(0 <= row["base"] <= 1 for row in found)


def test_figures_count_every_row(client):
    found = client.get("/api/histogram", params={"table": NAME, "column": "kl_trained_base"}).json()
    assert sum(found["counts"]) == 240
    texts = dict(client.get("/api/histogram", params={"table": NAME, "column": "trace_source"}).json()["texts"])
    assert texts == {"baseline": 120, "trained": 120}
    cells = client.get("/api/scatter", params={"table": NAME, "x": "js", "y": "base_entropy"}).json()["cells"]
    assert sum(n for _, _, n in cells) == 240


def test_a_selection_is_exported(client, positions, tmp_path):
    asked = {"table": NAME, "filters": '[["trace_source", "=", "trained"]]'}
    file = tmp_path / "selection.parquet"
    file.write_bytes(client.get("/api/export", params=asked).content)
    exported = pq.read_table(file)
    assert exported.column_names == positions.column_names
    assert exported["kl_trained_base"].to_pylist() == [
        kl for kl, source in zip(*(positions[n].to_pylist() for n in ("kl_trained_base", "trace_source")), strict=True)
        if source == "trained"
    ]  # fmt: skip
    page = client.get("/api/export", params={"table": "samples of compare", "format": "html"}).text
    assert "<img" not in page
    assert "&lt;img" in page
    assert not re.search(r"<script|src=|href=", page.replace("&lt;img src=x", ""))


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/api/../../secret", "/view.js/../x"],
)
def test_no_path_outside_is_served(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


def test_files_outside_of_the_directory_are_not_listed(tmp_path):
    secret = write_run(tmp_path / "secret", problems=1, length=8)
    shown = write_run(tmp_path / "shown", problems=1, length=8)
    (shown / "link").mkdir()
    (shown / "link" / "shard-00000.parquet").symlink_to(secret / "positions" / "shard-00000.parquet")
    tables = find_tables(shown)
    assert [table.name for table in tables] == ["positions"]
    explorer = Explorer(tables, shown)
    try:
        with pytest.raises(Exception, match=r"disabled by configuration|not allowed|Permission"):
            explorer._run("SELECT * FROM read_text('/etc/hostname')", [])
        with pytest.raises(Exception, match=r"disabled by configuration|not allowed|Permission"):
            explorer._run("SELECT * FROM read_parquet(?)", [str(secret / "positions" / "shard-00000.parquet")])
    finally:
        explorer.close()


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("rows", {"sort": "kl_trained_bas"}, "has no column 'kl_trained_bas': did you mean kl_trained_base"),
        ("rows", {"filters": '[["js\\" OR 1=1 --", ">", "0"]]'}, "has no column"),
        ("rows", {"filters": '[["js", "; DROP", "0"]]'}, "unknown operator"),
        ("rows", {"filters": '[["js", ">", "much"]]'}, "js is a number, and 'much' is none"),
        ("rows", {"filters": "nonsense"}, "filters must be a JSON list"),
        ("rows", {"offset": "-1"}, "offset must be a whole number"),
        ("rows", {"table": "secrets"}, "there is no table 'secrets'"),
        ("row", {"row": "../0"}, "there is no row"),
        ("row", {"row": "0:999999"}, "there is no row"),
        ("scatter", {"x": "js", "y": "trace_id"}, "trace_id is not a number"),
        ("histogram", {}, "the parameter 'column' is missing"),
    ],
)
def test_mistakes_are_named(client, path, values, message):
    answer = client.get(f"/api/{path}", params={"table": NAME, **values})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_only_its_own_pages_may_ask_and_only_read(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/api/tables", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/api/rows").status_code == 405
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_a_port_in_use_is_named(root):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be used .*choose another --port"):
            serve(root, port, open_browser=False)


def test_a_directory_without_tables_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no positions, graded samples or traces"):
        find_tables(tmp_path)
    with pytest.raises(ValueError, match="there is no directory"):
        find_tables(tmp_path / "nowhere")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"broken\.parquet is not a complete Parquet file"):
        find_tables(tmp_path)


@pytest.fixture(scope="module")
def url(root):
    command = [sys.executable, "-m", "ssdfast", "view", str(root), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        server.terminate()


def test_the_page_in_a_browser(url):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        browser = webdriver.Chrome(options=options)
    except WebDriverException:
        pytest.skip("no Chromium")
    with browser:
        browser.get(url)
        waits = WebDriverWait(browser, 15)

        def status(text):
            waits.until(lambda b: text in b.find_element(By.ID, "status").text)

        status("240 of 240 rows")
        assert len(browser.find_elements(By.CSS_SELECTOR, "#rows tbody tr")) == 60
        assert browser.find_elements(By.CSS_SELECTOR, "#figure svg rect")
        # The keyboard alone: filter, move, open, choose a token, close.
        browser.find_element(By.TAG_NAME, "body").send_keys("/")
        active = browser.switch_to.active_element
        assert active.get_attribute("id") == "value"
        Select(browser.find_element(By.ID, "column")).select_by_value("position")
        Select(browser.find_element(By.ID, "operator")).select_by_visible_text("<")
        active.send_keys("3", Keys.ENTER)
        status("18 of 240 rows")
        active.send_keys(Keys.ESCAPE)
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_DOWN)
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        waits.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#detail .flow button")) == 40)
        waits.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#detail"))
        browser.find_elements(By.CSS_SELECTOR, "#detail .flow button")[7].send_keys(Keys.ENTER)
        waits.until(lambda b: "Position 7" in b.find_element(By.ID, "position").text)
        beside = browser.find_element(By.CSS_SELECTOR, "#detail select")
        Select(beside).select_by_visible_text("positions of probe/ssd-0")
        waits.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#detail .flow")) == 2)
        assert "null" not in browser.find_element(By.ID, "detail").text
        # A link opens the trace again.
        address = browser.current_url
        browser.get("about:blank")
        browser.get(address)
        waits.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#detail .flow button")) == 80)
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
        assert not browser.find_element(By.ID, "detail").is_displayed()
        for name, shown in (("samples of compare", "2 of 2 rows"), ("traces of sample/traces", "4 of 4 rows")):
            Select(browser.find_element(By.ID, "table")).select_by_visible_text(name)
            status(shown)
            browser.find_element(By.CSS_SELECTOR, "#rows tbody tr").click()
            waits.until(lambda b: b.find_element(By.ID, "detail").is_displayed())
        assert browser.execute_script("return window.hit") is None
        assert browser.get_log("browser") == []
