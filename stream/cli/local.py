"""``stream local``: run AWS on this machine until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import Fatal

if libraries_wanted():
    from stream.local.start import LocalAws


def local(
    port: Annotated[int, typer.Option(help="Port of the Kinesis emulator; 0 picks a free one.", min=0, max=65535)] = 4567,
    moto_port: Annotated[int, typer.Option(help="Port of all other services; 0 picks a free one.", min=0, max=65535)] = 4568,
    region: Annotated[str, typer.Option(help="Region in ARNs and in the environment.")] = "us-east-1",
    throttle: Annotated[bool, typer.Option("--throttle/--no-throttle", help="Enforce the rate limits of real shards.")] = False,
    transition_ms: Annotated[int, typer.Option(help="Milliseconds for which streams stay CREATING or UPDATING.", min=0)] = 0,
    logs: Annotated[Path | None, typer.Option(help="Write the logs of the emulators to this directory.")] = None,
) -> None:
    """Run Kinesis, S3, DynamoDB, Glue, SNS, SQS and STS on this machine, and print the environment variables that point to them.

    Runs until Ctrl-C or SIGTERM; all data is then discarded.

    Exit code 0: it was stopped; 1: it could not start, for example because a port is in use; 2: an option is wrong.
    """
    done = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        done.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with LocalAws(port, moto_port, region=region, throttle=throttle, transition_ms=transition_ms, logs=logs) as aws:
            typer.echo("".join(f"export {name}={value}\n" for name, value in aws.environment().items()), nl=False)
            sys.stdout.flush()
            done.wait()
    except (Fatal, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
