"""LocalStack in the foreground, on one loopback port, writing below one directory; run by the Python of its own environment.

Arguments: the port, and the directory. Standard output and error are LocalStack's log.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

SERVICES = ("cloudformation", "cloudwatch", "dynamodb", "iam", "kinesis", "kms", "logs", "s3", "secretsmanager", "sns", "ssm", "sts")
LOOPBACK = Path(__file__).parents[1] / "contract" / "loopback.cjs"


def main(port: str, folder: str) -> None:
    os.environ.update(
        {
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "SERVICES": ",".join(SERVICES),
            "FILESYSTEM_ROOT": folder,
            # Wherever it suspects a container it would write to that container's directories.
            "OVERRIDE_IN_DOCKER": "0",
            "KINESIS_MOCK_PROVIDER_ENGINE": "node",
            "KINESIS_SHARD_LIMIT": "500",
            "KINESIS_LATENCY": "0",
            "NODE_OPTIONS": f"--require {LOOPBACK}",
            "LOOPBACK_PORTS": "kept",
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "EAGER_SERVICE_LOADING": "0",
        }
    )
    from localstack.runtime.main import main as run
    from localstack.services import providers
    from twisted.internet import endpoints

    # The runtime's server takes the port of GATEWAY_LISTEN and drops the host.
    endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")
    # The usual provider downloads DynamoDB Local.
    providers.dynamodb = dynamodb_by_moto()
    run()


def dynamodb_by_moto() -> Any:
    """A provider that answers every DynamoDB call from moto, in LocalStack's own process."""
    from localstack.aws.api.dynamodb import DynamodbApi
    from localstack.services.moto import MotoFallbackDispatcher
    from localstack.services.plugins import Service, aws_provider

    class ByMoto(DynamodbApi):
        pass

    return aws_provider(api="dynamodb")(lambda: Service.for_provider(ByMoto(), dispatch_table_factory=MotoFallbackDispatcher))


if __name__ == "__main__":
    main(*sys.argv[1:])
