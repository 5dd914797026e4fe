"""Every object type of AWS Data Pipeline, and what happens to its fields during an import.

The types and fields are those of the object reference in the AWS Data Pipeline Developer Guide. Each field either is translated by another
module of this package, or has a fixed verdict here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stream.datapipeline.verdicts import Fate, Verdict


def unneeded(text: str) -> Verdict:
    """A field that is not needed here."""
    return Verdict(Fate.UNNEEDED, text)


def todo(text: str) -> Verdict:
    """A field that is left to the user."""
    return Verdict(Fate.OPEN, text)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type: its ``group`` in the guide, what it ``becomes``, the fields that are ``translated``, and the verdict on the others."""

    group: str
    becomes: str
    translated: tuple[str, ...] = ()
    fields: Mapping[str, Verdict] = field(default_factory=dict)
    advice: str = ""
    """For an activity that is not translated: what to do instead."""


MARKS: Final[Mapping[str, Verdict]] = {
    "id": Verdict(Fate.TAKEN, "names the object in this report"),
    "name": unneeded("only a label in the AWS console"),
    "type": Verdict(Fate.TAKEN, "decides what becomes of the object"),
    "parent": Verdict(Fate.TAKEN, "the object inherits the fields of its parent, as before"),
}
"""Fields that every object has."""

_LATE: Final = (
    "stream does not report late runs: alert on the age of the last successful Job (`kube_job_status_completion_time`), wait with "
    "`stream complete --wait`, or set a deadline alert on the Airflow task"
)
_SUCCESS: Final = "to act on a success, use `on_success_callback` in Airflow, or alert on finished Jobs (`kube_job_status_succeeded`)"
_RETRIES: Final = "only the whole run is repeated: see `schedule.attempts` in the chart's values"

COMMON: Final[Mapping[str, Verdict]] = {
    "attemptStatus": unneeded("AWS Data Pipeline set it at run time"),
    "attemptTimeout": unneeded("only the whole run has a time limit: see `schedule.deadlineSeconds` in the chart's values"),
    "dependsOn": todo(
        "a pipeline file cannot wait for another pipeline: let Airflow run the tasks in order, see `With Airflow` in this report"
    ),
    "failureAndRerunMode": unneeded(
        "a run is one task; what happens to the tasks after a failed one is decided by Airflow's trigger rules"
    ),
    "lateAfterTimeout": todo(_LATE),
    "maxActiveInstances": unneeded("two runs of a pipeline never overlap, and the next run reads everything that is new"),
    "maximumRetries": unneeded(_RETRIES),
    "onFail": todo("alert on failed Jobs (`kube_job_status_failed`), or use `on_failure_callback` in Airflow"),
    "onLateAction": todo(_LATE),
    "onSuccess": todo(_SUCCESS),
    "pipelineLogUri": unneeded("logs go to standard output, where the log collector of the cluster finds them"),
    "precondition": unneeded("no pipeline that was written waits for it"),
    "reportProgressTimeout": unneeded("the chart's liveness probe ends a run that hangs"),
    "resourceRole": unneeded("`stream iam` prints a role's policy with exactly the permissions that the pipeline needs"),
    "retryDelay": unneeded(
        "the Job waits 10 s before the second attempt, and twice as long before each further one, up to 6 minutes; in Airflow, set "
        "`retry_delay`"
    ),
    "role": unneeded("`stream iam` prints a role's policy with exactly the permissions that the pipeline needs"),
    "runsOn": unneeded("a run is a pod or an Airflow task, and needs no machine of its own"),
    "schedule": unneeded("no pipeline that was written runs on this schedule"),
    "scheduleType": unneeded("no pipeline that was written runs on this schedule"),
    "workerGroup": unneeded("a run is a pod or an Airflow task, and needs no machine of its own"),
}
"""Fields that many types have; a type may have its own verdict, and whatever is translated has another."""

