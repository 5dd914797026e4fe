"""What a release consists of, what is refused, and that every object is what Kubernetes, KEDA and Prometheus Operator understand."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import helm_python
import pytest
import yaml
from typer.testing import CliRunner

from stream.cli.main import app
from stream.cli.run import EXIT_DEFINITION
from stream.metrics.catalog import CATALOG
from stream.pipeline.checks.lint import check

sys.path.insert(0, str(Path(__file__).parent))
from chart import (
    ALL,
    ALL_BY_CLOCK,
    CHART,
    CLOCK,
    FLEET,
    IRSA,
    LOCAL,
    MATRIX,
    NATIVE,
    ROOT,
    SCALED,
    leaves,
    notes,
    objects,
    one,
    pod,
    template,
    text,
    values,
    with_files,
    worker,
)

BIN = Path(sys.executable).parent
MODELS = ROOT / ".make" / "chart"
CUSTOM = ("ScaledObject", "PodMonitor", "PrometheusRule")
KUBERNETES = ("1.30", "1.34")
matrix = pytest.mark.parametrize("over", MATRIX.values(), ids=MATRIX)


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    return done.returncode, done.stdout + done.stderr


# --- by other people's tools ------------------------------------------------------------------------------------------------


@matrix
def test_helm_lint_finds_nothing(over):
    report = helm_python.lint(str(CHART), values(over), strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if "icon is recommended" not in each["error"]] == []


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Every value set's objects, in one file each: those of Kubernetes itself, and those of others."""
    folder = tmp_path_factory.mktemp("rendered")
    chart = with_files(folder)
    for name, over in MATRIX.items():
        made = objects(over, chart)
        core = [each for each in made if each["kind"] not in CUSTOM]
        (folder / f"{name.replace(' ', '-')}.yaml").write_text(yaml.safe_dump_all(core))
        (folder / f"{name.replace(' ', '-')}.json").write_text(json.dumps([each for each in made if each["kind"] in CUSTOM]))
    return folder


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(rendered, version):
    code, told = run(BIN / "kubernetes-validate", "--strict", "-k", version, *sorted(rendered.glob("*.yaml")))
    assert code == 0, told
    assert "find schema" not in told


def test_the_validation_bites(tmp_path):
    wrong = text({}).replace("minReadySeconds", "minReadySecond")
    (tmp_path / "wrong.yaml").write_text(wrong)
    assert run(BIN / "kubernetes-validate", "--strict", "-k", KUBERNETES[0], tmp_path / "wrong.yaml")[0] != 0


def by_models(folder, made):
    code, told = run("node", "crds.mjs", folder / "objects.ts", cwd=MODELS, input=json.dumps(made))
    if code:
        return told
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "preserve", "--moduleResolution", "bundler"]
    typed = MODELS / f"{folder.name}.ts"
    typed.write_bytes((folder / "objects.ts").read_bytes())
    try:
        code, told = run(MODELS / "node_modules" / ".bin" / "tsc", *options, typed, cwd=MODELS)
    finally:
        typed.unlink()
    return told if code else ""


def test_keda_and_prometheus_operator_know_every_field(rendered):
    made = [each for path in sorted(rendered.glob("*.json")) for each in json.loads(path.read_text())]
    assert {each["kind"] for each in made} == set(CUSTOM)
    assert by_models(rendered, made) == ""


@pytest.mark.parametrize(
    ("kind", "spoil", "told"),
    [
        ("ScaledObject", lambda spec: spec.update(pollingIntervall=1), "pollingIntervall"),
        ("ScaledObject", lambda spec: spec["scaleTargetRef"].pop("name"), "must have required property name"),
        ("PodMonitor", lambda spec: spec["podMetricsEndpoints"][0].update(interval="often"), "interval"),
    ],
)
def test_the_models_bite(tmp_path, kind, spoil, told):
    wrong = one(kind, ALL)
    spoil(wrong["spec"])
    assert told in by_models(tmp_path, [wrong])


def test_trivy_finds_nothing_but_what_is_accepted(rendered):
    trivy = [BIN / "trivy", "config", "--skip-check-update", "--skip-version-check", "--quiet", "--exit-code", "1"]
    code, told = run(*trivy, "--ignorefile", Path(__file__).with_name("trivyignore"), rendered)
    assert code == 0, told


