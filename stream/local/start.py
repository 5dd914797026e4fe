"""The AWS services that the pipeline needs, on this machine: Kinesis from our emulator, the others from moto, each in its own process."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stream.errors import Fatal
from stream.local.moto import moto
from stream.local.process import Helper, helper

NEEDED: Final = ("boto3", "cbor2", "duckdb", "moto")
"""Packages of the extra ``local``: `stream run` works without them."""

MOTO_SERVICES: Final = ("S3", "DYNAMODB", "GLUE", "SNS", "SQS", "STS")


class LocalAws:
    """Context manager; the processes run and are ready from ``__enter__`` to ``__exit__``.

    Args:
        kinesis_port: 0 picks a free one; likewise ``moto_port``.
        region: what ARNs and the environment say.
        throttle: enforce the service's rates per shard.
        transition_ms: how long streams stay ``CREATING`` or ``UPDATING``.
        logs: directory, created if missing, for the processes' logs; None keeps them only until the end.
    """

    def __init__(
        self,
        kinesis_port: int = 0,
        moto_port: int = 0,
        *,
        region: str = "us-east-1",
        throttle: bool = False,
        transition_ms: int = 0,
        logs: Path | None = None,
    ) -> None:
        self._kinesis_arguments = [f"--port={kinesis_port}", f"--region={region}", f"--transition-ms={transition_ms}"]
        self._kinesis_arguments.append("--throttle=real" if throttle else "--throttle=off")
        self._moto_port = moto_port
        self._region = region
        self._logs = logs
        self._stack = ExitStack()
        self._kinesis: Helper | None = None
        self._moto: Helper | None = None

    def __enter__(self) -> Self:
        """Start both.

        Raises:
            Fatal: one of them did not start, or a package that they need is not installed; neither is left running.
        """
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            msg = f"AWS on this machine needs {', '.join(missing)}; install kinesis-stream[local]"
            raise Fatal(msg)
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            log = self._logs / "kinesis.log" if self._logs else None
            self._kinesis = stack.enter_context(helper("stream.local.kinesis", self._kinesis_arguments, log=log))
            self._moto = stack.enter_context(moto(self._moto_port, log=self._logs / "moto.log" if self._logs else None))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop both."""
        self._stack.__exit__(kind, error, trace)
        self._kinesis = self._moto = None

    @property
    def kinesis(self) -> Helper:
        """URL of the Kinesis emulator; ``POST <url>/_faults`` adds faults."""
        return _running(self._kinesis)

    @property
    def moto(self) -> Helper:
        """URL of the server of all other services."""
        return _running(self._moto)

    def environment(self) -> dict[str, str]:
        """Environment variables with which any unmodified AWS client talks to this machine only."""
        return environment(self.kinesis.url, self.moto.url, self._region)


def environment(kinesis: str, others: str, region: str = "us-east-1") -> dict[str, str]:
    """Environment variables that point AWS clients to ``kinesis`` and, for all else, to ``others``, with credentials for emulators.

    Nothing leads to AWS itself. Calls of the Redshift Data API go to ``kinesis``, which refuses them: moto would answer with made-up rows.
    """
    return {
        "AWS_ENDPOINT_URL": others,
        "AWS_ENDPOINT_URL_KINESIS": kinesis,
        "AWS_ENDPOINT_URL_REDSHIFT_DATA": kinesis,
        **{f"AWS_ENDPOINT_URL_{service}": others for service in MOTO_SERVICES},
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _running(process: Helper | None) -> Helper:
    if process is None:
        message = "LocalAws is not running: use it inside its `with` block"
        raise RuntimeError(message)
    return process
