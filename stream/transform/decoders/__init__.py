"""The built-in decoders, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stream.transform.decode import DecoderConfig
from stream.transform.decoders.avro import Avro
from stream.transform.decoders.cloudwatch_logs import CloudwatchLogs
from stream.transform.decoders.csv import Csv
from stream.transform.decoders.dms import Dms
from stream.transform.decoders.dynamodb_stream import DynamodbStream
from stream.transform.decoders.json import Json
from stream.transform.decoders.json_lines import JsonLines
from stream.transform.decoders.protobuf import Protobuf
from stream.transform.decoders.raw import Raw

DECODERS: Final[Mapping[str, type[DecoderConfig]]] = {
    decoder.name: decoder for decoder in (Avro, CloudwatchLogs, Csv, Dms, DynamodbStream, Json, JsonLines, Protobuf, Raw)
}
"""Every decoder by the name it has in a definition."""
