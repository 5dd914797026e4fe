"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stream.contracts import Start
from stream.pipeline.units import format_duration
from stream.transform.decompress import Compression


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    shown = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(lines[0]), *shown[1:]])


def default_text(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if value in (None, (), "", {}):
        return ""
    if isinstance(value, Start):
        return f"`{value.kind.value}`"
    if hasattr(value, "total_seconds"):
        return f"`{format_duration(value)}`"
    if isinstance(value, Compression):
        return f"`{value.codec.value}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" if each else "empty text" for each in value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value // 2**20}MiB`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
