"""Each hour of an archive, in pods like those of the chart: its image, service account, ConfigMap and confinement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, dag
from kubernetes.client import models as k8s
from stream_airflow import DISPROVED, StreamPodOperator, account

NAMESPACE = "data"
RELEASE = "orders"
"""`helm install orders deploy/eks/chart` makes the service account, the ConfigMap and the network policy, all called orders-stream."""
IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/stream:0.1.0"
USER = 10001
PIPELINE = "/etc/stream/pipeline.yaml"

CONFINEMENT = k8s.V1SecurityContext(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    privileged=False,
    run_as_non_root=True,
    run_as_user=USER,
    run_as_group=USER,
    capabilities=k8s.V1Capabilities(drop=["ALL"]),
    seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
)
CORES = k8s.V1EnvVarSource(resource_field_ref=k8s.V1ResourceFieldSelector(resource="requests.cpu", divisor="1"))
ENVIRONMENT = [
    # Without these, every pool of threads is as large as the node has cores.
    *(k8s.V1EnvVar(name=name, value_from=CORES) for name in ("STREAM_THREADS", "OMP_NUM_THREADS", "TOKIO_WORKER_THREADS")),
    # The node's role must never stand in for the pod's.
    k8s.V1EnvVar(name="AWS_EC2_METADATA_DISABLED", value="true"),
    k8s.V1EnvVar(name="AWS_STS_REGIONAL_ENDPOINTS", value="regional"),
    k8s.V1EnvVar(name="HOUR", value="{{ data_interval_start.strftime('%Y/%m/%d/%H') }}"),
]


def pod(task_id: str, arguments: list[str], **more: Any) -> StreamPodOperator:
    """A task in a pod of its own that runs `stream` with ``arguments``."""
    return StreamPodOperator(
        task_id=task_id,
        name=f"{RELEASE}-{task_id}",
        namespace=NAMESPACE,
        image=IMAGE,
        arguments=arguments,
        env_vars=ENVIRONMENT,
        labels={"app.kubernetes.io/name": "stream", "app.kubernetes.io/instance": RELEASE},
        service_account_name=f"{RELEASE}-stream",
        automount_service_account_token=False,
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=CONFINEMENT,
        xcom_sidecar_container_security_context=CONFINEMENT,
        container_resources=k8s.V1ResourceRequirements(requests={"cpu": "1", "memory": "1Gi"}, limits={"memory": "1Gi"}),
        volumes=[
            k8s.V1Volume(name="pipeline", config_map=k8s.V1ConfigMapVolumeSource(name=f"{RELEASE}-stream-pipeline")),
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi")),
        ],
        volume_mounts=[
            k8s.V1VolumeMount(name="pipeline", mount_path="/etc/stream", read_only=True),
            k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - the only place in the pod that can be written
        ],
        termination_grace_period=60,
        on_finish_action="delete_succeeded_pod",
        **more,
    )


@dag(
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=True,
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=1)},
)
def orders_on_kubernetes() -> None:
    """Read the objects of the hour, look at what became of them, prove it."""
    interval = ["--from", "{{ data_interval_start.isoformat() }}", "--to", "{{ data_interval_end.isoformat() }}"]
    settings = ["--threads=$(STREAM_THREADS)", "--drain=30", "--result=/airflow/xcom/return.json"]
    read = pod("read", ["backfill", PIPELINE, *interval, *settings], do_xcom_push=True)
    verify = pod("verify", ["audit", "verify", PIPELINE], hopeless=DISPROVED)
    account(read.output, share=0.01) >> verify


orders_on_kubernetes()
