"""Translates a definition: one pipeline for each activity that has a counterpart, and a verdict on everything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from stream.datapipeline.definition import parse
from stream.datapipeline.draft import PIPELINE, VALUES, Draft, Refused, bucket_of
from stream.datapipeline.fields import Fields, Row
from stream.datapipeline.formats import Reading, columns_of
from stream.datapipeline.kinds import ACTIVITIES, KINDS
from stream.datapipeline.places import Written, match_columns, read_from, shape, write_to
from stream.datapipeline.redshift import load_into
from stream.datapipeline.resolve import Definition, Slot, Thing, resolve
from stream.datapipeline.running import run_by
from stream.datapipeline.tables import suggest
from stream.datapipeline.texts import Untranslatable, shown
from stream.datapipeline.verdicts import Fate
from stream.datapipeline.waiting import notify, wait_for
from stream.datapipeline.writing import pipeline_text, values_text

Check: TypeAlias = Callable[[str, Mapping[str, str]], str]
"""Checks the text of a pipeline file in an environment. Returns the first error, or an empty text if it is valid."""

_TIMES: Final = {"%Y": "2026", "%y": "26", "%m": "01", "%d": "31", "%H": "05", "%M": "30", "%S": "00", "%j": "031", "%I": "05", "%p": "AM"}


@dataclass(frozen=True, slots=True)
class Link:
    """Activity ``then`` runs after ``first``. ``why``: its `dependsOn`, or a node that one writes and the other reads."""

    first: str
    then: str
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for an activity: the name of its pipeline, and what is left to do; or, without a name, why it has no pipeline."""

    activity: str
    type: str
    name: str
    todo: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    window: tuple[str, str] | None = None
    """Templates of Airflow for the interval that a run reads; None if it reads what is new."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import: ``files`` by path, ``rows`` for every field of every object, the activities, and the links between them."""

    definition: str
    files: Mapping[str, str]
    rows: tuple[Row, ...]
    outcomes: tuple[Outcome, ...]
    links: tuple[Link, ...]

    def count(self, fate: Fate) -> int:
        """How many fields had that fate."""
        return sum(each.fate is fate for each in self.rows)


def import_definition(text: bytes, name: str, more: Iterable[tuple[str, bytes]], state: str, check: Check) -> Imported:
    """Translate the definition ``text``, called ``name``, with the parameters and values of ``more``.

    ``state``: where pipelines keep their state; if empty, `_stream/` in the bucket that they write to. Every pipeline file of the result
    has passed ``check``. No file and no row holds a secret of the definition.

    Raises:
        DefinitionError: it is no definition; every fault is named with its place and what to do.
    """
    definition = resolve(parse(text, name, more), name, KINDS)
    fields = Fields(definition)
    work = _Work(definition, fields, name.rpartition("/")[2], state, check)
    for activity in _in_dependency_order(definition):
        work.take(activity)
    suggest(definition, fields)
    outcomes = tuple(work.outcomes[each] for each in definition.things if each in work.outcomes)
    return Imported(work.name, work.files, tuple(fields.rows(work.used)), outcomes, tuple(_links(definition)))


def _activities(definition: Definition) -> list[Thing]:
    parents = {each for item in definition.items.values() for each in item.refs("parent")}
    found = [each for each in definition.things.values() if each.type in ACTIVITIES]
    return [each for each in found if each.id not in parents or each.has("output")]


def _in_dependency_order(definition: Definition) -> list[Thing]:
    """The activities, each after those that it depends on, except for circular dependencies."""
    waits: dict[str, set[str]] = {}
    for link in _links(definition):
        waits.setdefault(link.then, set()).add(link.first)
    left, ordered = _activities(definition), []
    while left:
        ready = [each for each in left if not waits.get(each.id, set()) & {one.id for one in left}] or left[:1]
        ordered += ready
        left = [each for each in left if each not in ready]
    return ordered


def _links(definition: Definition) -> list[Link]:
    activities = _activities(definition)
    known = {each.id for each in activities}
    made: dict[tuple[str, str], Link] = {}
    for then in activities:
        for first in then.slot("dependsOn").ids:
            if first in known and first != then.id:
                made.setdefault((first, then.id), Link(first, then.id, "`dependsOn`"))
        for other in activities:
            shared = [each for each in then.slot("input").ids if each in other.slot("output").ids]
            if shared and other is not then:
                made.setdefault((other.id, then.id), Link(other.id, then.id, f"`{shared[0]}`, which one writes and the other reads"))
    return list(made.values())


