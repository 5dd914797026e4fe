"""Fields that objects of many types have, and what happens to them during an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stream.datapipeline.verdicts import Fate, Verdict, not_needed, to_do

IDENTITY_FIELDS: Final[Mapping[str, Verdict]] = {
    "id": Verdict(Fate.TAKEN_OVER, "names the object in this report"),
    "name": not_needed("only a label in the AWS console"),
    "type": Verdict(Fate.TAKEN_OVER, "decides what becomes of the object"),
    "parent": Verdict(Fate.TAKEN_OVER, "the object inherits the fields of its parent, as before"),
}
"""Fields that every object has."""

_LATE: Final = (
    "stream does not report late runs: alert on the age of the last successful Job (`kube_job_status_completion_time`), wait with "
    "`stream complete --wait`, or set a deadline alert on the Airflow task"
)
_SUCCESS: Final = "to act on a success, use `on_success_callback` in Airflow, or alert on finished Jobs (`kube_job_status_succeeded`)"
_RETRIES: Final = "only the whole run is repeated: see `schedule.attempts` in the chart's values"

COMMON_FIELDS: Final[Mapping[str, Verdict]] = {
    "attemptStatus": not_needed("AWS Data Pipeline set it at run time"),
    "attemptTimeout": not_needed("only the whole run has a time limit: see `schedule.deadlineSeconds` in the chart's values"),
    "dependsOn": to_do(
        "a pipeline file cannot wait for another pipeline: let Airflow run the tasks in order, see `With Airflow` in this report"
    ),
    "failureAndRerunMode": not_needed(
        "a run is one task; what happens to the tasks after a failed one is decided by Airflow's trigger rules"
    ),
    "lateAfterTimeout": to_do(_LATE),
    "maxActiveInstances": not_needed("two runs of a pipeline never overlap, and the next run reads everything that is new"),
    "maximumRetries": not_needed(_RETRIES),
    "onFail": to_do("alert on failed Jobs (`kube_job_status_failed`), or use `on_failure_callback` in Airflow"),
    "onLateAction": to_do(_LATE),
    "onSuccess": to_do(_SUCCESS),
    "pipelineLogUri": not_needed("logs go to standard output, where the log collector of the cluster finds them"),
    "precondition": not_needed("no pipeline that was written waits for it"),
    "reportProgressTimeout": not_needed("the chart's liveness probe ends a run that hangs"),
    "resourceRole": not_needed("`stream iam` prints a role's policy with exactly the permissions that the pipeline needs"),
    "retryDelay": not_needed(
        "the Job waits 10 s before the second attempt, and twice as long before each further one, up to 6 minutes; in Airflow, set "
        "`retry_delay`"
    ),
    "role": not_needed("`stream iam` prints a role's policy with exactly the permissions that the pipeline needs"),
    "runsOn": not_needed("a run is a pod or an Airflow task, and needs no machine of its own"),
    "schedule": not_needed("no pipeline that was written runs on this schedule"),
    "scheduleType": not_needed("no pipeline that was written runs on this schedule"),
    "workerGroup": not_needed("a run is a pod or an Airflow task, and needs no machine of its own"),
}
"""Verdicts on fields that many types have. They do not apply where a type has its own verdict or a pipeline uses the field."""
