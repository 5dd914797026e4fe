from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from stream.pipeline.wording import worded


class Options(BaseModel):
    kind: Literal["parquet", "ndjson"] = "parquet"
    rows: Annotated[int, Field(ge=1, le=10)] = 1
    share: float = 0.5
    on: bool = True
    name: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]+$")] = "ab"
    many: tuple[str, ...] = ()
    inner: dict[str, int] = {}


def said(**given):
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(given)
    return worded(caught.value.errors(include_url=False)[0], "what it is for")


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"kind": "parket"}, "'parket' is not allowed here; allowed: parquet, ndjson", "did you mean `parquet`?"),
        ({"kind": "xyz"}, "'xyz' is not allowed here; allowed: parquet, ndjson", ""),
        ({"rows": "many"}, "expected a whole number, got 'many'", "what it is for"),
        ({"rows": 1.5}, "expected a whole number, got 1.5", "what it is for"),
        ({"rows": 11}, "11 is out of range: at most 10", "what it is for"),
        ({"rows": 0}, "0 is out of range: at least 1", "what it is for"),
        ({"share": "half"}, "expected a number, got 'half'", "what it is for"),
        ({"on": "maybe"}, "expected true or false, got 'maybe'", "what it is for"),
        ({"name": 5}, "expected text, got 5", "what it is for"),
        ({"name": None}, "expected text, got nothing", "what it is for"),
        ({"name": ["a"]}, "expected text, got a list", "what it is for"),
        ({"name": {"a": 1}}, "expected text, got a mapping", "what it is for"),
        ({"name": "a"}, "'a' has 1 characters; allowed: at least 2", "what it is for"),
        ({"name": "abcd"}, "'abcd' has 4 characters; allowed: at most 3", "what it is for"),
        ({"name": "A1"}, "'A1' does not have the required form", "what it is for"),
        ({"many": "a"}, "expected a list, each item after a dash, got 'a'", "write [a]"),
        ({"many": {"a": 1}}, "expected a list, each item after a dash, got a mapping", ""),
        ({"many": "a b: c"}, "expected a list, each item after a dash, got 'a b: c'", ""),
        ({"inner": "a"}, "expected a mapping, each entry as `name: value`, got 'a'", ""),
        ({"rows": "x" * 100}, f"expected a whole number, got '{'x' * 56}...", "what it is for"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_the_allowed_ones(given, message, hint):
    assert said(**given) == (message, hint)
