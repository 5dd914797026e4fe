"""``stream iam``: least-privilege IAM policies and trust policies for a pipeline, and how a live policy differs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File
from stream.errors import DefinitionError
from stream.pipeline.access.role_names import AUDIENCE, Role

if libraries_wanted():
    from stream.cli.explain import checked
    from stream.pipeline.access.actions import Account
    from stream.pipeline.access.grants import compare
    from stream.pipeline.access.roles import ServiceAccount, accesses, partition_of, policy, trust
    from stream.pipeline.access.sharing import resource_policies
    from stream.pipeline.findings import near_miss
    from stream.pipeline.model import Pipeline
    from stream.pipeline.regions import REGIONS

EXIT_DIFFERENT = 1
EXIT_DEFINITION = 2


ResourcePolicies = Annotated[
    bool,
    typer.Option(
        "--resource-policy",
        help="Print instead what owners of streams in other accounts must allow --account: by ARN, the resource policy.",
    ),
]
Live = Annotated[
    Path | None,
    typer.Option(
        "--diff", help="File with a live policy of the role as JSON: print what it lacks, and what it grants beyond what is needed."
    ),
]


def iam(
    file: File,
    *,
    account: Annotated[str, typer.Option("--account", help="AWS account, 12 digits.", show_default=False)],
    region: Annotated[str, typer.Option("--region", help="AWS region of the stream and the tables.", show_default=False)],
    role: Annotated[Role | None, typer.Option("--role", help="Print only the policy of this role.", show_default="all of them")] = None,
    trusted: Annotated[
        bool, typer.Option("--trust", help="With --role: print its trust policy (who may assume it) instead of its permissions.")
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", help="Kubernetes namespace of the pods.")] = "default",
    service_account: Annotated[str, typer.Option("--service-account", help="Kubernetes service account of the pods.")] = "stream",
    cluster: Annotated[
        str,
        typer.Option("--cluster", help="Name of the EKS cluster whose pods may assume the role through Pod Identity.", show_default="any"),
    ] = "",
    issuer: Annotated[
        str,
        typer.Option("--oidc-issuer", help="URL of the cluster's OIDC provider; the trust is then for IRSA.", show_default="Pod Identity"),
    ] = "",
    audience: Annotated[str, typer.Option("--audience", help="With --oidc-issuer: audience of the token.")] = AUDIENCE,
    keys: Annotated[list[str] | None, typer.Option("--kms-key", help="ARN of another KMS key in use; may be repeated.")] = None,
    shared: ResourcePolicies = False,
    live: Live = None,
) -> None:
    """Print a pipeline's least-privilege IAM policies, one per role, and who may assume each role.

    The roles are bootstrap (creates the AWS resources), worker, redshift-copy (Redshift reads staged files), backfill, reader (`stream
    status`, `complete` and `shards`), analyst (`stream query`), function (of AWS Lambda, named after the application), transform (a
    function of Amazon Data Firehose, named <application>-transform), firehose (Firehose itself), operator (`stream pause` and `stream
    resume`), and compactor (`stream compact`). Reads nothing over the network.

    Exit code 0: printed, or the live policy is equivalent; 1: the live policy differs; 2: the pipeline file or an option is wrong.
    """
    try:
        pipeline = checked(file)
        where = Account(_number(account), region, partition_of(region))
        if region not in REGIONS:
            typer.echo(f"note: AWS had no region {region!r} when this version was made; {near_miss(region, REGIONS)}", err=True)
        if shared:
            _print(_resource_policies(pipeline, where))
            return
        who = ServiceAccount(namespace, service_account, cluster, issuer, audience)
        policies = _policies(pipeline, where, keys or ())
        trusts = {each: trust(each, where, who) for each in policies}
        if role is not None and role not in policies:
            msg = f"this pipeline does not need the role {role}; it needs {', '.join(policies)}"
            raise DefinitionError(msg)
        if live is not None:
            _differ(policies[role or Role.WORKER], _read(live), role or Role.WORKER)
            return
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    if role is not None:
        _print(trusts[role] if trusted else policies[role])
    else:
        _print({each: {"policy": policies[each], "trust": trusts[each]} for each in policies})


def _resource_policies(pipeline: Pipeline, where: Account) -> dict[str, Any]:
    if not (found := resource_policies(pipeline, where)):
        msg = f"the pipeline reads no stream of an account other than {where.number}; such streams are given by their ARNs"
        raise DefinitionError(msg)
    return found


def _policies(pipeline: Pipeline, where: Account, keys: Iterable[str]) -> dict[Role, Any]:
    """The policy of each role that the pipeline needs. ``keys``: ARNs of KMS keys in use, besides the pipeline's own."""
    own = {pipeline.encryption.kms_key} if pipeline.encryption is not None else set()
    used = {role: needs for role in Role if (needs := accesses(pipeline, role, where))}
    return {
        role: policy(needs, () if role is Role.BOOTSTRAP else own.union(keys), where.region, where.partition)
        for role, needs in used.items()
    }


def _differ(wanted: Any, live: Any, role: Role) -> None:
    found = compare(wanted, live)
    for sign, grants in (("-", found.missing), ("+", found.excess)):
        for grant in grants:
            typer.echo(f"{sign} {grant}")
    if found:
        typer.echo(f"{role}: {len(found.missing)} missing (-), {len(found.excess)} too much (+)", err=True)
        raise typer.Exit(EXIT_DIFFERENT)
    typer.echo(f"{role}: the live policy allows exactly what is needed")


def _number(account: str) -> str:
    if len(account) != 12 or not account.isdecimal():
        msg = f"--account is {account!r}; an AWS account has 12 digits; `aws sts get-caller-identity` prints yours"
        raise DefinitionError(msg)
    return account


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} cannot be read as JSON: {error}"
        raise DefinitionError(msg) from error


def _print(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
