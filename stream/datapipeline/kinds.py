"""Every object type of AWS Data Pipeline, and what becomes of it and its fields here.

Fields are those of the object reference in the AWS Data Pipeline Developer Guide. A field is either translated, or has its verdict here.
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
    "name": unneeded("a label of the old console"),
    "type": Verdict(Fate.TAKEN, "decides what becomes of the object"),
    "parent": Verdict(Fate.TAKEN, "its fields count for this object, too"),
}
"""Fields that every object has."""

_LATE: Final = (
    "nothing here is late by itself: alert on the age of the last successful Job (`kube_job_status_completion_time`), let "
    "`stream complete --wait` wait, or give the task of Airflow a deadline alert"
)
_SUCCESS: Final = "the last line of a run is its result; in Airflow `on_success_callback`, or a rule of EventBridge on the Job"
_RETRIES: Final = "the attempts of the whole run count: `schedule.attempts`"

COMMON: Final[Mapping[str, Verdict]] = {
    "attemptStatus": unneeded("the service set it while it ran"),
    "attemptTimeout": unneeded("the limit of the whole run counts: `schedule.deadlineSeconds`"),
    "dependsOn": todo("a pipeline file knows no other: let Airflow run one task after the other, see the chain below"),
    "failureAndRerunMode": unneeded("a run is one task; between tasks, Airflow's trigger rules decide"),
    "lateAfterTimeout": todo(_LATE),
    "maxActiveInstances": unneeded("two runs never overlap, and the next one takes everything that is new"),
    "maximumRetries": unneeded(_RETRIES),
    "onFail": todo("alert on failed Jobs (`kube_job_status_failed`), or use `on_failure_callback` of Airflow"),
    "onLateAction": todo(_LATE),
    "onSuccess": todo(_SUCCESS),
    "pipelineLogUri": unneeded("logs go to standard output; whoever collects the logs of pods keeps them"),
    "precondition": unneeded("nothing that was written waits for it"),
    "reportProgressTimeout": unneeded("the chart's probes end a run that is stuck"),
    "resourceRole": unneeded("`stream iam` prints the policies that a pipeline needs, and no more"),
    "retryDelay": unneeded("the Job waits 10 s, then twice as long each time, up to 6 minutes; in Airflow `retry_delay`"),
    "role": unneeded("`stream iam` prints the policies that a pipeline needs, and no more"),
    "runsOn": unneeded("a run is a pod, or a task of Airflow"),
    "schedule": unneeded("nothing that was written runs by it"),
    "scheduleType": unneeded("nothing that was written runs by it"),
    "workerGroup": unneeded("a run is a pod, or a task of Airflow"),
}
"""Fields that many types have; a type may have its own verdict, and whatever is translated has another."""

_MACHINE: Final = unneeded("there is no machine of its own; `resources` of the chart says what a pod gets")
_NETWORK: Final = unneeded("the pod's network counts: `networkPolicy` of the chart, security groups of the nodes")
_FAILS: Final = unneeded("a pod that ends is replaced while attempts are left")
_CLUSTER: Final = unneeded("there is no cluster of Hadoop")
_DATABASE_URL: Final = todo("name the database in an `enrich` stage (`postgresql://host/database`, `redshift:cluster/NAME/DATABASE`)")
_DRIVER: Final = unneeded("no JDBC driver is used")
_LOGIN: Final = todo("log in by a secret: `login: {secrets_manager: NAME}` of an `enrich` stage")
_SCRIPT: Final = todo("see the activity: it has to run elsewhere")
_CHECK: Final = todo("let Airflow wait for it before the task")
_LIMIT: Final = unneeded("a run whose `requires` are missing fails, and is tried again like any attempt")


def _fields(names: str, verdict: Verdict) -> dict[str, Verdict]:
    return dict.fromkeys(names.split(), verdict)


_TASK_CONFIG: Final = _fields("preActivityTaskConfig postActivityTaskConfig", todo("run these scripts as tasks of Airflow around it"))
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
        {"s3EncryptionType": unneeded("S3 encrypts every object by itself; for a key of your own, `encryption.kms_key`")},
    ),
    "RedshiftDataNode": Kind(
        "data node",
        "the sink `redshift`",
        ("database", "tableName", "schemaName", "createTableSql", "primaryKeys"),
    ),
    "DynamoDBDataNode": Kind(
        "data node",
        "to do: export the table to S3, or read its stream",
        (),
        {
            "tableName": todo(
                "a table is not read: export it to S3 (`ExportTableToPointInTime`), or read its changes "
                "(`stream init --template dynamodb-stream`)"
            ),
            **_fields("readThroughputPercent writeThroughputPercent", unneeded("an export to S3 uses no capacity of the table")),
            "dataFormat": unneeded("an export has a format of its own"),
            "region": unneeded("the region of the environment counts"),
        },
    ),
    "SqlDataNode": Kind(
        "data node",
        "to do: the table of an `enrich` stage, or changes by DMS",
        (),
        {
            **_fields("database connectionString", _DATABASE_URL),
            "username": _LOGIN,
            **_fields(
                "table schemaName",
                todo("as a reference table: `table` and `query` of an `enrich` stage; as a source: let DMS send it to a stream"),
            ),
            "selectQuery": todo("as a reference table: `query` of an `enrich` stage; times of a run do not fit in there"),
            "insertQuery": todo("rows are not inserted by JDBC: load Redshift, or write S3 and let the database import from there"),
            "createTableSql": todo("run it once by hand"),
        },
    ),
    "MySqlDataNode": Kind(
        "data node",
        "to do: as SqlDataNode",
        (),
        {
            "database": _DATABASE_URL,
            "connectionString": todo("MySQL is not read: let DMS send the table to a stream (`stream init --template dms-cdc`)"),
            "username": _LOGIN,
            **_fields("table schemaName selectQuery", todo("MySQL is not read: let DMS send the table to a stream, or export it to S3")),
            "insertQuery": todo("rows are not inserted by JDBC: load Redshift, or write S3 and let the database import from there"),
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
        "to do: a task of Airflow",
        (),
        {
            **_fields("script scriptUri scriptArgument", todo("run it by `RedshiftDataOperator` or `SQLExecuteQueryOperator` of Airflow")),
            "database": todo("a connection of Airflow; its login stays in its secrets backend"),
            "queue": todo("`SET query_group` as the script's first statement"),
            **_fields("input output", _SCRIPT),
        },
        "SQL on a database is no stream: run it by `RedshiftDataOperator` or `SQLExecuteQueryOperator` of Airflow",
    ),
    "ShellCommandActivity": Kind(
        "activity",
        "to do: a task of Airflow, or a `python` stage",
        (),
        {
            **_fields("command scriptUri scriptArgument", todo("run it by `BashOperator` or `KubernetesPodOperator` of Airflow")),
            **_fields("stdout stderr", unneeded("the log of the task has both")),
            "stage": todo("copy files in and out in the task itself, by `aws s3 cp`"),
            **_fields("input output", _SCRIPT),
        },
        "a command is not run: use `BashOperator` or `KubernetesPodOperator` of Airflow, or a `python` stage if it works row by row",
    ),
    "EmrActivity": Kind(
        "activity",
        "to do: a task of Airflow",
        (),
        {
            **_EMR,
            **_fields("step preStepCommand postStepCommand", todo("`EmrAddStepsOperator` or `EmrServerlessStartJobOperator` of Airflow")),
        },
        "steps of EMR stay there: `EmrAddStepsOperator` or `EmrServerlessStartJobOperator` of Airflow",
    ),
    "HadoopActivity": Kind(
        "activity",
        "to do: a task of Airflow",
        (),
        {**_EMR, **_fields("jarUri mainClass argument", todo("`EmrAddStepsOperator` of Airflow"))},
        "jobs of Hadoop stay there: `EmrAddStepsOperator` of Airflow",
    ),
    "HiveActivity": Kind(
        "activity",
        "to do: a `sql` stage, or a task of Airflow",
        (),
        {
            **_EMR,
            **_fields(
                "hiveScript scriptUri scriptVariable",
                todo("what changes rows one by one: a `sql` stage; the rest: Athena or EMR, by Airflow"),
            ),
            "stage": todo("a stage reads the rows of the source, which are called `batch`"),
        },
        "Hive is not run: what changes rows one by one is a `sql` stage, the rest a query of Athena or a step of EMR, by Airflow",
    ),
    "PigActivity": Kind(
        "activity",
        "to do: stages, or a task of Airflow",
        (),
        {
            **_EMR,
            **_fields(
                "script scriptUri scriptVariable", todo("FILTER and FOREACH are `filter` and `derive` stages; the rest: EMR, by Airflow")
            ),
            "stage": todo("a stage reads the rows of the source, which are called `batch`"),
        },
        "Pig is not run: FILTER and FOREACH are `filter` and `derive` stages, the rest a step of EMR, by Airflow",
    ),
    # resources
    "Ec2Resource": Kind(
        "resource",
        "not needed: a pod; `terminateAfter` and `region` go to the chart",
        ("terminateAfter", "region", "httpProxy"),
        {
            **_fields("instanceType instanceCount minInstanceCount imageId keyPair runAsUser initTimeout", _MACHINE),
            **_fields("securityGroups securityGroupIds subnetId associatePublicIpAddress availabilityZone", _NETWORK),
            **_fields("actionOnResourceFailure actionOnTaskFailure", _FAILS),
            **_fields("spotBidPrice useOnDemandOnLastAttempt", unneeded("`nodeSelector` and `tolerations` of the chart choose spot nodes")),
            "logUri": unneeded("logs go to standard output; whoever collects the logs of pods keeps them"),
        },
    ),
    "EmrCluster": Kind(
        "resource",
        "not needed: a pod; `terminateAfter` and `region` go to the chart",
        ("terminateAfter", "region", "httpProxy"),
        {
            **_fields(
                "amiVersion releaseLabel applications supportedProducts hadoopVersion hadoopSchedulerType bootstrapAction configuration "
                "enableDebugging emrLogUri masterInstanceType coreInstanceType taskInstanceType coreInstanceCount taskInstanceCount "
                "masterInstanceBidPrice coreInstanceBidPrice taskInstanceBidPrice masterGroupConfiguration coreGroupConfiguration "
                "taskGroupConfiguration masterEbsConfiguration coreEbsConfiguration taskEbsConfiguration "
                "EbsBlockDeviceConfig VolumeSpecification keyPair initTimeout useOnDemandOnLastAttempt standardBootstrapAction",
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
        "`env.HTTPS_PROXY` of the chart",
        ("hostname", "port", "s3NoProxy"),
        {
            "username": todo("a proxy with a login: give the whole URL by `secretEnv` of the chart, as HTTPS_PROXY"),
            **_fields("windowsDomain windowsWorkgroup", todo("a login by NTLM is not supported: let the pods out by another way")),
        },
    ),
    # preconditions
    "S3KeyExists": Kind("precondition", "`requires`", ("s3Key",), {"preconditionTimeout": _LIMIT}),
    "S3PrefixNotEmpty": Kind("precondition", "`requires`, with a slash at its end", ("s3Prefix",), {"preconditionTimeout": _LIMIT}),
    "Exists": Kind("precondition", "`requires`, for the node that has it", (), {"preconditionTimeout": _LIMIT}),
    "DynamoDBTableExists": Kind(
        "precondition",
        "to do: a sensor of Airflow",
        (),
        {"tableName": todo("a table is not looked for: a `PythonSensor` of Airflow, before the task"), "preconditionTimeout": _CHECK},
    ),
    "DynamoDBDataExists": Kind(
        "precondition",
        "to do: a sensor of Airflow",
        (),
        {"tableName": todo("a table is not looked at: `DynamoDBValueSensor` of Airflow, before the task"), "preconditionTimeout": _CHECK},
    ),
    "ShellCommandPrecondition": Kind(
        "precondition",
        "to do: a sensor of Airflow",
        (),
        {
            **_fields("command scriptUri scriptArgument", todo("a command is not run: `BashSensor` of Airflow, before the task")),
            **_fields("stdout stderr", unneeded("the log of the task has both")),
            "preconditionTimeout": todo("`timeout` of that sensor"),
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
        "to do: `postgresql://` of an `enrich` stage",
        (),
        {
            **_fields("rdsInstanceId databaseName", _DATABASE_URL),
            **_fields("jdbcDriverJarUri jdbcProperties", _DRIVER),
            "username": _LOGIN,
            "region": unneeded("the address of the database counts"),
        },
    ),
    "JdbcDatabase": Kind(
        "database",
        "to do: `postgresql://` of an `enrich` stage",
        (),
        {
            **_fields("connectionString databaseName", _DATABASE_URL),
            **_fields("jdbcDriverClass jdbcDriverJarUri jdbcProperties", _DRIVER),
            "username": _LOGIN,
        },
    ),
    # data formats
    "CSV": Kind("data format", "`decode: csv` and `schema`, or `format: csv` of a sink", ("column", "escapeChar")),
    "TSV": Kind(
        "data format", '`decode: {csv: {delimiter: "\\t"}}` and `schema`', ("column", "columnSeparator", "recordSeparator", "escapeChar")
    ),
    "Custom": Kind("data format", "`decode: {csv: {delimiter: ...}}` and `schema`", ("column", "columnSeparator", "recordSeparator")),
    "RegEx": Kind("data format", "a `parse` stage with named groups", ("column", "inputRegEx", "outputFormat")),
    "DynamoDBDataFormat": Kind(
        "data format",
        "to do: see DynamoDBDataNode",
        (),
        {"column": todo("name these columns under `schema` of the pipeline that reads the export")},
    ),
    "DynamoDBExportDataFormat": Kind(
        "data format",
        "to do: export again, to Parquet by Athena or as DynamoDB JSON",
        (),
        {"column": todo("an export of Hive is not read: export the table again by `ExportTableToPointInTime`")},
    ),
    # actions
    "SnsAlarm": Kind(
        "action",
        "`notify.sns`, from `onFail`",
        ("topicArn",),
        {
            "subject": unneeded("a notification is JSON; SNS gives it no subject"),
            "message": unneeded("a notification is JSON, see docs/replay.md"),
        },
    ),
    "Terminate": Kind("action", "not needed: `schedule.deadlineSeconds` ends a run"),
    # the rest
    "Schedule": Kind("schedule", "`schedule.cron` of the chart", ("period", "startDateTime", "startAt", "endDateTime", "occurrences")),
    "ShellScriptConfig": Kind(
        "utility", "to do: a task of Airflow", (), _fields("scriptUri scriptArgument", todo("run it as a task of Airflow"))
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