# --- the pod ----------------------------------------------------------------------------------------------------------------


@matrix
def test_no_container_can_do_more_than_it_needs(over):
    spec = pod(over)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for each in [*spec["containers"], *spec.get("initContainers", [])]:
        context = each["securityContext"]
        assert context["runAsUser"] > 10000
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"], context["privileged"]) == (True, False, False)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_rollout_never_adds_a_pod_and_stops_one_at_a_time():
    made = one("Deployment", FLEET)["spec"]
    assert made["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_probes_ask_the_process_and_nothing_else():
    made = worker({})
    assert {name: made[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "startupProbe": "/healthz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",
    }


@matrix
def test_the_command_is_one_that_the_worker_understands(over, tmp_path):
    (tmp_path / "pipeline.yaml").write_text("application: flights\n")
    arguments = [each.replace("$(STREAM_THREADS)", "2").replace("/etc/stream", str(tmp_path)) for each in worker(over)["args"]]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, "source" in done.output) == (2, True), done.output


def test_every_pool_of_threads_is_as_large_as_the_request_of_cpu():
    made = {each["name"]: each for each in worker({})["env"]}
    for name in ("STREAM_THREADS", "OMP_NUM_THREADS", "TOKIO_WORKER_THREADS"):
        assert made[name]["valueFrom"]["resourceFieldRef"] == {"resource": "requests.cpu", "divisor": "1"}
    assert "--threads=$(STREAM_THREADS)" in worker({})["args"]


def test_the_role_of_the_node_is_out_of_reach():
    assert {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"} in worker({})["env"]


def test_a_variable_that_another_one_uses_comes_after_it():
    names = [each["name"] for each in worker(ALL)["env"]]
    assert names.index("HOST_IP") < names.index("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert len(names) == len(set(names))


def test_the_preflight_sees_what_the_worker_sees():
    (preflight,) = pod(ALL)["initContainers"]
    made = worker(ALL)
    assert preflight["args"] == ["doctor", "/etc/stream/pipeline.yaml"]
    assert preflight["env"][0] == {"name": "STREAM_SERVICE_ACCOUNT", "value": "prod:flights-kinesis"}
    assert preflight["env"][1:] == made["env"]
    assert [preflight[key] for key in ("image", "envFrom", "volumeMounts")] == [made[key] for key in ("image", "envFrom", "volumeMounts")]
    assert "initContainers" not in pod({})


def test_an_image_by_digest_has_no_tag():
    assert worker(ALL)["image"] == "registry.example.com/stream@sha256:" + "0" * 64
    assert worker({})["image"] == "registry.example.com/stream:0.1.0"
    assert worker({"image": {"tag": "1.2"}})["image"] == "registry.example.com/stream:1.2"


def test_the_version_of_the_chart_is_that_of_the_package():
    code, told = run(sys.executable, "-m", "stream", "--version", cwd=ROOT)
    assert (code, told.strip()) == (0, yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


# --- the pipeline file ------------------------------------------------------------------------------------------------------


@matrix
def test_what_is_mounted_is_what_was_given(over):
    mounted = next(each for each in pod(over)["volumes"] if each["name"] == "pipeline")["configMap"]["name"]
    made = {each["metadata"]["name"]: each["data"] for each in objects(over) if each["kind"] == "ConfigMap"}
    given = values(over)["pipeline"]
    if given.get("existingConfigMap"):
        assert (mounted, made) == ("mine", {})
        return
    assert made[mounted] == {"pipeline.yaml": given["file"], **given.get("files", {})}


def test_the_mounted_file_is_a_pipeline(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(one("ConfigMap", {})["data"]["pipeline.yaml"])
    assert check(tmp_path / "pipeline.yaml", {"MASK_KEY": "any"}).pipeline is not None


def checksum(over):
    return template(over)["metadata"]["annotations"]["checksum/pipeline"]


def test_a_change_of_the_pipeline_rolls_the_pods_and_nothing_else_does():
    assert checksum({}) == checksum({"replicas": 0, "env": {"A": "b"}})
    others = [{"pipeline": {"file": LOCAL + "\n# note\n"}}, {"pipeline": {"files": {"a.csv": "x"}}}]
    assert len({checksum({}), *map(checksum, others)}) == 3


# --- scheduled runs ---------------------------------------------------------------------------------------------------------


def test_a_schedule_makes_runs_in_place_of_workers_that_stay():
    kinds = {each["kind"] for each in objects(CLOCK)}
    assert kinds == {"ConfigMap", "CronJob", "NetworkPolicy", "ServiceAccount"}
    made = one("CronJob", CLOCK)["spec"]
    assert (made["schedule"], made["timeZone"]) == ("30 2 * * 1-5", "Europe/Berlin")
    assert (made["concurrencyPolicy"], made["suspend"]) == ("Forbid", False)
    assert one("CronJob", CLOCK | {"replicas": 0})["spec"]["suspend"] is True


def test_attempts_and_deadline_are_those_of_the_job():
    made = one("CronJob", CLOCK)["spec"]["jobTemplate"]["spec"]
    assert (made["backoffLimit"], made["activeDeadlineSeconds"]) == (4, 3600)
    assert "activeDeadlineSeconds" not in one("CronJob", {"schedule": {"cron": "@daily"}})["spec"]["jobTemplate"]["spec"]


@pytest.mark.parametrize("over", [CLOCK, ALL_BY_CLOCK])
def test_a_wrong_definition_fails_at_once_and_a_drained_node_costs_no_attempt(over):
    rules = one("CronJob", over)["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    named = [each["onExitCodes"].pop("containerName") for each in rules if "onExitCodes" in each]
    assert set(named) == {each["name"] for each in [*pod(over)["containers"], *pod(over).get("initContainers", [])]}
    failing, ignoring = rules[:-1], rules[-1]
    assert failing == [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [EXIT_DEFINITION]}}] * len(named)
    assert ignoring == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert pod(over)["restartPolicy"] == "Never"


@pytest.mark.parametrize("command", [["run"], ["doctor"]])
def test_a_wrong_definition_has_the_exit_code_that_the_policy_names(tmp_path, command):
    (tmp_path / "pipeline.yaml").write_text(LOCAL.replace("source:", "sauce:"))
    assert CliRunner().invoke(app, [*command, str(tmp_path / "pipeline.yaml")], env={"MASK_KEY": "any"}).exit_code == EXIT_DEFINITION


def test_the_pod_of_a_run_is_that_of_a_worker_but_for_what_only_one_that_stays_needs():
    without = {key: value for key, value in ALL_BY_CLOCK.items() if key != "schedule"}
    run, stays = pod(ALL_BY_CLOCK), pod(without)
    assert template(ALL_BY_CLOCK)["metadata"] == template(without)["metadata"]
    assert (run.pop("restartPolicy"), len(stays.pop("topologySpreadConstraints"))) == ("Never", 2)
    assert stays["containers"][0].pop("readinessProbe")
    arguments = run["containers"][0].pop("args")
    assert [each for each in arguments if each not in stays["containers"][0]["args"]] == ["--once", "--result=-"]
    assert [each for each in stays["containers"][0].pop("args") if each not in arguments] == []
    assert run == stays


@pytest.mark.parametrize(
    ("over", "told", "untold"),
    [
        ({}, ["runs the pipeline.", "rollout status deployment/flights-stream"], ["job"]),
        (CLOCK, ["at 30 2 * * 1-5 (Europe/Berlin).", "create job --from=cronjob/flights-stream flights-stream-now"], ["deployment"]),
        (CLOCK | {"replicas": 0}, ["but is suspended: set replicas to 1."], ["deployment"]),
    ],
)
def test_the_notes_say_how_to_look_on(over, told, untold):
    made = notes(over)
    assert [each for each in told if each not in made] == []
    assert [each for each in untold if each in made] == []


# --- the rest ---------------------------------------------------------------------------------------------------------------


@matrix
def test_all_selectors_find_the_pods(over):
    made = objects(over)
    labels = template(over)["metadata"]["labels"]
    selectors = [
        each["spec"]["selector"]["matchLabels"] for each in made if each["kind"] in {"Deployment", "PodDisruptionBudget", "PodMonitor"}
    ]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in made if each["kind"] == "NetworkPolicy"]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod(over).get("topologySpreadConstraints", [])]
    assert len(selectors) >= 1
    assert [each for each in selectors if not each.items() <= labels.items()] == []


@matrix
def test_the_service_account_that_is_used_is_the_one_that_is_made(over):
    made = [each["metadata"]["name"] for each in objects(over) if each["kind"] == "ServiceAccount"]
    assert made in ([pod(over)["serviceAccountName"]], [])
    assert bool(made) == values(over).get("serviceAccount", {}).get("create", True)


def test_the_role_is_named_only_where_the_token_is_exchanged_for_it():
    assert not one("ServiceAccount", {})["metadata"].get("annotations")
    assert one("ServiceAccount", IRSA)["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/flights",
        "eks.amazonaws.com/audience": "sts.amazonaws.com",
        "eks.amazonaws.com/sts-regional-endpoints": "true",
        "eks.amazonaws.com/token-expiration": "3600",
    }


def blocks(over, port):
    rules = [each for each in one("NetworkPolicy", over)["spec"]["egress"] if port in {entry["port"] for entry in each["ports"]}]
    return [peer["ipBlock"]["cidr"] for each in rules for peer in each.get("to", []) if "ipBlock" in peer]


def test_the_network_policy_lets_credentials_through():
    assert blocks({}, 80) == ["169.254.170.23/32", "fd00:ec2::23/128"]
    assert blocks(IRSA, 80) == []
    assert blocks(ALL, 443) == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://$(HOST_IP):4318", 4318),
        ("https://c.example.com", 443),
        ("https://c.example.com:8443/otlp", 8443),
        ("http://c.example.com/v1", 80),
    ],
)
def test_the_network_policy_lets_the_collector_be_reached(endpoint, port):
    egress = one("NetworkPolicy", {"collector": {"endpoint": endpoint}} | IRSA)["spec"]["egress"]
    assert {"ports": [{"protocol": "TCP", "port": port}]} in egress