@dataclass(slots=True)
class _Work:
    definition: Definition
    fields: Fields
    name: str
    state: str
    check: Check
    files: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)
    """What pipelines write to nodes."""
    places: dict[str, str] = field(default_factory=dict)
    """Where pipelines write their files, and which activity it is."""
    used: set[tuple[str, str]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def take(self, activity: Thing) -> None:
        """Translate one activity, or note why there is no pipeline for it."""
        id_slot = Slot(activity.id, "id", (activity.id,))
        kind = KINDS[activity.type]
        if kind.advice:
            self._refuse(activity, id_slot, kind.advice)
            return
        name = self._unique(activity.id)
        draft = Draft(name, self._application(name), activity, self.definition)
        try:
            self._fill(draft)
            texts = self._texts(draft)
        except (Refused, Untranslatable) as refused:
            self._refuse(activity, id_slot, str(refused) if isinstance(refused, Refused) else f"a value {refused}")
            return
        for slot, verdict in draft.notes:
            self.fields.note(slot, verdict)
        self.fields.taken(id_slot, f"`{draft.name}/{PIPELINE}`")
        self.used |= draft.used
        self.files |= {f"{draft.name}/{file}": text for file, text in texts.items()}
        for node in self.definition.of(activity.slot("output")):
            if "s3" in draft.sink:
                self.written[node.id] = Written(draft.sink["s3"]["format"], draft.columns)
                self.places.setdefault(_known(draft.sink["s3"]["url"]), activity.id)
        window = draft.interval if draft.needs.times and "time" in draft.source["s3"] else None
        self.outcomes[activity.id] = Outcome(
            activity.id, activity.type, draft.name, tuple(draft.todo), shown(draft.needs.times, draft.interval), window
        )

    def _refuse(self, activity: Thing, slot: Slot, why: str) -> None:
        self.fields.open(slot, f"no pipeline file: {why}")
        self.outcomes[activity.id] = Outcome(activity.id, activity.type, "", (why,))

    def _application(self, name: str) -> str:
        file = _slug(self.name.rpartition(".")[0])
        return f"{file}-{name}" if file else name

    def _unique(self, name: str) -> str:
        slug = _slug(name) or "activity"
        made, number = slug, 1
        while made in self.names:
            number += 1
            made = f"{slug}-{number}"
        self.names.add(made)
        return made

    def _fill(self, draft: Draft) -> None:
        nodes = [self._node(draft, each) for each in ("input", "output")]
        source, target = nodes
        copy = draft.plains(draft.activity, "commandOptions") if draft.activity.type == "RedshiftCopyActivity" else None
        reading = read_from(draft, source, copy, self.written.get(source.id))
        if target.type == "RedshiftDataNode":
            load_into(draft, target, reading)
        elif target.type == "S3DataNode":
            self._copy(draft, target, reading)
        else:
            msg = f"it writes to `{target.id}`, a {target.type}: load Redshift, or write S3 and let the database import from there"
            raise Refused(msg)
        _filter(draft)
        wait_for(draft, nodes)
        notify(draft, nodes)
        run_by(draft, nodes)
        self._keep_state(draft)

    def _node(self, draft: Draft, name: str) -> Thing:
        slot = draft.activity.slot(name)
        found = self.definition.of(slot)
        if len(found) != 1:
            msg = f"`{draft.activity.id}` has {len(found)} of `{name}`; one is what it needs: make an activity of each, and import again"
            raise Refused(msg)
        draft.taken(slot, "source" if name == "input" else "sinks")
        return found[0]

    def _copy(self, draft: Draft, target: Thing, reading: Reading) -> None:
        form = self.definition.one(target.slot("dataFormat"))
        theirs = tuple(columns_of(draft.plains(form, "column"))) if form is not None else ()
        columns = reading.columns or theirs
        if not columns:
            msg = (
                f"the columns of what `{draft.activity.slot('input').ids[0]}` holds are named nowhere: give its dataFormat a `column` "
                'for each, as ["id INT", "name STRING"], and import again'
            )
            raise Refused(msg)
        shape(draft, replace(reading, columns=columns))
        if form is not None and theirs:
            if reading.columns:
                match_columns(draft, theirs, form.slot("column"), f"`{form.id}`")
            else:
                draft.taken(form.slot("column"), "source.schema")
        write_to(draft, target)

    def _keep_state(self, draft: Draft) -> None:
        """Choose a location for the state that is neither in the source nor in a sink, and one beside it for staged files."""
        source = _known(draft.source["s3"]["url"])
        sink = _known(draft.sink["s3"]["url"]) if "s3" in draft.sink else ""
        logs = draft.activity.slot("pipelineLogUri").text
        buckets = [bucket_of(each) for each in (sink, source, logs)]
        places = [self.state] if self.state else [f"s3://{each}/_stream/" for each in buckets if each]
        fits = [each for each in places if not each.startswith(source) and not (sink and each.startswith(sink))]
        if not fits:
            msg = f"there is no place for its state outside {source} and what it writes: name one by --state, and import again"
            raise Refused(msg)
        draft.state = fits[0]
        if "redshift" in draft.sink:
            root = draft.state.rstrip("/").rpartition("/")[0]
            draft.sink["redshift"]["staging"] = f"${{STAGING:-{root}/_staging/{draft.application}/}}"
        if sink and (sink.startswith(source) or source.startswith(sink)):
            draft.open(
                draft.activity.slot("output"), f"it would read what it writes: {sink} and {source} lie inside each other; separate them"
            )
            draft.held = True
        for place, other in self.places.items():
            if sink and (sink.startswith(place) or place.startswith(sink)):
                draft.open(
                    draft.activity.slot("output"),
                    f"`{other}` writes below {place}, too: write each one's files to a place of its own, for `stream audit verify`",
                )
                draft.held = True

    def _texts(self, draft: Draft) -> dict[str, str]:
        """The files of the pipeline. Stages that are not valid here are left out and noted."""
        env = {name: _sample(time.pattern) for name, time in draft.needs.times.items()}
        doubtful = list(draft.doubtful)
        while True:
            stages = [*draft.stages, *(each for _, each in doubtful)]
            text = pipeline_text(draft, self.name, stages)
            finding = self.check(text, env)
            if not finding:
                break
            if doubtful and "redshift" in draft.sink and draft.sink["redshift"].pop("types", None):
                continue  # a statement may give other columns than those of the table
            if not doubtful:
                msg = f"`stream check` refuses it: {finding}; correct the definition, and import again"
                raise Refused(msg)
            slot, _ = doubtful.pop()
            draft.open(slot, "the expression is not understood: write it as a stage, before the first run")
            draft.held = True
        for slot, stage in doubtful:
            draft.taken(slot, f"stages: {next(iter(stage))}")
            draft.open(slot, "its dialect was another: look at what it gives, by `stream preview`")
        text = pipeline_text(draft, self.name, stages)
        return {PIPELINE: text, VALUES: values_text(draft), **draft.files}


def _slug(name: str) -> str:
    """``name`` as a valid name of a folder and an application; empty if no valid characters remain."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")[:50].strip("-")


def _known(url: str) -> str:
    """A URL of a pipeline file with references replaced by their defaults."""
    return re.sub(r"\$\{[A-Za-z_][A-Za-z0-9_]*:-([^}]*)\}", r"\1", url)


def _sample(pattern: str) -> str:
    text = pattern.replace("%-", "%")
    for mark, example in _TIMES.items():
        text = text.replace(mark, example)
    return text


def _filter(draft: Draft) -> None:
    """`filterSql` of a HiveCopyActivity as a stage."""
    slot = draft.activity.slot("filterSql")
    if not slot.values:
        return
    condition = draft.plain_or_noted(draft.activity, "filterSql").strip().rstrip(";")
    if condition:
        in_sql = re.sub(r"\"([^\"]*)\"", lambda found: "'" + found[1].replace("'", "''") + "'", condition)
        draft.doubtful.append((slot, {"filter": in_sql.replace("`", '"')}))
    else:
        draft.held = True
