"""The server of ``ssdfast view``: on 127.0.0.1 alone, read-only, and only for pages that it served itself."""

from __future__ import annotations

import html
import io
import json
import logging
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..messages import one_line
from ..report.sanitize import MAX_TEXT, inert
from .find_tables import find_tables
from .queries import MAX_EXPORT, PAGE, Explorer, Filter

HOST = "127.0.0.1"
MAX_PAGE_ROWS = 5_000
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src"
    " 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_EXPORTED_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_log = logging.getLogger("ssdfast.view")


def serve(directory: Path, port: int = 0, open_browser: bool = True) -> None:
    """Serve the page until Ctrl-C. Raises ValueError for a directory without tables, or a port that is in use."""
    app = make_app(directory)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be used ({one_line(error)}): choose another --port, or 0") from None
        url = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"{directory} at {url} (Ctrl-C ends)", flush=True)
        if open_browser:
            threading.Timer(0.5, webbrowser.open, (url,)).start()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listener])


def make_app(directory: Path) -> Starlette:
    """The application. Raises ValueError for a directory without tables."""
    explorer = Explorer(find_tables(directory), directory)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            explorer.close()

    def answer(ask: Callable[[Any], Any]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            try:
                result = ask(request.query_params)
                return result if isinstance(result, Response) else JSONResponse(_inert(result))
            except (ValueError, KeyError) as error:
                message = f"the parameter {error} is missing" if isinstance(error, KeyError) else one_line(error)
                return JSONResponse({"error": message}, 400)
            except duckdb.Error as error:
                return JSONResponse({"error": one_line(error, 300)}, 400)

        return endpoint

    def rows(q: Any) -> Any:
        offset = _whole(q.get("offset", "0"))
        return {"rows": explorer.rows(q["table"], _filters(q), q.get("sort", ""), offset), "page": PAGE}

    def export(q: Any) -> Response:
        if q.get("format") == "html":
            return _page_of_rows(explorer.export(q["table"], _filters(q), MAX_PAGE_ROWS), q["table"])
        buffer = io.BytesIO()
        pq.write_table(explorer.export(q["table"], _filters(q), MAX_EXPORT), buffer, compression="zstd")
        disposition = {"Content-Disposition": 'attachment; filename="selection.parquet"'}
        return Response(buffer.getvalue(), media_type="application/vnd.apache.parquet", headers=disposition)

    asks: dict[str, Callable[[Any], Any]] = {
        "tables": lambda q: {"name": directory.resolve().name, "tables": explorer.describe()},
        "rows": rows,
        "count": lambda q: {"count": explorer.count(q["table"], _filters(q))},
        "row": lambda q: explorer.row(q["table"], q["row"]),
        "trace": lambda q: explorer.trace(q["table"], q["trace"], q.get("source", "")),
        "histogram": lambda q: explorer.histogram(q["table"], q["column"], _filters(q)),
        "scatter": lambda q: explorer.scatter(q["table"], q["x"], q["y"], _filters(q)),
        "export": export,
    }
    routes = [Route(f"/api/{name}", answer(ask)) for name, ask in asks.items()]
    routes += [Route("/", _static("view.html", "text/html"))]
    routes += [Route("/view.js", _static("view.js", "text/javascript"))]
    routes += [Route("/view.css", _static("view.css", "text/css"))]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(BaseHTTPMiddleware, dispatch=_guard),
    ]
    app = Starlette(routes=routes, middleware=middleware, lifespan=lifespan)
    app.state.explorer = explorer
    return app


async def _guard(request: Request, call_next: Any) -> Response:
    """Other sites that the browser shows cannot ask; no answer is cached, framed or run as a script."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return Response("requested by another site", 403)
    response: Response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _static(name: str, kind: str) -> Callable[[Request], Response]:
    text = (files(__package__) / name).read_text("utf-8")
    if name.endswith(".css"):
        text = (files("ssdfast.report") / "page.css").read_text("utf-8") + text
    return lambda request: Response(text, media_type=kind)


def _filters(q: Any) -> list[Filter]:
    """The filters of a request: a JSON list of [column, operator, value]. Raises ValueError for anything else."""
    try:
        values = json.loads(q.get("filters", "[]"))
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not all(isinstance(item, list) and len(item) == 3 for item in values):
        raise ValueError("filters must be a JSON list of [column, operator, value]")
    return [(str(column), str(operator), str(value)) for column, operator, value in values]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"offset must be a whole number, not {text!r}")
    return int(text)


def _inert(value: Any) -> Any:
    """Nothing in it hides or reorders its surroundings."""
    if isinstance(value, str):
        return inert(value, 50 * MAX_TEXT)
    if isinstance(value, list | tuple):
        return [_inert(item) for item in value]
    if isinstance(value, dict):
        return {inert(key): _inert(item) for key, item in value.items()}
    return value


def _page_of_rows(table: pa.Table, name: str) -> Response:
    """A page that needs neither the server nor a script."""
    style = (files("ssdfast.report") / "page.css").read_text("utf-8")

    def cell(value: Any) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
        return html.escape(inert(text, MAX_TEXT))

    head = "".join(f"<th>{cell(column)}</th>" for column in table.column_names)
    body = "".join(f"<tr>{''.join(f'<td>{cell(v)}</td>' for v in row.values())}</tr>" for row in table.to_pylist())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"'
        f' content="{_EXPORTED_POLICY}"><title>{cell(name)} – ssdfast</title><style>{style}</style></head>'
        f"<body><main><h1>{cell(name)}</h1><p>{table.num_rows:,} rows</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></main></body></html>"
    )
    disposition = {"Content-Disposition": 'attachment; filename="selection.html"'}
    return HTMLResponse(page, headers=disposition | {"Content-Security-Policy": _EXPORTED_POLICY})
