"""A job over each hour of a stream, started as soon as all that arrived in that hour is in the lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import CronDataIntervalTimetable, dag
from stream_airflow import StreamCompleteSensor


@dag(
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
)
def clicks() -> None:
    """Wait for the hour, then run the command that the variable `clicks_job` holds."""
    complete = StreamCompleteSensor(
        task_id="complete",
        arguments=["{{ var.value.clicks_pipeline }}", "--until", "{{ data_interval_end.isoformat() }}"],
        mode="reschedule",
        poke_interval=60,
        timeout=timedelta(hours=3),
    )
    job = BashOperator(
        task_id="job",
        bash_command="{{ var.value.clicks_job }}",
        env={"HOUR": "{{ data_interval_start.strftime('%Y-%m-%d-%H') }}"},
        append_env=True,
    )
    complete >> job


clicks()