def test_only_the_monitoring_namespace_comes_in():
    made = one("NetworkPolicy", {"metrics": {"port": 9999}, "networkPolicy": {"monitoringNamespace": "watch"}})["spec"]
    assert made["policyTypes"] == ["Ingress", "Egress"]
    assert made["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}],
            "ports": [{"protocol": "TCP", "port": 9999}],
        }
    ]


def test_the_autoscaler_owns_the_number_of_pods():
    assert "replicas" not in one("Deployment", SCALED)["spec"]
    assert one("Deployment", FLEET)["spec"]["replicas"] == 3
    assert one("ScaledObject", SCALED)["spec"]["scaleTargetRef"]["name"] == one("Deployment", SCALED)["metadata"]["name"]


def queries(over):
    return {each["name"]: each["metadata"]["query"] for each in one("ScaledObject", over)["spec"]["triggers"]}


def test_the_queries_name_metrics_and_labels_that_exist():
    known = {metric.name: set(metric.labels) for metric in CATALOG}
    for query in queries(SCALED).values():
        named = re.findall(r"\b(kst_\w+)\{([^}]*)\}", query)
        assert named
        for name, labels in named:
            assert set(re.findall(r"(\w+)=", labels)) <= known[name] | {"namespace", "pod"}


def test_no_query_asks_for_more_pods_than_there_are_shards():
    made = queries(SCALED)
    assert set(made) == {"rate", "lag"}
    assert [
        query for query in made.values() if not re.fullmatch(r"clamp_max\(.*, scalar\(sum\(kst_leases_held\{[^}]*\}\)\)\)", query)
    ] == []


