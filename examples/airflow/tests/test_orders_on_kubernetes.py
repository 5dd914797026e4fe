"""The DAG of pods: what Airflow asks Kubernetes for, and what it makes of how a pod ends."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes.client import ApiClient

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy" / "eks" / "check"))
import chart

KUBERNETES = ("1.30", "1.34")
HOUR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def dag(anew):
    return anew("orders_on_kubernetes")


# --- the pod ----------------------------------------------------------------------------------------------------------------


def built(dag, task_id):
    """The pod that the task of the first hour would make, as Kubernetes would get it."""
    operator = dag.task_dict[task_id]
    operator.render_template_fields({"data_interval_start": HOUR, "data_interval_end": HOUR + timedelta(hours=1)})
    return ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(dry_run=True))


@pytest.fixture
def release():
    """The pod of the chart, by the clock, with the names that the DAG has."""
    return chart.objects(chart.CLOCK | {"image": {"repository": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/stream"}}, name="orders")


def the(kind, release):
    (found,) = [each for each in release if each["kind"] == kind]
    return found


def template(release):
    return the("CronJob", release)["spec"]["jobTemplate"]["spec"]["template"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("task_id", ["read", "verify"])
def test_kubernetes_knows_every_field(dag, tmp_path, task_id, version):
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(built(dag, task_id)))
    command = [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "-k", version, tmp_path / "pod.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("task_id", ["read", "verify"])
def test_no_container_can_do_more_than_that_of_the_chart(dag, release, task_id):
    made, like = built(dag, task_id)["spec"], template(release)["spec"]
    (worker,) = like["containers"]
    for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "restartPolicy", "terminationGracePeriodSeconds"):
        assert made[key] == like[key], key
    assert [each["securityContext"] for each in made["containers"]] == [worker["securityContext"]] * len(made["containers"])
    for key in ("image", "resources", "volumeMounts"):
        assert [each for each in worker[key] if each not in made["containers"][0][key]] == [], key
    assert made["containers"][0]["image"] == worker["image"]
    assert [each for each in like["volumes"] if each not in made["volumes"]] == []
    assert {each["name"] for each in made["volumes"]} <= {"pipeline", "tmp", "xcom"}


def test_the_environment_is_that_of_the_chart(dag, release):
    made = {each["name"]: each for each in built(dag, "read")["spec"]["containers"][0]["env"]}
    like = {each["name"]: each for each in template(release)["spec"]["containers"][0]["env"]}
    assert made.pop("HOUR")["value"] == "2026/01/01/00"
    assert made == {name: each for name, each in like.items() if name not in {"POD_NAME", "HOST_IP"}}


def test_the_network_policy_of_the_release_holds_for_the_pods(dag, release):
    selector = the("NetworkPolicy", release)["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= built(dag, "read")["metadata"]["labels"].items()


def test_the_result_goes_where_airflow_looks_for_it(dag):
    made = built(dag, "read")["spec"]
    base, sidecar = made["containers"]
    assert base["args"][:6] == [
        "backfill",
        "/etc/stream/pipeline.yaml",
        "--from",
        "2026-01-01T00:00:00+00:00",
        "--to",
        "2026-01-01T01:00:00+00:00",
    ]
    assert "--result=/airflow/xcom/return.json" in base["args"]
    for each in (base, sidecar):
        assert {"name": "xcom", "mountPath": "/airflow/xcom"} in each["volumeMounts"]
    assert len(built(dag, "verify")["spec"]["containers"]) == 1


def test_the_command_is_one_that_stream_understands(dag, tmp_path):
    (tmp_path / "pipeline.yaml").write_text("application: orders\n")
    for task_id in ("read", "verify"):
        words = [each.replace("$(STREAM_THREADS)", "1") for each in built(dag, task_id)["spec"]["containers"][0]["args"]]
        words = [each.replace("/etc/stream", str(tmp_path)).replace("/airflow/xcom", str(tmp_path)) for each in words]
        done = subprocess.run(["stream", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, "source" in done.stderr) == (2, True), done.stderr


# --- how it ends ------------------------------------------------------------------------------------------------------------


class Cluster(ThreadingHTTPServer):
    """The part of the API of Kubernetes that pods need, one after the other. Each ends as soon as it is made, with the next exit code."""

    daemon_threads = True

    def __init__(self, exit_codes):
        super().__init__(("127.0.0.1", 0), Call)
        self.exit_codes = list(exit_codes)
        self.pods = {}
        self.made = 0

    def make(self, pod):
        code = self.exit_codes.pop(0)
        (container,) = pod["spec"]["containers"]
        terminated = {"exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
        status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
        pod["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [status | {"state": {"terminated": terminated}}],
        }
        self.made += 1
        self.pods[pod["metadata"]["name"]] = pod
        return pod

    def answer(self, method, path, body):
        *_, kind, name, part = [*urlsplit(path).path.split("/")[5:], "", ""][:3]
        if kind == "events" or (kind == "pods" and not name and method == "GET"):
            found = [each for each in self.pods.values() if all(holds(term, each["metadata"]["labels"]) for term in chosen(path))]
            return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found if kind == "pods" else []}
        if method == "POST":
            return self.make(body)
        if part == "log":
            return "drained\n"
        if method == "DELETE":
            return self.pods.pop(name)
        if method == "PATCH":
            self.pods[name]["metadata"]["labels"] |= body["metadata"]["labels"]
        return self.pods[name]


def chosen(path):
    return [each for text in parse_qs(urlsplit(path).query).get("labelSelector", []) for each in text.split(",")]


def holds(term, labels):
    """Whether ``labels`` meet one term of a label selector."""
    name, unequal, value = term.partition("!=")
    if unequal:
        return labels.get(name) != value
    name, equal, value = term.partition("=")
    if equal:
        return labels.get(name) == value
    return name.removeprefix("!") not in labels if name.startswith("!") else name in labels


class Call(BaseHTTPRequestHandler):
    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        made = self.server.answer(self.command, self.path, json.loads(body) if body else None)
        answer = made.encode() if isinstance(made, str) else json.dumps(made).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if isinstance(made, str) else "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815 - names that http.server wants

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path):
    """Starts a cluster whose pods end with given exit codes; the path of its kubeconfig is its ``config``."""
    started = []

    def start(*exit_codes):
        made = Cluster(exit_codes)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        started.append(made)
        made.config = tmp_path / "kubeconfig"
        given = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{made.server_port}"}}],
            "users": [{"name": "me", "user": {}}],
        }
        made.config.write_text(yaml.safe_dump(given))
        return made

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.mark.parametrize(
    ("task_id", "exit_codes", "state", "tries"),
    [
        ("read", [0], "success", 1),
        ("read", [2], "failed", 1),
        ("read", [1, 137, 0], "success", 3),
        ("verify", [1], "failed", 1),
        ("verify", [2, 0], "success", 2),
    ],
)
def test_only_exit_codes_that_may_pass_are_tried_again(dag, cluster, task_id, exit_codes, state, tries):
    here, operator = cluster(*exit_codes), dag.task_dict[task_id]
    operator.config_file = str(here.config)
    # The result is fetched by a WebSocket into the sidecar, which is Airflow's own matter.
    operator.do_xcom_push = False
    # Here tries share one process, and the operator remembers the pod that it made.
    operator.on_retry_callback = [lambda _: vars(operator).update(pod=None, remote_pod=None, pod_request_obj=None)]
    others = "|".join(set(dag.task_dict) - {task_id})
    done = dag.test(logical_date=HOUR + timedelta(hours=1), mark_success_pattern=others)
    (found,) = [each for each in done.get_task_instances() if each.task_id == task_id]
    assert (str(found.state), found.try_number, here.made, here.exit_codes) == (state, tries, tries, [])
    assert [each["status"]["phase"] for each in here.pods.values()] == ["Failed"] * sum(code != 0 for code in exit_codes)
