"""A Kubernetes API server, as far as runs need one: a Job that is created is run, as a process with a HOME of its own.

It says what a real one would of Jobs and pods, to whoever has the Role that is shipped; anything else is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

import orders_pipeline
from orders_pipeline_tests.support.commands import environment_of
from orders_pipeline_tests.support.threaded_server import answering

NAMESPACE = "default"
PROGRAM = "dagster"  # what the image has on its path
PATH = re.compile(rf"/(?:apis/batch|api)/v1/namespaces/{NAMESPACE}/(jobs|pods|events)(?:/([\w-]+))?(/status|/log)?")
ROLE = Path(orders_pipeline.__file__).parent / "deployment" / "kubernetes" / "accounts.yaml"
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}


@dataclass
class Job:
    """A Job that was created, and the process that is its only pod."""

    manifest: dict[str, Any]
    home: Path
    process: subprocess.Popen[bytes]
    is_deleted: bool = False

    def status(self) -> dict[str, int]:
        code = self.process.poll()
        return {"active": 1} if code is None else {"failed": 1} if code else {"succeeded": 1}

    def pod(self) -> dict[str, Any]:
        phase = {"active": "Running", "failed": "Failed", "succeeded": "Succeeded"}[next(iter(self.status()))]
        spec = self.manifest["spec"]["template"]["spec"]
        return {"metadata": {"name": f"{self.manifest['metadata']['name']}-pod"}, "spec": spec, "status": {"phase": phase}}

    def delete(self) -> None:
        """Tell the pod to end, once: who deletes a Job deletes its pod too."""
        if not self.is_deleted:
            self.is_deleted = True
            self.process.terminate()

    def lose(self) -> None:
        """Let the pod vanish at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class ApiServer:
    """The server, what is in its Secret `orders-pipeline`, and the Jobs that it was asked for."""

    folder: Path
    secret: Mapping[str, str] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, object]:
        """Return the status and the object of an answer."""
        found = PATH.fullmatch(path)
        if found is None or not may(method, found[1] + (found[3] or ""), has_name=found[2] is not None):
            self.refused.append(f"{method} {path}")
            return 403, {"kind": "Status", "code": 403}
        if found[1] == "jobs":
            return self._job(method, found[2], body)
        if found[1] == "pods":
            return self._pod(method, found[2], query, is_log=found[3] is not None)
        return 200, {"kind": "EventList", "items": []}

    def _job(self, method: str, name: str | None, body: bytes) -> tuple[int, object]:
        if method == "POST":
            manifest = json.loads(body)
            self.jobs[manifest["metadata"]["name"]] = self._run(manifest)
            return 201, manifest
        if name is None:
            return 200, {"kind": "JobList", "items": [job.manifest for job in self.jobs.values()]}
        job = self.jobs.get(name)
        if job is None:
            return 404, {"kind": "Status", "code": 404}
        if method == "DELETE":
            job.delete()
        return 200, job.manifest | {"status": job.status()}

    def _pod(self, method: str, name: str | None, query: dict[str, list[str]], *, is_log: bool) -> tuple[int, object]:
        if is_log:
            return 200, ""
        if name is None:
            ((key, wanted),) = (each[0].split("=") for each in query.values() if "=" in each[0])
            assert key in ("job-name", "metadata.name")
            return 200, {"kind": "PodList", "items": [self.jobs[wanted.removesuffix("-pod")].pod()]}
        job = self.jobs[name.removesuffix("-pod")]
        if method == "DELETE":
            job.delete()
        return 200, job.pod()

    def _run(self, manifest: dict[str, Any]) -> Job:
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        names = [(source.get("secretRef") or source["configMapRef"])["name"] for source in container["envFrom"]]
        assert names == ["orders-pipeline", "orders-pipeline"]
        home = self.folder / manifest["metadata"]["name"]
        home.mkdir()
        # its own file system: of the daemon's nothing is there
        given = {each["name"]: each.get("value", "") for each in container["env"]}
        own = {"ORDERS_HOME": str(home), "DAGSTER_HOME": str(home / "nothing")}
        program, *arguments = container["args"]
        assert program == PROGRAM
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", program, *arguments],
                env=environment_of({**self.secret, **given, **own}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Job(manifest, home, process)


def may(method: str, resource: str, *, has_name: bool) -> bool:
    """Return whether the daemon's Role lets it do this."""
    verb = "list" if method == "GET" and not has_name else VERBS[method]
    (role,) = (each for each in yaml.safe_load_all(ROLE.read_text("utf-8")) if each["kind"] == "Role")
    return any(resource in rule["resources"] and verb in rule["verbs"] for rule in role["rules"])


def write_kubeconfig(path: Path, url: str) -> None:
    """Write how a server is reached from outside of its cluster."""
    clusters = [{"name": "c", "cluster": {"server": url}}]
    contexts = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    users: list[dict[str, Any]] = [{"name": "u", "user": {}}]
    known = {"current-context": "c", "clusters": clusters, "contexts": contexts, "users": users}
    path.write_text(yaml.safe_dump(known))


@contextlib.contextmanager
def open_api_server(folder: Path) -> Iterator[ApiServer]:
    """Run a server, and end its Jobs with it."""
    folder.mkdir()
    api = ApiServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            asked = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = api.answer(self.command, unquote(asked.path), parse_qs(asked.query), body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names the base class calls

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with answering(server):
        api.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield api
        finally:
            for job in api.jobs.values():
                job.lose()
                job.process.wait(20)
