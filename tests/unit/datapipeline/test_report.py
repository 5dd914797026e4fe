"""For every definition, the report covers every field, and its page is valid."""

import copy
import json

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from stream.datapipeline.report import markdown
from stream.datapipeline.translate import import_definition
from stream.errors import DefinitionError
from tests.unit.datapipeline.golden import SAMPLES

DOCUMENTS = [json.loads(each.read_text()) for each in SAMPLES if each.stem != "from-the-api"]
TEXTS = st.sampled_from(
    [
        "",
        "#{",
        "#{name}",
        "#{node.input}",
        "#{@scheduledStartTime}",
        "#{1/0}",
        "s3://",
        "s3://a-b/#{@scheduledEndTime}",
        "${X",
        "a\nb|`",
        "\0",
        "1 day",
    ]
) | st.text(max_size=12)
FIELDS = st.sampled_from(
    ["input", "output", "dataFormat", "schedule", "parent", "type", "column", "filePath", "period", "id", "onFail", "my*"]
)


@st.composite
def definitions(draw):
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 4))):
        item = draw(st.sampled_from(document["objects"]))
        name = draw(st.sampled_from(sorted(item)) | FIELDS)
        ids = st.sampled_from([each.get("id", "?") for each in document["objects"]])
        item[name] = draw(TEXTS | ids.map(lambda each: {"ref": each}) | st.lists(TEXTS, max_size=3) | st.none() | st.integers())
    return document


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(definitions())
def test_any_definition_is_refused_or_fully_reported(document):
    text = json.dumps(document).encode()
    try:
        done = import_definition(text, "old.json", (), "", lambda _text, _env: "")
    except DefinitionError as error:
        reported = str(error).splitlines()
        event("refused")
    else:
        reported = []
        accounted_for(done, document)
    assert all(line.startswith(("old.json", "and ")) for line in reported)


def accounted_for(done, document):
    rows = [(each.object, each.field) for each in done.rows if each.type != "parameter"]
    assert rows == [(each["id"], name) for each in document["objects"] for name in each]
    page = markdown(done)
    assert "canary" not in page + "".join(done.files.values())
    assert page.count("\n| `") == len(done.rows)