_MACHINE: Final = unneeded("a run needs no machine of its own; `resources` in the chart's values sets the CPU and memory of the pod")
_NETWORK: Final = unneeded(
    "the pod uses the network of the cluster: see `networkPolicy` in the chart's values, and the security groups of the nodes"
)
_FAILS: Final = unneeded("a pod that fails is replaced until no attempts are left")
_CLUSTER: Final = unneeded("no Hadoop cluster is needed")
_DATABASE_URL: Final = todo(
    "name the database as the `table` of an `enrich` stage: `postgresql://host/database` or `redshift:cluster/NAME/DATABASE`"
)
_DRIVER: Final = unneeded("no JDBC driver is used")
_LOGIN: Final = todo("keep the login in AWS Secrets Manager, and name that secret in the `enrich` stage: `login: {secrets_manager: NAME}`")
_SCRIPT: Final = todo("the activity has to run elsewhere: see what the report says about it")
_CHECK: Final = todo("set `timeout` of that Airflow sensor")
_LIMIT: Final = unneeded("a run whose `requires` are missing fails and is repeated, like any failed run")


def _fields(names: str, verdict: Verdict) -> dict[str, Verdict]:
    return dict.fromkeys(names.split(), verdict)


_TASK_CONFIG: Final = _fields(
    "preActivityTaskConfig postActivityTaskConfig", todo("run these scripts as Airflow tasks before and after this one")
)
_EMR: Final = {
    **_TASK_CONFIG,
    **_fields("hadoopQueue resizeClusterBeforeRunning resizeClusterMaxInstances", _CLUSTER),
    **_fields("input output", _SCRIPT),
}

