"""A stub of the Kubeflow Pipelines API (v2beta1) that holds requests to what the real one accepts.

Bodies are read by the client's own models, with their validation. An uploaded specification has to pass what the API
server checks (backend/src/apiserver/template/v2_template.go) and what its compiler can make a workflow of
(backend/src/v2/compiler/visitor.go).
"""

import contextlib
import email
import email.policy
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

NOW = "2026-01-02T03:04:05Z"
PREFIX = "/apis/v2beta1"


class RefusedError(Exception):
    """An answer that is not a success: its status and its message."""


@dataclass
class State:
    """What the API has been given, and how its runs go.

    Attributes:
        pipelines: name by id.
        versions: by pipeline's id, the ids of the versions in the order of their upload.
        packages: uploaded documents by version's id.
        experiments: name by id.
        runs: as the client asked for them, by id.
        course: by each look at a run, its state and those of its tasks; the last one stays.
        outage: looks at a run that fail, before others.
        tokens: Authorization headers that were sent.
    """

    pipelines: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)
    packages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, kfp_server_api.V2beta1Run] = field(default_factory=dict)
    course: list[dict[str, str]] = field(default_factory=lambda: [{"run": "SUCCEEDED"}])
    looks: int = 0
    outage: int = 0
    tokens: set[str] = field(default_factory=set)


def check_package(text: str) -> list[dict[str, Any]]:
    """Read a specification as the API server does; return its documents."""
    documents = list(yaml.safe_load_all(text))
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())  # unknown fields are refused
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    if spec.schema_version != "2.1.0":
        raise RefusedError(
            400, f"KFP only supports schema version 2.1.0, but the pipeline spec has {spec.schema_version}"
        )
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", spec.pipeline_info.name):
        raise RefusedError(400, f"invalid name {spec.pipeline_info.name}")
    executors = documents[0]["deploymentSpec"]["executors"]
    for task in spec.root.dag.tasks.values():
        executor = executors[spec.components[task.component_ref.name].executor_label]
        if not {"container", "importer"} & set(executor):
            raise RefusedError(400, "non-container and non-importer executor not implemented")
    return documents