def test_the_queries_choose_the_pods_of_this_release_only():
    found = re.search(r'pod=~"([^"]+)"', queries(SCALED)["rate"])
    assert re.fullmatch(found[1], "flights-stream-5d4f8c7b9-x2x4z")
    assert not re.fullmatch(found[1], "other-flights-stream-5d4f8c7b9-x2x4z")
    assert not re.fullmatch(found[1], "flights-stream-two-5d4f8c7b9-x2x4z")


def test_a_halted_or_paused_shard_asks_for_no_pods():
    series = r'\{namespace="prod",pod=~"[^"]*"\}'
    still = rf"\(kst_shard_halted{series} == 1 or kst_shard_paused{series} == 1\)"
    moving = rf"kst_source_behind_latest_seconds{series} unless on \(pod, stream, shard\) {still}"
    assert re.search(rf"max\(\({moving}\) or vector\(0\)\)", queries(SCALED)["lag"])


def test_rules_and_dashboards_lie_there_as_they_are_written(tmp_path):
    chart = with_files(tmp_path)
    groups = one("PrometheusRule", ALL, chart)["spec"]["groups"]
    written = [group for path in sorted((chart / "rules").glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]
    assert [but_down(group) for group in groups] == [but_down(group) for group in written]
    assert "{{ $labels.shard }}" in json.dumps(groups)
    made = [each for each in objects(ALL, chart) if each["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert {name: body for each in made for name, body in each["data"].items()} == {
        path.name: path.read_text() for path in (chart / "dashboards").glob("*.json")
    }


def but_down(group):
    return group | {"rules": [rule for rule in group["rules"] if rule["alert"] != "StreamDown"]}


def test_a_release_without_workers_is_down_whoever_else_has_some():
    (group,) = one("PrometheusRule", {"rules": {"enabled": True}})["spec"]["groups"]
    (down,) = [rule["expr"] for rule in group["rules"] if rule["alert"] == "StreamDown"]
    asked = re.fullmatch(r'absent\(kst_build_info\{namespace="([^"]+)",pod=~"([^"]+)"\}\)', down)
    assert asked is not None
    assert asked[1] == one("Deployment", {})["metadata"]["namespace"]
    assert re.fullmatch(asked[2], one("Deployment", {})["metadata"]["name"] + "-5d4f8c7b9-x2x4z")


def test_nothing_custom_is_made_unless_asked_for():
    assert {each["kind"] for each in objects({})} == {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"}


# --- what the documentation shows ---------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "eks.md").read_text()
BOTH = PAGE + (ROOT / "docs" / "airflow.md").read_text()


@pytest.mark.parametrize("shown", re.findall(r"^```yaml values\n(.*?)^```", BOTH, re.DOTALL | re.MULTILINE))
def test_the_values_that_are_shown_make_a_release(shown):
    made = {each["kind"]: each["metadata"]["name"] for each in objects(yaml.safe_load(shown))}
    assert (made.get("Deployment") or made.get("CronJob")) == "flights-stream"


@pytest.mark.parametrize("command", re.findall(r"^helm .*$", BOTH, re.MULTILINE))
def test_the_command_that_is_shown_names_what_exists(command):
    words = shlex.split(command)
    assert (ROOT / words[words.index("--install") + 2]) == CHART
    with helm_python.Chart.load(str(CHART)) as chart:
        keys = set(leaves(chart.values))
    assert [given for given in re.findall(r"--set\S* ([\w.]+)=", command) if tuple(given.split(".")) not in keys] == []


def test_every_trust_policy_that_is_shown_names_one_service_account_exactly():
    policies = [json.loads(each) for each in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)]
    assert len(policies) == 2
    for policy in policies:
        (statement,) = policy["Statement"]
        assert list(statement["Condition"]) == ["StringEquals"]
        assert "flights-stream" in json.dumps(statement["Condition"])
        assert "*" not in json.dumps(policy)


# --- what is refused --------------------------------------------------------------------------------------------------------

REFUSED = [
    ({"pipeline": {"file": ""}}, "--set-file pipeline.file"),
    ({"pipeline": {"existingConfigMap": "mine"}}, "give one of them"),
    ({"pipeline": {"file": "a: [b"}}, "is not YAML"),
    ({"pipeline": {"file": "my/pipeline.yaml"}}, "write --set-file pipeline.file=my/pipeline.yaml in place of --set"),
    ({"pipeline": {"file": "application: a\nsource: {}\nsinks: []\n"}}, "has no `state`"),
    ({"pipeline": {"file": LOCAL.replace("${STATE:-s3://lake/_stream/}", "file:./state")}}, "goes with the pod"),
    ({"pipeline": {"files": {"pipeline.yaml": "x"}}}, "choose another"),
    ({"image": {"repository": ""}}, "image.repository: name the image"),
    ({"image": {"digest": "sha256:123"}}, "digest"),
    ({"replicas": 2}, "coordination: native"),
    (SCALED | {"pipeline": {"file": LOCAL}}, "coordination: native"),
    ({"pipeline": {"file": "", "existingConfigMap": "mine"}, "replicas": 2}, "coordination: native"),
    (CLOCK | SCALED, "autoscaling.enabled true: a scheduled run is one pod"),
    (CLOCK | FLEET, "replicas 3: a scheduled run is one pod"),
    (CLOCK | {"rules": {"enabled": True}}, "would fire between two runs"),
    ({"schedule": CLOCK["schedule"] | {"deadlineSeconds": 30}}, "may take drainSeconds, 30, by itself"),
    ({"schedule": {"cron": "TZ=Europe/Berlin 30 2 * * *"}}, "cron"),
    ({"schedule": {"cron": "30 2 * *"}}, "cron"),
    ({"schedule": {"cron": "@hourly", "attempts": 0}}, "attempts"),
    ({"drainSeconds": 46}, "allow at least 61"),
    ({"terminationGracePeriodSeconds": 44}, "allow at least 45"),
    ({"identity": {"kind": "irsa"}}, "has to name its role"),
    ({"identity": {"roleArn": "arn:aws:iam::111122223333:role/flights"}}, "set identity.kind to irsa"),
    ({"identity": {"kind": "irsa", "roleArn": "flights"}}, "roleArn"),
    ({"serviceAccount": {"create": False}}, "name the service account"),
    ({"autoscaling": {"enabled": True}, "pipeline": {"file": NATIVE}}, "address of Prometheus"),
    (SCALED | {"autoscaling": {**SCALED["autoscaling"], "minReplicas": 11}}, "may not exceed"),
    (SCALED | {"autoscaling": {**SCALED["autoscaling"], "fallbackReplicas": 11}}, "choose from"),
    ({"user": 0}, "user"),
    ({"user": 10000}, "user"),
    ({"env": {"A-B": "c"}}, "invalid propertyName 'A-B'"),
    ({"env": {"AWS_EC2_METADATA_DISABLED": "false"}}, "sets this variable itself"),
    ({"env": {"A": "b"}, "secretEnv": {"A": {"secret": "s", "key": "k"}}}, "give one of them"),
    ({"secretEnv": {"A": {"secret": "s"}}}, "key"),
    ({"collector": {"endpoint": "collector:4318"}}, "endpoint"),
    ({"metrics": {"port": 80}}, "port"),
    ({"metrics": {"host": "127.0.0.1"}}, "the probes of the node come from outside"),
    ({"metrics": {"host": "::1"}}, "the probes of the node come from outside"),
    ({"pipeline": {"file": LOCAL + "coordination: kcl\n"}}, "stream kcl daemon"),
    ({"pipeline": {"file": LOCAL + "coordination: {kcl: {}}\n"}}, "stream kcl daemon"),
    ({"resources": {"requests": {"cpu": None}}}, "cpu"),
    ({"resources": {"limits": {"memory": None}}}, "memory"),
    ({"replica": 1}, "replica"),
    (
        {"resources": {"requests": {"memory": "2Gi"}}},
        "resources.requests.memory is 2Gi and resources.limits.memory 1Gi: the first may not exceed",
    ),
    ({"resources": {"requests": {"memory": "1100M"}, "limits": {"memory": "1Gi"}}}, "resources.requests.memory is 1100M"),
    ({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}, "resources.requests.cpu is 2 and resources.limits.cpu 1500m"),
    (
        {"pipeline": {"file": LOCAL + "memory: {budget: 1GiB}\n"}},
        "memory.budget is 1GiB and resources.limits.memory 1Gi: the pod would be killed",
    ),
    ({"pipeline": {"files": {"large.csv": "x" * 1_000_000}}}, "a ConfigMap holds a million"),
    (SCALED | {"replicas": 0}, "to stand still, set autoscaling.enabled to false"),
    ({"image": {"repository": "registry.example.com:5000/stream:1.0"}}, "with a tag or a digest"),
    ({"image": {"repository": "registry.example.com/stream@sha256:00"}}, "with a tag or a digest"),
    ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "podLabels: the chart sets the label app.kubernetes.io/name itself"),
    ({"rules": {"enabled": True, "labels": {"helm.sh/chart": "x"}}}, "rules.labels: the chart sets the label"),
    ({"podAnnotations": {"checksum/pipeline": "x"}}, "sets the annotation checksum/pipeline itself"),
    (IRSA | {"serviceAccount": {"annotations": {"eks.amazonaws.com/audience": "x"}}}, "the chart sets eks.amazonaws.com/audience itself"),
    (IRSA | {"serviceAccount": {"create": False, "name": "mine"}}, 'annotate "mine" yourself'),
    ({"serviceAccount": {"create": False, "name": "mine", "annotations": {"a": "b"}}}, 'annotate "mine" yourself'),
    ({"serviceAccount": {"name": "Mine"}}, "name"),
    ({"fullnameOverride": "My_Release"}, "fullnameOverride"),
    ({"region": "eu-west-1", "env": {"AWS_REGION": "eu-west-1"}}, "env.AWS_REGION and region set the same variable"),
    (
        {"collector": {"endpoint": "http://a:4318"}, "secretEnv": {"OTEL_EXPORTER_OTLP_ENDPOINT": {"secret": "s", "key": "k"}}},
        "collector.endpoint set the same variable",
    ),
    ({"volumes": [{"name": "tmp", "emptyDir": {}}]}, 'two of the name "tmp"'),
    ({"volumeMounts": [{"name": "tables", "mountPath": "/tables"}]}, 'no entry of volumes has the name "tables"'),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": "/tmp/"}]}, "/tmp is the chart's own"),
    ({"volumes": [{"name": "a"}], "volumeMounts": [{"name": "a", "mountPath": f"/x{end}"} for end in ("", "/")]}, "mounted at /x"),
]

ALIKE = [
    {"resources": {"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}}},
    {"resources": {"requests": {"memory": "1000M"}, "limits": {"memory": "1Gi"}}},
    {"resources": {"requests": {"cpu": ".5", "memory": "1Gi"}, "limits": {"cpu": 0.5, "memory": "1073741824"}}},
    {"resources": {"requests": {"cpu": 1.5}, "limits": {"cpu": "1500m"}}},
    {"pipeline": {"file": LOCAL + "memory: {budget: 0.9GiB}\n"}},
    {"pipeline": {"file": LOCAL + "memory: {budget: '${BUDGET:-4GiB}'}\n"}},
    {"image": {"repository": "registry.example.com:5000/stream"}},
    {
        "volumes": [{"name": "a", "emptyDir": {}}],
        "volumeMounts": [{"name": "a", "mountPath": "/tmp/a"}, {"name": "tmp", "mountPath": "/b"}],
    },
]


@pytest.mark.parametrize("over", ALIKE)
def test_what_can_work_is_not_refused(over):
    assert one("Deployment", over)


@pytest.mark.parametrize(("over", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_cannot_work_is_refused_with_a_reason(over, told):
    with pytest.raises(helm_python.HelmError, match=re.escape(told)):
        text(over)


def test_the_shortest_grace_that_is_allowed_is_allowed():
    assert pod({"drainSeconds": 45})["terminationGracePeriodSeconds"] == 60


@pytest.mark.parametrize("form", ["native", "{native: {table: leases}}"])
def test_both_forms_of_native_coordination_are_seen(form):
    file = NATIVE.replace("coordination: native", f"coordination: {form}")
    assert one("Deployment", {"pipeline": {"file": file}, "replicas": 2})["spec"]["replicas"] == 2


@pytest.mark.parametrize("name", ["stream", "a" * 53, "flights.eu"])
def test_names_fit_whatever_the_release_is_called(name):
    for each in objects(ALL, name=name):
        assert len(each["metadata"]["name"]) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", each["metadata"]["name"])
