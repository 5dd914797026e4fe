"""CloudFormation templates of the examples, read with their parameters filled in, and the parts of policies to compare."""

import re

import yaml

from stream.pipeline.access.actions import Account

HERE = Account("111122223333", "eu-west-1")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1"
GIVEN = {
    "AWS::Partition": "aws",
    "AWS::Region": HERE.region,
    "AWS::AccountId": HERE.number,
    "AWS::URLSuffix": "amazonaws.com",
    "Application": "orders",
    "Stream": "orders-2",
    "LakeBucket": "my-lake",
    "StateBucket": "my-state",
    "KeyArn": KEY,
}


class Loader(yaml.SafeLoader):
    """Reads the template with its parameters filled in as in ``GIVEN``; other references stay as they are named."""


def filled(loader, tag, node):
    if tag == "Ref":
        return GIVEN.get(loader.construct_scalar(node), f"!{node.value}")
    if tag == "Sub":
        return re.sub(r"\$\{([\w:]+)\}", lambda found: GIVEN[found[1]], loader.construct_scalar(node))
    if tag == "GetAtt":
        return f"!{loader.construct_scalar(node)}"
    if tag == "If":
        return loader.construct_sequence(node, deep=True)[1]
    return loader.construct_sequence(node, deep=True)


Loader.add_multi_constructor("!", filled)


def read_template(path):
    return yaml.load(path.read_text(), Loader)  # noqa: S506 - the loader is safe, and the file is ours


def without_conditions(document):
    return {**document, "Statement": [{key: value for key, value in each.items() if key != "Condition"} for each in document["Statement"]]}


def prefixes(document):
    return {
        (bucket, prefix)
        for each in document["Statement"]
        if "StringLike" in each.get("Condition", {})
        for bucket in ([each["Resource"]] if isinstance(each["Resource"], str) else each["Resource"])
        for prefix in each["Condition"]["StringLike"]["s3:prefix"]
    }
