"""A server on this machine that answers wandb's client as far as syncing runs and saving workspaces need it, and remembers."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4


class Server(ThreadingHTTPServer):
    """Runs by id with their attributes, history rows and summary; views by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []

    def graphql(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query."""
        self.requests.append(query.split("(")[0].split("{")[0].strip())
        if "upsertBucket" in query:
            run = self.runs.setdefault(values["name"], {"history": [], "summary": {}})
            run |= {name: value for name, value in values.items() if value is not None and name not in ("project", "entity")}
            project = {"id": "p", "name": values["project"], "entity": {"id": "e", "name": "somebody"}}
            bucket = {"id": values["name"], "name": values["name"], "displayName": run.get("displayName"), "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0, "sweepName": None}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in values["files"]]
            return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            view = self.views.setdefault(values["name"], {"id": f"view{len(self.views)}"})
            view |= {"displayName": values["displayName"], "spec": values["spec"], "entity": values["entityName"]}
            return {"upsertView": {"view": {"id": view["id"], "name": values["name"]}, "inserted": "id" not in values}}
        if "allViews" in query:
            found = [{"node": self.views[values["viewName"]]}] if values["viewName"] in self.views else []
            return {"project": {"allViews": {"edges": found}}}
        return {"viewer": {"id": "u", "entity": "somebody", "username": "somebody", "flags": "{}", "teams": {"edges": []}}}

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Rows that replace those from their offset on, and the last summary."""
        if rows := files.get("wandb-history.jsonl"):
            self.runs[run]["history"][rows["offset"] :] = map(json.loads, rows["content"])
        if summary := files.get("wandb-summary.json"):
            self.runs[run]["summary"] = json.loads(summary["content"][-1])


class Handler(BaseHTTPRequestHandler):
    """Takes the requests apart."""

    server: Server

    def do_POST(self) -> None:
        """GraphQL, the stream of a run's rows, and what is uploaded."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.server.graphql(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


@contextmanager
def wandb_server() -> Iterator[Server]:
    """A server that listens as long as the block runs."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
