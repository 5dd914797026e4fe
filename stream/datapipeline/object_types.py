"""Every object type of AWS Data Pipeline, and what happens to its fields during an import.

The types and fields are those of the object reference in the AWS Data Pipeline Developer Guide. Each field either is translated by another
module of this package, or has a fixed verdict here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stream.datapipeline.verdicts import Verdict, not_needed, to_do


@dataclass(frozen=True, slots=True)
class ObjectType:
    """A type: its ``group`` in the guide, what it ``becomes``, the fields that are ``translated``, and verdicts on the others."""

    group: str
    becomes: str
    translated: tuple[str, ...] = ()
    fields: Mapping[str, Verdict] = field(default_factory=dict)
    advice: str = ""
    """For an activity that cannot be translated: why, and what to do instead."""


_MACHINE: Final = not_needed("a run needs no machine of its own; `resources` in the chart's values sets the CPU and memory of the pod")
_NETWORK: Final = not_needed(
    "the pod uses the network of the cluster: see `networkPolicy` in the chart's values, and the security groups of the nodes"
)
_FAILS: Final = not_needed("a pod that fails is replaced until no attempts are left")
_CLUSTER: Final = not_needed("no Hadoop cluster is needed")
_DATABASE_URL: Final = to_do(
    "name the database as the `table` of an `enrich` stage: `postgresql://host/database` or `redshift:cluster/NAME/DATABASE`"
)
_DRIVER: Final = not_needed("no JDBC driver is used")
_LOGIN: Final = to_do("keep the login in AWS Secrets Manager, and name that secret in the `enrich` stage: `login: {secrets_manager: NAME}`")
_SCRIPT: Final = to_do("the activity has to run elsewhere: see what the report says about it")
_CHECK: Final = to_do("set `timeout` of that Airflow sensor")
_LIMIT: Final = not_needed("a run whose `requires` are missing fails and is repeated, like any failed run")


def _fields(names: str, verdict: Verdict) -> dict[str, Verdict]:
    return dict.fromkeys(names.split(), verdict)


_TASK_CONFIG: Final = _fields(
    "preActivityTaskConfig postActivityTaskConfig", to_do("run these scripts as Airflow tasks before and after this one")
)
_EMR: Final = {
    **_TASK_CONFIG,
    **_fields("hadoopQueue resizeClusterBeforeRunning resizeClusterMaxInstances", _CLUSTER),
    **_fields("input output", _SCRIPT),
}

OBJECT_TYPES: Final[Mapping[str, ObjectType]] = {
    # data nodes
    "S3DataNode": ObjectType(
        "data node",
        "`source.s3` with its decoder and schema, or the sink `s3`",
        ("directoryPath", "filePath", "manifestFilePath", "compression", "dataFormat"),
        {"s3EncryptionType": not_needed("S3 encrypts every object; to use a key of your own, set `encryption.kms_key`")},
    ),
    "RedshiftDataNode": ObjectType(
        "data node",
        "the sink `redshift`",
        ("database", "tableName", "schemaName", "createTableSql", "primaryKeys"),
    ),
    "DynamoDBDataNode": ObjectType(
        "data node",
        "to do: export the table to S3, or read its changes from a Kinesis stream",
        (),
        {
            "tableName": to_do(
                "stream does not read DynamoDB tables: export the table to S3 (`ExportTableToPointInTime`), or read its changes from a "
                "Kinesis stream (`stream init --template dynamodb-stream`)"
            ),
            **_fields("readThroughputPercent writeThroughputPercent", not_needed("an export to S3 uses none of the table's capacity")),
            "dataFormat": not_needed("an export to S3 has its own format"),
            "region": not_needed("a pipeline uses the region of its environment"),
        },
    ),
    "SqlDataNode": ObjectType(
        "data node",
        "to do: use it as the table of an `enrich` stage, or let AWS DMS send it to a Kinesis stream",
        (),
        {
            **_fields("database connectionString", _DATABASE_URL),
            "username": _LOGIN,
            **_fields(
                "table schemaName",
                to_do(
                    "as a reference table, give it to an `enrich` stage (`table`, `query`); as a source, let AWS DMS send it to a "
                    "Kinesis stream"
                ),
            ),
            "selectQuery": to_do("as a reference table, give it to an `enrich` stage (`query`), which cannot contain the time of a run"),
            "insertQuery": to_do(
                "stream does not insert rows over JDBC: load Redshift, or write to S3 and import the files into the database"
            ),
            "createTableSql": to_do("run it once by hand"),
        },
    ),
    "MySqlDataNode": ObjectType(
        "data node",
        "to do: let AWS DMS send it to a Kinesis stream, or export it to S3",
        (),
        {
            "database": _DATABASE_URL,
            "connectionString": to_do(
                "stream does not read MySQL: let AWS DMS send the table to a Kinesis stream (`stream init --template dms-cdc`)"
            ),
            "username": _LOGIN,
            **_fields(
                "table schemaName selectQuery",
                to_do("stream does not read MySQL: let AWS DMS send the table to a Kinesis stream, or export it to S3"),
            ),
            "insertQuery": to_do(
                "stream does not insert rows over JDBC: load Redshift, or write to S3 and import the files into the database"
            ),
            "createTableSql": to_do("run it once by hand"),
        },
    ),
    # activities
    "CopyActivity": ObjectType("activity", "a pipeline file, from S3 to S3 or Redshift", ("input", "output")),
    "RedshiftCopyActivity": ObjectType(
        "activity", "a pipeline file, from S3 to Redshift", ("input", "output", "insertMode", "commandOptions", "transformSql", "queue")
    ),
    "HiveCopyActivity": ObjectType(
        "activity", "a pipeline file, if both sides are S3; `filterSql` becomes a `filter` stage", ("input", "output", "filterSql"), _EMR
    ),
    "SqlActivity": ObjectType(
        "activity",
        "to do: an Airflow task",
        (),
        {
            **_fields(
                "script scriptUri scriptArgument", to_do("run it in Airflow with `RedshiftDataOperator` or `SQLExecuteQueryOperator`")
            ),
            "database": to_do("define an Airflow connection to it, and keep the login in Airflow's secrets backend"),
            "queue": to_do("make `SET query_group` the first statement of the script"),
            **_fields("input output", _SCRIPT),
        },
        "stream does not run SQL in a database: use `RedshiftDataOperator` or `SQLExecuteQueryOperator` in Airflow",
    ),
    "ShellCommandActivity": ObjectType(
        "activity",
        "to do: an Airflow task, or a `python` stage",
        (),
        {
            **_fields("command scriptUri scriptArgument", to_do("run it in Airflow with `BashOperator` or `KubernetesPodOperator`")),
            **_fields("stdout stderr", not_needed("both are in the log of the Airflow task")),
            "stage": to_do("let the task itself copy files in and out, with `aws s3 cp`"),
            **_fields("input output", _SCRIPT),
        },
        "stream does not run shell commands: use `BashOperator` or `KubernetesPodOperator` in Airflow, or write a `python` stage if it "
        "works row by row",
    ),
    "EmrActivity": ObjectType(
        "activity",
        "to do: an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "step preStepCommand postStepCommand", to_do("use `EmrAddStepsOperator` or `EmrServerlessStartJobOperator` in Airflow")
            ),
        },
        "stream does not run EMR steps: use `EmrAddStepsOperator` or `EmrServerlessStartJobOperator` in Airflow",
    ),
    "HadoopActivity": ObjectType(
        "activity",
        "to do: an Airflow task",
        (),
        {**_EMR, **_fields("jarUri mainClass argument", to_do("use `EmrAddStepsOperator` in Airflow"))},
        "stream does not run Hadoop jobs: use `EmrAddStepsOperator` in Airflow",
    ),
    "HiveActivity": ObjectType(
        "activity",
        "to do: a `sql` stage, or an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "hiveScript scriptUri scriptVariable",
                to_do("write what changes rows one by one as a `sql` stage; run the rest in Athena or EMR, from Airflow"),
            ),
            "stage": to_do("not needed in a `sql` stage, which reads the rows of the source under the name `batch`"),
        },
        "stream does not run Hive: write what changes rows one by one as a `sql` stage, and run the rest in Athena or EMR, from Airflow",
    ),
    "PigActivity": ObjectType(
        "activity",
        "to do: stages, or an Airflow task",
        (),
        {
            **_EMR,
            **_fields(
                "script scriptUri scriptVariable",
                to_do("write FILTER and FOREACH as `filter` and `derive` stages; run the rest in EMR, from Airflow"),
            ),
            "stage": to_do("not needed in a `sql` stage, which reads the rows of the source under the name `batch`"),
        },
        "stream does not run Pig: write FILTER and FOREACH as `filter` and `derive` stages, and run the rest in EMR, from Airflow",
    ),
    # resources
    "Ec2Resource": ObjectType(
        "resource",
        "not needed: a run is a pod; `terminateAfter` and `region` go to the chart's values",
        ("terminateAfter", "region", "httpProxy"),
        {
            **_fields("instanceType instanceCount minInstanceCount imageId keyPair runAsUser initTimeout", _MACHINE),
            **_fields("securityGroups securityGroupIds subnetId associatePublicIpAddress availabilityZone", _NETWORK),
            **_fields("actionOnResourceFailure actionOnTaskFailure", _FAILS),
            **_fields(
                "spotBidPrice useOnDemandOnLastAttempt",
                not_needed("to run on spot nodes, set `nodeSelector` and `tolerations` in the chart's values"),
            ),
            "logUri": not_needed("logs go to standard output, where the log collector of the cluster finds them"),
        },
    ),
    "EmrCluster": ObjectType(
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
    "HttpProxy": ObjectType(
        "resource",
        "`env.HTTPS_PROXY` in the chart's values",
        ("hostname", "port", "s3NoProxy"),
        {
            "username": to_do(
                "the proxy needs a login: keep its whole URL in a Kubernetes secret, and pass it as HTTPS_PROXY with `secretEnv` in the "
                "chart's values"
            ),
            **_fields("windowsDomain windowsWorkgroup", to_do("logins with NTLM are not supported: give the pods another way to AWS")),
        },
    ),
    # preconditions
    "S3KeyExists": ObjectType("precondition", "`requires`", ("s3Key",), {"preconditionTimeout": _LIMIT}),
    "S3PrefixNotEmpty": ObjectType("precondition", "`requires`, with a slash at the end", ("s3Prefix",), {"preconditionTimeout": _LIMIT}),
    "Exists": ObjectType(
        "precondition", "`requires`, with the path of the node that has the precondition", (), {"preconditionTimeout": _LIMIT}
    ),
    "DynamoDBTableExists": ObjectType(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            "tableName": to_do("stream does not look for DynamoDB tables: let a `PythonSensor` in Airflow do it, before the task"),
            "preconditionTimeout": _CHECK,
        },
    ),
    "DynamoDBDataExists": ObjectType(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            "tableName": to_do("stream does not look into DynamoDB tables: let a `DynamoDBValueSensor` in Airflow do it, before the task"),
            "preconditionTimeout": _CHECK,
        },
    ),
    "ShellCommandPrecondition": ObjectType(
        "precondition",
        "to do: an Airflow sensor",
        (),
        {
            **_fields(
                "command scriptUri scriptArgument",
                to_do("stream does not run shell commands: let a `BashSensor` in Airflow do it, before the task"),
            ),
            **_fields("stdout stderr", not_needed("both are in the log of the Airflow task")),
            "preconditionTimeout": to_do("set `timeout` of that Airflow sensor"),
        },
    ),
    # databases
    "RedshiftDatabase": ObjectType(
        "database",
        "`cluster` or `workgroup`, `database` and `db_user` of the sink `redshift`",
        ("clusterId", "databaseName", "username", "connectionString", "region"),
        {"jdbcProperties": _DRIVER},
    ),
    "RdsDatabase": ObjectType(
        "database",
        "to do: use it in an `enrich` stage (`postgresql://`)",
        (),
        {
            **_fields("rdsInstanceId databaseName", _DATABASE_URL),
            **_fields("jdbcDriverJarUri jdbcProperties", _DRIVER),
            "username": _LOGIN,
            "region": not_needed("the address of the database is enough"),
        },
    ),
    "JdbcDatabase": ObjectType(
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
    "CSV": ObjectType("data format", "`decode: csv` and `schema`, or `format: csv` of a sink", ("column", "escapeChar")),
    "TSV": ObjectType(
        "data format", '`decode: {csv: {delimiter: "\\t"}}` and `schema`', ("column", "columnSeparator", "recordSeparator", "escapeChar")
    ),
    "Custom": ObjectType("data format", "`decode: {csv: {delimiter: ...}}` and `schema`", ("column", "columnSeparator", "recordSeparator")),
    "RegEx": ObjectType("data format", "a `parse` stage with named groups", ("column", "inputRegEx", "outputFormat")),
    "DynamoDBDataFormat": ObjectType(
        "data format",
        "to do: export the table to S3, or read its changes from a Kinesis stream",
        (),
        {"column": to_do("list these columns under `schema` in the pipeline that reads the export")},
    ),
    "DynamoDBExportDataFormat": ObjectType(
        "data format",
        "to do: export the table again, as DynamoDB JSON (`ExportTableToPointInTime`) or to Parquet with Athena",
        (),
        {"column": to_do("stream does not read exports made by Hive: export the table again with `ExportTableToPointInTime`")},
    ),
    # actions
    "SnsAlarm": ObjectType(
        "action",
        "`notify.sns`, from `onFail`",
        ("topicArn",),
        {
            "subject": not_needed("a notification is a JSON document without a subject"),
            "message": not_needed("a notification is a JSON document, see docs/replay.md"),
        },
    ),
    "Terminate": ObjectType("action", "not needed: `schedule.deadlineSeconds` ends a run"),
    # schedules and utilities
    "Schedule": ObjectType(
        "schedule", "`schedule.cron` in the chart's values", ("period", "startDateTime", "startAt", "endDateTime", "occurrences")
    ),
    "ShellScriptConfig": ObjectType(
        "utility", "to do: an Airflow task", (), _fields("scriptUri scriptArgument", to_do("run it as an Airflow task"))
    ),
    "EmrConfiguration": ObjectType("utility", "not needed", (), _fields("classification property configuration", _CLUSTER)),
    "EbsConfiguration": ObjectType("utility", "not needed", (), _fields("ebsBlockDeviceConfig ebsOptimized", _CLUSTER)),
    "EbsBlockDeviceConfig": ObjectType("utility", "not needed", (), _fields("volumeSpecification volumesPerInstance", _CLUSTER)),
    "VolumeSpecification": ObjectType("utility", "not needed", (), _fields("volumeType sizeInGB iops", _CLUSTER)),
    "Property": ObjectType("utility", "not needed", (), _fields("key value", _CLUSTER)),
}
"""Every type of object, in the order of the guide."""

ACTIVITIES: Final = tuple(name for name, kind in OBJECT_TYPES.items() if kind.group == "activity")
