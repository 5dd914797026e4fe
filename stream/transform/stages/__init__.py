"""The built-in stages, one file each."""

from __future__ import annotations

from typing import Final

from stream.transform.stage import StageConfig
from stream.transform.stages.cast import Cast
from stream.transform.stages.dedupe import Dedupe
from stream.transform.stages.derive import Derive
from stream.transform.stages.enrich import Enrich
from stream.transform.stages.explode import Explode
from stream.transform.stages.filter import Filter
from stream.transform.stages.flatten import Flatten
from stream.transform.stages.lookup import Lookup
from stream.transform.stages.mask import Mask
from stream.transform.stages.parse import Parse
from stream.transform.stages.python import Python
from stream.transform.stages.rename import Rename
from stream.transform.stages.select import Select
from stream.transform.stages.sql import Sql
from stream.transform.stages.validate import Validate

STAGES: Final[tuple[type[StageConfig], ...]] = (
    Cast,
    Dedupe,
    Derive,
    Enrich,
    Explode,
    Filter,
    Flatten,
    Lookup,
    Mask,
    Parse,
    Python,
    Rename,
    Select,
    Sql,
    Validate,
)
"""Every stage; a new one needs a file in this folder and an entry here."""