KINDS: Final[Mapping[str, Kind]] = {
    # data nodes
    "S3DataNode": Kind(
        "data node",
        "`source.s3` with its decoder and schema, or the sink `s3`",
        ("directoryPath", "filePath", "manifestFilePath", "compression", "dataFormat"),
        {"s3EncryptionType": unneeded("S3 encrypts every object; to use a key of your own, set `encryption.kms_key`")},
    ),
    "RedshiftDataNode": Kind(
        "data node",
        "the sink `redshift`",
        ("database", "tableName", "schemaName", "createTableSql", "primaryKeys"),
    ),
    "DynamoDBDataNode": Kind(
        "data node",
        "to do: export the table to S3, or read its changes from a Kinesis stream",
        (),
        {
            "tableName": todo(
                "stream does not read DynamoDB tables: export the table to S3 (`ExportTableToPointInTime`), or read its changes from a "
                "Kinesis stream (`stream init --template dynamodb-stream`)"
            ),
            **_fields("readThroughputPercent writeThroughputPercent", unneeded("an export to S3 uses none of the table's capacity")),
            "dataFormat": unneeded("an export to S3 has its own format"),
            "region": unneeded("a pipeline uses the region of its environment"),
        },
    ),
    "SqlDataNode": Kind(
        "data node",
        "to do: use it as the table of an `enrich` stage, or let AWS DMS send it to a Kinesis stream",
        (),
        {
            **_fields("database connectionString", _DATABASE_URL),
            "username": _LOGIN,
            **_fields(
                "table schemaName",
                todo(
                    "as a reference table, give it to an `enrich` stage (`table`, `query`); as a source, let AWS DMS send it to a "
                    "Kinesis stream"
                ),
            ),
            "selectQuery": todo("as a reference table, give it to an `enrich` stage (`query`), which cannot contain the time of a run"),
            "insertQuery": todo(
                "stream does not insert rows over JDBC: load Redshift, or write to S3 and import the files into the database"
            ),
            "createTableSql": todo("run it once by hand"),
        },
    ),
    "MySqlDataNode": Kind(
        "data node",
        "to do: let AWS DMS send it to a Kinesis stream, or export it to S3",
        (),
        {
            "database": _DATABASE_URL,
            "connectionString": todo(
                "stream does not read MySQL: let AWS DMS send the table to a Kinesis stream (`stream init --template dms-cdc`)"
            ),
            "username": _LOGIN,
            **_fields(
                "table schemaName selectQuery",
                todo("stream does not read MySQL: let AWS DMS send the table to a Kinesis stream, or export it to S3"),
            ),
            "insertQuery": todo(
                "stream does not insert rows over JDBC: load Redshift, or write to S3 and import the files into the database"
            ),
            "createTableSql": todo("run it once by hand"),
        },
    ),
    # activities
    "CopyActivity": Kind("activity", "a pipeline file, from S3 to S3 or Redshift", ("input", "output")),
    "RedshiftCopyActivity": Kind(
        "activity", "a pipeline file, from S3 to Redshift", ("input", "output", "insertMode", "commandOptions", "transformSql", "queue")
    ),
    "HiveCopyActivity": Kind(
        "activity", "a pipeline file, if both sides are S3; `filterSql` becomes a `filter` stage", ("input", "output", "filterSql"), _EMR
    ),
    "SqlActivity": Kind(
        "activity",
        "to do: an Airflow task",
        (),
        {
            **_fields(
                "script scriptUri scriptArgument", todo("run it in Airflow with `RedshiftDataOperator` or `SQLExecuteQueryOperator`")
            ),
            "database": todo("define an Airflow connection to it, and keep the login in Airflow's secrets backend"),
            "queue": todo("make `SET query_group` the first statement of the script"),
            **_fields("input output", _SCRIPT),
        },
        "stream does not run SQL in a database: use `RedshiftDataOperator` or `SQLExecuteQueryOperator` in Airflow",
    ),
    "ShellCommandActivity": Kind(
        "activity",
        "to do: an Airflow task, or a `python` stage",
        (),
        {
            **_fields("command scriptUri scriptArgument", todo("run it in Airflow with `BashOperator` or `KubernetesPodOperator`")),
            **_fields("stdout stderr", unneeded("both are in the log of the Airflow task")),
            "stage": todo("let the task itself copy files in and out, with `aws s3 cp`"),
            **_fields("input output", _SCRIPT),
        },
        "stream does not run shell commands: use `BashOperator` or `KubernetesPodOperator` in Airflow, or write a `python` stage if it "
        "works row by row",
    ),
    "EmrActivity": Kind(
        "activity",
        "to do: an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "step preStepCommand postStepCommand", todo("use `EmrAddStepsOperator` or `EmrServerlessStartJobOperator` in Airflow")
            ),
        },
        "stream does not run EMR steps: use `EmrAddStepsOperator` or `EmrServerlessStartJobOperator` in Airflow",
    ),
    "HadoopActivity": Kind(
        "activity",
        "to do: an Airflow task",
        (),
        {**_EMR, **_fields("jarUri mainClass argument", todo("use `EmrAddStepsOperator` in Airflow"))},
        "stream does not run Hadoop jobs: use `EmrAddStepsOperator` in Airflow",
    ),
    "HiveActivity": Kind(
        "activity",
        "to do: a `sql` stage, or an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "hiveScript scriptUri scriptVariable",
                todo("write what changes rows one by one as a `sql` stage; run the rest in Athena or EMR, from Airflow"),
            ),
            "stage": todo("not needed in a `sql` stage, which reads the rows of the source under the name `batch`"),
        },
        "stream does not run Hive: write what changes rows one by one as a `sql` stage, and run the rest in Athena or EMR, from Airflow",
    ),
    "PigActivity": Kind(
        "activity",
        "to do: stages, or an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "script scriptUri scriptVariable",
                todo("write FILTER and FOREACH as `filter` and `derive` stages; run the rest in EMR, from Airflow"),
            ),
            "stage": todo("not needed in a `sql` stage, which reads the rows of the source under the name `batch`"),
        },
        "stream does not run Pig: write FILTER and FOREACH as `filter` and `derive` stages, and run the rest in EMR, from Airflow",
    ),
    # resources
    "Ec2Resource": Kind(
        "resource",
        "not needed: a run is a pod; `terminateAfter` and `region` go to the chart's values",
        ("terminateAfter", "region", "httpProxy"),
        {
            **_fields("instanceType instanceCount minInstanceCount imageId keyPair runAsUser initTimeout", _MACHINE),
            **_fields("securityGroups securityGroupIds subnetId associatePublicIpAddress availabilityZone", _NETWORK),
            **_fields("actionOnResourceFailure actionOnTaskFailure", _FAILS),
            **_fields(
                "spotBidPrice useOnDemandOnLastAttempt",
                unneeded("to run on spot nodes, set `nodeSelector` and `tolerations` in the chart's values"),
            ),
            "logUri": unneeded("logs go to standard output, where the log collector of the cluster finds them"),
        },
    ),
    "EmrCluster": Kind(
        "resource",
        "not needed: a run is a pod; `terminateAfter` and `region` go to the chart's values",
        ("terminateAfter", "region", "httpProxy"),
        {
            **_fields(
                "amiVersion releaseLabel applications supportedProducts hadoopVersion hadoopSchedulerType bootstrapAction configuration "
                "enableDebugging emrLogUri masterInstanceType coreInstanceType taskInstanceType coreInstanceCount taskInstanceCount "
                "masterInstanceBidPrice coreInstanceBidPrice taskInstanceBidPrice masterGroupConfiguration coreGroupConfiguration "
                "taskGroupConfiguration masterEbsConfiguration coreEbsConfiguration taskEbsConfiguration EbsBlockDeviceConfig "
                "VolumeSpecification keyPair initTimeout useOnDemandOnLastAttempt standardBootstrapAction",
                _CLUSTER,
            ),
            **_fields(
                "emrManagedMasterSecurityGroupId emrManagedSlaveSecurityGroupId additionalMasterSecurityGroupIds "
                "additionalSlaveSecurityGroupIds serviceAccessSecurityGroupId subnetId availabilityZone",
                _NETWORK,
            ),
            **_fields("actionOnResourceFailure actionOnTaskFailure", _FAILS),
        },
    ),
    "HttpProxy": Kind(
        "resource",
        "`env.HTTPS_PROXY` in the chart's values",
        ("hostname", "port", "s3NoProxy"),
        {
            "username": todo(
                "the proxy needs a login: keep its whole URL in a Kubernetes secret, and pass it as HTTPS_PROXY with `secretEnv` in the "
                "chart's values"
            ),
            **_fields("windowsDomain windowsWorkgroup", todo("logins with NTLM are not supported: give the pods another way to AWS")),
        },
    ),
    # preconditions
    "S3KeyExists": Kind("precondition", "`requires`", ("s3Key",), {"preconditionTimeout": _LIMIT}),
    "S3PrefixNotEmpty": Kind("precondition", "`requires`, with a slash at the end", ("s3Prefix",), {"preconditionTimeout": _LIMIT}),
    "Exists": Kind("precondition", "`requires`, with the path of the node that has the precondition", (), {"preconditionTimeout": _LIMIT}),
    "DynamoDBTableExists": Kind(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            "tableName": todo("stream does not look for DynamoDB tables: let a `PythonSensor` in Airflow do it, before the task"),
            "preconditionTimeout": _CHECK,
        },
    ),
    "DynamoDBDataExists": Kind(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            "tableName": todo("stream does not look into DynamoDB tables: let a `DynamoDBValueSensor` in Airflow do it, before the task"),
            "preconditionTimeout": _CHECK,
        },
    ),
    "ShellCommandPrecondition": Kind(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            **_fields(
                "command scriptUri scriptArgument",
                todo("stream does not run shell commands: let a `BashSensor` in Airflow do it, before the task"),
            ),
            **_fields("stdout stderr", unneeded("both are in the log of the Airflow task")),
            "preconditionTimeout": todo("set `timeout` of that Airflow sensor"),
        },
    ),
    # databases
    "RedshiftDatabase": Kind(
        "database",
        "`cluster` or `workgroup`, `database` and `db_user` of the sink `redshift`",
        ("clusterId", "databaseName", "username", "connectionString", "region"),
        {"jdbcProperties": _DRIVER},
    ),
    "RdsDatabase": Kind(
        "database",
        "to do: use it in an `enrich` stage (`postgresql://`)",
        (),
        {
            **_fields("rdsInstanceId databaseName", _DATABASE_URL),
            **_fields("jdbcDriverJarUri jdbcProperties", _DRIVER),
            "username": _LOGIN,
            "region": unneeded("the address of the database is enough"),
        },
    ),
    "JdbcDatabase": Kind(
        "database",
        "to do: use it in an `enrich` stage (`postgresql://`)",
        (),
        {
            **_fields("connectionString databaseName", _DATABASE_URL),
            **_fields("jdbcDriverClass jdbcDriverJarUri jdbcProperties", _DRIVER),
            "username": _LOGIN,
        },
    ),
    # data formats
    "CSV": Kind("data format", "`decode: csv` and `schema`", ("column", "escapeChar")),
    "TSV": Kind(
        "data format", '`decode: {csv: {delimiter: "\\t"}}` and `schema`', ("column", "columnSeparator", "recordSeparator", "escapeChar")
    ),
    "Custom": Kind("data format", "`decode: {csv: {delimiter: ...}}` and `schema`", ("column", "columnSeparator", "recordSeparator")),
    "RegEx": Kind("data format", "a `parse` stage with named groups", ("column", "inputRegEx", "outputFormat")),
    "DynamoDBDataFormat": Kind(
        "data format",
        "to do: export the table to S3, or read its changes from a Kinesis stream",
        (),
        {"column": todo("list these columns under `schema` in the pipeline that reads the export")},
    ),
    "DynamoDBExportDataFormat": Kind(
        "data format",
        "to do: export the table again, as DynamoDB JSON (`ExportTableToPointInTime`) or to Parquet with Athena",
        (),
        {"column": todo("stream does not read exports made by Hive: export the table again with `ExportTableToPointInTime`")},
    ),
    # actions
    "SnsAlarm": Kind(
        "action",
        "`notify.sns`, from `onFail`",
        ("topicArn",),
        {
            "subject": unneeded("a notification is a JSON document without a subject"),
            "message": unneeded("a notification is a JSON document, see docs/replay.md"),
        },
    ),
    "Terminate": Kind("action", "not needed: `schedule.deadlineSeconds` ends a run"),
    # schedules and utilities
    "Schedule": Kind(
        "schedule", "`schedule.cron` in the chart's values", ("period", "startDateTime", "startAt", "endDateTime", "occurrences")
    ),
    "ShellScriptConfig": Kind(
        "utility", "to do: an Airflow task", (), _fields("scriptUri scriptArgument", todo("run it as an Airflow task"))
    ),
    "EmrConfiguration": Kind("utility", "not needed", (), _fields("classification property configuration", _CLUSTER)),
    "EbsConfiguration": Kind("utility", "not needed", (), _fields("ebsBlockDeviceConfig ebsOptimized", _CLUSTER)),
    "EbsBlockDeviceConfig": Kind("utility", "not needed", (), _fields("volumeSpecification volumesPerInstance", _CLUSTER)),
    "VolumeSpecification": Kind("utility", "not needed", (), _fields("volumeType sizeInGB iops", _CLUSTER)),
    "Property": Kind("utility", "not needed", (), _fields("key value", _CLUSTER)),
}
"""Every type of object, in the order of the guide."""

ACTIVITIES: Final = tuple(name for name, kind in KINDS.items() if kind.group == "activity")
TRANSLATED: Final = tuple(name for name in ACTIVITIES if not KINDS[name].advice)
