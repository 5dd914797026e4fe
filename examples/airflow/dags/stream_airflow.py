"""Runs of `stream` that end, as tasks of Airflow, in a process or in a pod; and a sensor. They know which exit codes are worth a try."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import models as k8s

WRONG_DEFINITION = frozenset({2})
"""Of `stream run`, `backfill` and `dlq redrive`: the pipeline file or the command is wrong, and stays so."""

NOT_YET = 1
"""Of `stream complete`: something is missing that may still come. Its 2 says that nobody can tell, or that the command is wrong."""

DISPROVED = frozenset({1})
"""Of `stream audit verify`: the proof does not hold. Its 2 says that something could not be looked at, which may pass."""


def judge(what: str, exit_code: int, hopeless: frozenset[int], told: str = "") -> None:
    """Return if ``exit_code`` is 0.

    Raises:
        AirflowFailException: it is one of ``hopeless``: the task fails at once.
        AirflowException: it is another one: the task is tried again while it has retries.
    """
    if exit_code == 0:
        return
    message = f"{what} ended with exit code {exit_code}{told and f': {told}'}"
    if exit_code in hopeless:
        message += ". Another try would end in the same way."
        raise AirflowFailException(message)
    raise AirflowException(message)


class StreamOperator(BaseOperator):
    """Runs `stream` with ``arguments`` on this machine.

    Its output is in the task's log; the result document is the task's XCom, however it ends. Whoever stops the task stops `stream` by
    SIGTERM, which seals what it has in hand. ``env`` is laid upon the environment of the worker. ``result``: whether the command knows
    `--result`.
    """

    template_fields: Sequence[str] = ("arguments", "env")

    def __init__(
        self,
        *,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        hopeless: frozenset[int] = WRONG_DEFINITION,
        result: bool = True,
        **of_every_task: Any,
    ) -> None:
        super().__init__(**of_every_task)
        self.arguments = list(arguments)
        self.env = dict(env or {})
        self.hopeless = hopeless
        self.result = result
        self._process = SubprocessHook()

    def execute(self, context: Any) -> dict[str, Any] | None:
        """Run it to its end."""
        with TemporaryDirectory() as folder:
            result = Path(folder, "result.json")
            more = ["--result", str(result)] if self.result else []
            ended = self._process.run_command(["stream", *self.arguments, *more], env={**os.environ, **self.env})
            document = json.loads(result.read_bytes()) if result.exists() else None
        if ended.exit_code and document is not None:
            context["ti"].xcom_push(key="return_value", value=document)
        judge(f"stream {self.arguments[0]}", ended.exit_code, self.hopeless, document["error"] if document else ended.output)
        return document

    def on_kill(self) -> None:
        """The task is to stop: so is `stream`."""
        self._process.send_sigterm()


class StreamCompleteSensor(BaseSensorOperator):
    """Waits until `stream complete` with ``arguments`` says yes; its answer is the task's XCom.

    Each poke asks once, so that with ``mode="reschedule"`` nobody is kept waiting in between. ``env`` is laid upon the environment of the
    worker.
    """

    template_fields: Sequence[str] = ("arguments", "env")

    def __init__(self, *, arguments: Sequence[str], env: Mapping[str, str] | None = None, **of_every_sensor: Any) -> None:
        super().__init__(**of_every_sensor)
        self.arguments = list(arguments)
        self.env = dict(env or {})

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002 - the signature is the library's
        """Whether it is complete; what cannot be known fails the task, which is tried again while it has retries."""
        command = ["stream", "complete", *self.arguments, "--json"]
        asked = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
        if asked.returncode not in {0, NOT_YET}:
            judge("stream complete", asked.returncode, frozenset(), asked.stderr.strip() or asked.stdout.strip())
        answer = json.loads(asked.stdout)
        self.log.info("%s: complete up to %s", answer["verdict"], answer["complete_up_to"])
        return PokeReturnValue(is_done=answer["complete"], xcom_value=answer)


class StreamPodOperator(KubernetesPodOperator):
    """A pod of the image of `stream`; a wrong definition fails the task at once, whatever retries it has."""

    def __init__(self, *, hopeless: frozenset[int] = WRONG_DEFINITION, **of_every_pod: Any) -> None:
        super().__init__(**of_every_pod)
        self.hopeless = hopeless

    def cleanup(self, pod: k8s.V1Pod, remote_pod: k8s.V1Pod, *args: Any, **kwargs: Any) -> None:
        """What every pod's end asks for, and then the verdict on its exit code."""
        try:
            super().cleanup(pod, remote_pod, *args, **kwargs)
        except AirflowException as error:
            exit_code = exit_code_of(remote_pod, self.base_container_name)
            if exit_code is not None:
                judge(f"pod {remote_pod.metadata.name}", exit_code, self.hopeless, str(error))
            raise


def exit_code_of(pod: k8s.V1Pod, container: str) -> int | None:
    """How ``container`` ended; None if it has not, or was never started."""
    for status in (pod.status and pod.status.container_statuses) or []:
        if status.name == container and status.state and status.state.terminated:
            return int(status.state.terminated.exit_code)
    return None


def complaints(document: Mapping[str, Any], share: float) -> list[str]:
    """What is wrong with the result of a run: sums that do not agree, shards that stand still, more dead letters than ``share``."""
    records, outcomes, shards = document["records"], document["outcomes"], document["shards"]
    found = [
        f"{records} records, but the {what} come to {total}"
        for what, total in (("outcomes", sum(outcomes.values())), ("shards", sum(shard["records"] for shard in shards)))
        if total != records
    ]
    if (units := sum(shard["units"] for shard in shards)) != document["units"]:
        found.append(f"{document['units']} units, but those of the shards come to {units}")
    found += [f"{shard['stream']}/{shard['shard']} stands still: {shard['reason']}" for shard in shards if shard["state"] == "halted"]
    dead = outcomes.get("dead_lettered", 0)
    if dead > share * records:
        found.append(f"{dead} of {records} records are dead letters, more than {share:.2%}; `stream dlq top` says why")
    return found


@task(retries=0)
def account(document: dict[str, Any], share: float) -> dict[str, int]:
    """Fail the run if its result document leaves a question; otherwise the number of records by outcome."""
    if found := complaints(document, share):
        raise AirflowFailException("\n".join(found))
    return dict(document["outcomes"])
