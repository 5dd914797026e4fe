"""Each hour of an archive, by a `stream` that is installed where the tasks run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable, dag
from stream_airflow import DISPROVED, StreamOperator, account

PIPELINE = "{{ var.value.orders_pipeline }}"
HOUR = {"HOUR": "{{ data_interval_start.strftime('%Y/%m/%d/%H') }}"}
"""What `requires` in the pipeline file makes the name of the hour's marker from."""


@dag(
    # A cron expression alone has had intervals without length since Airflow 3.
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=True,
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=1)},
)
def orders() -> None:
    """Read the objects of the hour, look at what became of them, prove it."""
    read = StreamOperator(
        task_id="read",
        arguments=["backfill", PIPELINE, "--from", "{{ data_interval_start.isoformat() }}", "--to", "{{ data_interval_end.isoformat() }}"],
        env=HOUR,
    )
    verify = StreamOperator(task_id="verify", arguments=["audit", "verify", PIPELINE], env=HOUR, hopeless=DISPROVED, result=False)
    account(read.output, share=0.01) >> verify


orders()