class Handler(BaseHTTPRequestHandler):
    state: ClassVar[State]

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.tokens.add(self.headers.get("Authorization", ""))
        try:
            status, answer = 200, self._route(self.command, address.path.removeprefix(PREFIX), query, body)
        except RefusedError as refusal:
            status, answer = refusal.args[0], {"error_message": refusal.args[1]}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _route(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        state = self.state
        if (method, path) == ("GET", "/healthz"):
            return {"multi_user": False}
        if (method, path) == ("GET", "/pipelines"):
            wanted = named(query)
            return {"pipelines": [pipeline(i, name) for i, name in state.pipelines.items() if wanted in (None, name)]}
        if (method, path) == ("POST", "/pipelines/upload"):
            documents = check_package(self._file(body))
            if query["name"] in state.pipelines.values():
                raise RefusedError(409, "already exists")
            pipeline_id = str(uuid.uuid4())
            state.pipelines[pipeline_id] = query["name"]
            self._add_version(pipeline_id, documents)
            return pipeline(pipeline_id, query["name"])
        if (method, path) == ("POST", "/pipelines/upload_version"):
            version_id = self._add_version(query["pipelineid"], check_package(self._file(body)))
            return version(query["pipelineid"], version_id) | {"display_name": query["name"]}
        if match := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
            ids = reversed(state.versions[match[1]]) if "desc" in query.get("sort_by", "") else state.versions[match[1]]
            return {"pipeline_versions": [version(match[1], version_id) for version_id in ids]}
        if match := re.fullmatch(r"/pipelines/([^/]+)/versions/([^/]+)", path):
            if method == "GET":
                specification, platform = state.packages[match[2]]
                both = {"pipeline_spec": specification, "platform_spec": platform}
                return version(match[1], match[2]) | {"pipeline_spec": both}
            state.versions[match[1]].remove(match[2])
            return {}
        if (match := re.fullmatch(r"/pipelines/([^/]+)", path)) and method == "DELETE":
            if state.versions.pop(match[1]):
                raise RefusedError(400, "a pipeline that has versions is not deleted")
            del state.pipelines[match[1]]
            return {}
        if (method, path) == ("GET", "/experiments"):
            wanted = named(query)
            return {
                "experiments": [experiment(i, name) for i, name in state.experiments.items() if wanted in (None, name)]
            }
        if (method, path) == ("POST", "/experiments"):
            asked = read(body, "V2beta1Experiment")
            experiment_id = str(uuid.uuid4())
            state.experiments[experiment_id] = asked.display_name
            return experiment(experiment_id, asked.display_name)
        if (method, path) == ("POST", "/runs"):
            asked = read(body, "V2beta1Run")
            reference = asked.pipeline_version_reference
            if asked.experiment_id not in state.experiments:
                raise RefusedError(404, f"no experiment {asked.experiment_id}")
            if reference.pipeline_version_id not in state.versions.get(reference.pipeline_id, ()):
                raise RefusedError(404, f"no version {reference.pipeline_version_id}")
            run_id = str(uuid.uuid4())
            state.runs[run_id] = asked
            return {"run_id": run_id, "display_name": asked.display_name, "state": "PENDING", "created_at": NOW}
        if (method, path) == ("GET", "/runs"):
            return {"runs": [self._run(run_id) for run_id in state.runs]}
        if match := re.fullmatch(r"/runs/([^/:]+)(:terminate)?", path):
            if match[1] not in state.runs:
                raise RefusedError(404, f"no run {match[1]}")
            if method == "DELETE":
                del state.runs[match[1]]
                return {}
            return {} if match[2] else self._run(match[1])
        raise RefusedError(404, f"{method} {path}")

    def _file(self, body: bytes) -> str:
        """The uploaded file of a multipart form."""
        header = f"Content-Type: {self.headers['Content-Type']}\n\n"
        message = email.message_from_bytes(header.encode() + body, policy=email.policy.default)
        (part,) = message.iter_parts()
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        content = part.get_content()
        return content if isinstance(content, str) else content.decode()

    def _add_version(self, pipeline_id: str, documents: list[dict[str, Any]]) -> str:
        version_id = str(uuid.uuid4())
        self.state.versions.setdefault(pipeline_id, []).append(version_id)
        self.state.packages[version_id] = documents
        return version_id

    def _run(self, run_id: str) -> dict[str, Any]:
        state = self.state
        if state.outage:
            state.outage -= 1
            raise RefusedError(503, "no upstream")
        now = state.course[min(state.looks, len(state.course) - 1)]
        state.looks += 1
        tasks: list[dict[str, Any]] = [
            {"task_id": name, "display_name": name, "state": now[name]} for name in now if name != "run"
        ]
        for task in tasks:
            if task["state"] == "FAILED":
                task["error"] = {"code": 2, "message": f"{task['display_name']} broke"}
        display_name = state.runs[run_id].display_name
        return {
            "run_id": run_id,
            "display_name": display_name,
            "state": now["run"],
            "run_details": {"task_details": tasks},
        }


def read(body: bytes, model: str) -> Any:
    """A request's body as the client's own model, which refuses what is not allowed."""

    class Response:
        data = body.decode()

    return kfp_server_api.ApiClient().deserialize(Response(), model)


def named(query: dict[str, str]) -> str | None:
    """The name that a list is filtered by, None for no filter."""
    predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
    names = [predicate.get("stringValue") or predicate.get("string_value") for predicate in predicates]
    return next((name for name in names if name), None)


def pipeline(pipeline_id: str, name: str) -> dict[str, str]:
    return {"pipeline_id": pipeline_id, "name": name, "display_name": name, "created_at": NOW}


def version(pipeline_id: str, version_id: str) -> dict[str, Any]:
    return {"pipeline_id": pipeline_id, "pipeline_version_id": version_id, "created_at": NOW}


def experiment(experiment_id: str, name: str) -> dict[str, str]:
    return {"experiment_id": experiment_id, "display_name": name, "created_at": NOW}


@contextlib.contextmanager
def serving(state: State):
    """Serve the stub; yield its address."""
    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
