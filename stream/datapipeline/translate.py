"""Translates a definition: a pipeline for each activity that has a counterpart, and a verdict on every field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from stream.datapipeline.chart_values import set_schedule
from stream.datapipeline.definition import parse
from stream.datapipeline.draft import PIPELINE, VALUES, Draft, Refused, bucket_of
from stream.datapipeline.evaluated_text import Untranslatable, shown
from stream.datapipeline.fields import FieldNotes, FieldRow
from stream.datapipeline.formats import ReadFormat, columns_of
from stream.datapipeline.object_types import ACTIVITIES, OBJECT_TYPES
from stream.datapipeline.preconditions import add_notification, add_requirements
from stream.datapipeline.redshift import load_into
from stream.datapipeline.resolve import Definition, ResolvedObject, Slot, resolve
from stream.datapipeline.run_times import folder_at
from stream.datapipeline.s3_nodes import Written, add_schema, match_columns, read_from, write_to
from stream.datapipeline.sql_tables import suggest_enrich_stages
from stream.datapipeline.verdicts import Fate
from stream.datapipeline.yaml_files import pipeline_text, values_text

Check: TypeAlias = Callable[[str, Mapping[str, str]], str]
"""Checks the text of a pipeline file in an environment. Returns the first error, or an empty text if it is valid."""

_TIMES: Final = {"%Y": "2026", "%y": "26", "%m": "01", "%d": "31", "%H": "05", "%M": "30", "%S": "00", "%j": "031", "%I": "05", "%p": "AM"}


@dataclass(frozen=True, slots=True)
class Link:
    """Activity ``then`` runs after ``first``, because of ``why``: its `dependsOn`, or a node that ``first`` writes and ``then`` reads."""

    first: str
    then: str
    why: str


@dataclass(frozen=True, slots=True)
class ActivityOutcome:
    """The result for one activity. ``todo``: what is left to do for its pipeline ``name``; without a name, why there is no pipeline."""

    activity: str
    type: str
    name: str
    todo: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    window: tuple[str, str] | None = None
    """Airflow expressions for the time range that a run reads; None if a run reads what is new."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import: ``files`` by path, ``rows`` for every field of every object, the activities, and the links between them."""

    definition: str
    files: Mapping[str, str]
    rows: tuple[FieldRow, ...]
    outcomes: tuple[ActivityOutcome, ...]
    links: tuple[Link, ...]

    def count(self, fate: Fate) -> int:
        """The number of fields with that fate."""
        return sum(each.fate is fate for each in self.rows)


def import_definition(text: bytes, name: str, more: Iterable[tuple[str, bytes]], state: str, check: Check) -> Imported:
    """Translate the definition ``text``, called ``name``, with the parameters and values of ``more``.

    ``state``: where pipelines keep their state; if empty, `_stream/` in the bucket that they write to. Every pipeline file of the result
    has passed ``check``. No file and no row contains a secret of the definition.

    Raises:
        DefinitionError: it is not a definition; the message lists every error with its place and a remedy.
    """
    definition = resolve(parse(text, name, more), name, OBJECT_TYPES)
    fields = FieldNotes(definition)
    work = _Translation(definition, fields, name.rpartition("/")[2], state, check)
    for activity in _in_dependency_order(definition):
        work.translate(activity)
    suggest_enrich_stages(definition, fields)
    outcomes = tuple(work.outcomes[each] for each in definition.objects if each in work.outcomes)
    return Imported(work.name, work.files, tuple(fields.rows(work.used)), outcomes, tuple(_links(definition)))


def _activities(definition: Definition) -> list[ResolvedObject]:
    parents = {each for item in definition.items.values() for each in item.refs("parent")}
    found = [each for each in definition.objects.values() if each.type in ACTIVITIES]
    return [each for each in found if each.id not in parents or each.has("output")]


def _in_dependency_order(definition: Definition) -> list[ResolvedObject]:
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
                made.setdefault(
                    (other.id, then.id), Link(other.id, then.id, f"`{shared[0]}`, which the first one writes and the second one reads")
                )
    return list(made.values())


class _Translation:
    """The translation of one definition so far: the files and outcomes of its activities, and what they have in common."""

    def __init__(self, definition: Definition, fields: FieldNotes, name: str, state: str, check: Check) -> None:
        self.definition = definition
        self.fields = fields
        self.name = name
        self.state = state
        self.check = check
        self.files: dict[str, str] = {}
        self.outcomes: dict[str, ActivityOutcome] = {}
        self.written: dict[str, Written] = {}
        """What pipelines write, by node."""
        self.places: dict[str, str] = {}
        """The activity whose pipeline writes to each URL."""
        self.used: set[tuple[str, str]] = set()
        self.names: set[str] = set()

    def translate(self, activity: ResolvedObject) -> None:
        """Translate one activity, or note why there is no pipeline for it."""
        id_slot = Slot(activity.id, "id", (activity.id,))
        kind = OBJECT_TYPES[activity.type]
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
        self.fields.taken_over(id_slot, f"`{draft.name}/{PIPELINE}`")
        self.used |= draft.used
        self.files |= {f"{draft.name}/{file}": text for file, text in texts.items()}
        for node in self.definition.of(activity.slot("output")):
            if "s3" in draft.sink:
                self.written[node.id] = Written(draft.sink["s3"]["format"], draft.columns)
                self.places.setdefault(_with_defaults(draft.sink["s3"]["url"]), activity.id)
        window = None
        if draft.run_times.times and draft.input_time is not None:
            moment, pattern = draft.input_time
            window = folder_at(moment.template(draft.interval), pattern)
        self.outcomes[activity.id] = ActivityOutcome(
            activity.id, activity.type, draft.name, tuple(draft.todo), shown(draft.run_times.times, draft.interval), window
        )

    def _refuse(self, activity: ResolvedObject, slot: Slot, why: str) -> None:
        self.fields.to_do(slot, f"no pipeline file: {why}")
        self.outcomes[activity.id] = ActivityOutcome(activity.id, activity.type, "", (why,))

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
        copy = draft.fixed_texts(draft.activity, "commandOptions") if draft.activity.type == "RedshiftCopyActivity" else None
        reading = read_from(draft, source, copy, self.written.get(source.id))
        if target.type == "RedshiftDataNode":
            load_into(draft, target, reading)
        elif target.type == "S3DataNode":
            self._copy(draft, target, reading)
        else:
            msg = (
                f"it writes to `{target.id}`, a {target.type}, which stream does not: load Redshift, or write to S3 and import the files "
                "from there"
            )
            raise Refused(msg)
        _filter(draft)
        add_requirements(draft, nodes)
        add_notification(draft, nodes)
        set_schedule(draft, nodes)
        urls = _with_defaults(draft.source["s3"]["url"]), _with_defaults(draft.sink["s3"]["url"]) if "s3" in draft.sink else ""
        self._choose_state(draft, *urls)
        self._note_overlaps(draft, *urls)

    def _node(self, draft: Draft, name: str) -> ResolvedObject:
        slot = draft.activity.slot(name)
        found = self.definition.of(slot)
        if len(found) != 1:
            msg = (
                f"`{draft.activity.id}` has {len(found)} objects as `{name}`, but a pipeline has one: correct it, or make several "
                "activities of it, and import again"
            )
            raise Refused(msg)
        draft.taken_over(slot, "source" if name == "input" else "sinks")
        return found[0]

    def _copy(self, draft: Draft, target: ResolvedObject, reading: ReadFormat) -> None:
        form = self.definition.one(target.slot("dataFormat"))
        theirs = tuple(columns_of(draft.fixed_texts(form, "column"))) if form is not None else ()
        columns = reading.columns or theirs
        if not columns:
            msg = (
                f"the definition does not name the columns of `{draft.activity.slot('input').ids[0]}`: list them under `column` of its "
                'dataFormat, as in ["id INT", "name STRING"], and import again'
            )
            raise Refused(msg)
        add_schema(draft, replace(reading, columns=columns))
        if form is not None and theirs:
            if reading.columns:
                match_columns(draft, theirs, form.slot("column"), f"`{form.id}`")
            else:
                draft.taken_over(form.slot("column"), "source.schema")
        write_to(draft, target)

    def _choose_state(self, draft: Draft, source: str, sink: str) -> None:
        """Choose a place for the state, outside of the URLs ``source`` and ``sink``, and next to it a place for staged files."""
        logs = draft.activity.slot("pipelineLogUri").text
        buckets = [bucket_of(each) for each in (sink, source, logs)]
        places = [self.state] if self.state else [f"s3://{each}/_stream/" for each in buckets if each]
        fits = [each for each in places if not each.startswith(source) and not (sink and each.startswith(sink))]
        if not fits:
            msg = (
                f"its state must be kept outside of what it reads, {source}, and of what it writes: name a place with --state, and import "
                "again"
            )
            raise Refused(msg)
        draft.state = fits[0]
        if "redshift" in draft.sink:
            root = draft.state.rstrip("/").rpartition("/")[0]
            draft.sink["redshift"]["staging"] = f"${{STAGING:-{root}/_staging/{draft.application}/}}"

    def _note_overlaps(self, draft: Draft, source: str, sink: str) -> None:
        """Note as left to do that the pipeline writes where it reads, or where another pipeline writes."""
        problems = []
        if _overlap(sink, source):
            problems.append(
                f"the pipeline would read what it writes, since one of {sink} and {source} contains the other: choose separate prefixes"
            )
        problems += [
            f"`{other}` writes below {place}, too: give each its own prefix, so that `stream audit verify` can tell their files apart"
            for place, other in self.places.items()
            if _overlap(sink, place)
        ]
        for problem in problems:
            draft.to_do(draft.activity.slot("output"), problem)
            draft.suspended = True

    def _texts(self, draft: Draft) -> dict[str, str]:
        """The files of the pipeline. Stages that `stream check` refuses are left out, and noted as left to do."""
        env = {name: _sample(time.pattern) for name, time in draft.run_times.times.items()}
        unverified_stages = list(draft.unverified_stages)
        while True:
            stages = [*draft.stages, *(each for _, each in unverified_stages)]
            text = pipeline_text(draft, self.name, stages)
            finding = self.check(text, env)
            if not finding:
                break
            if unverified_stages and "redshift" in draft.sink and draft.sink["redshift"].pop("types", None):
                continue  # the statement may give columns that the table does not have
            if not unverified_stages:
                msg = f"`stream check` finds an error in its pipeline file: {finding}; correct the definition, and import again"
                raise Refused(msg)
            slot, _ = unverified_stages.pop()
            draft.to_do(slot, "stream cannot run this expression: write it as a stage, before the first run")
            draft.suspended = True
        for slot, stage in unverified_stages:
            draft.taken_over(slot, f"stages: {next(iter(stage))}")
            draft.to_do(slot, "it was written for another SQL dialect: check what it gives with `stream preview`")
        text = pipeline_text(draft, self.name, stages)
        return {PIPELINE: text, VALUES: values_text(draft), **draft.files}


def _slug(name: str) -> str:
    """``name`` as a valid name of a folder and an application; empty if no valid characters remain."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")[:50].strip("-")


def _overlap(one: str, other: str) -> bool:
    """Whether one of two prefixes contains the other; an empty one is none."""
    return bool(one and other) and (one.startswith(other) or other.startswith(one))


def _with_defaults(url: str) -> str:
    """``url`` with references to environment variables replaced by their defaults."""
    return re.sub(r"\$\{[A-Za-z_][A-Za-z0-9_]*:-([^}]*)\}", r"\1", url)


def _sample(pattern: str) -> str:
    text = pattern.replace("%-", "%")
    for mark, example in _TIMES.items():
        text = text.replace(mark, example)
    return text


def _filter(draft: Draft) -> None:
    """Translate `filterSql` of a HiveCopyActivity to a `filter` stage."""
    slot = draft.activity.slot("filterSql")
    if not slot.values:
        return
    condition = draft.fixed_text_or_empty(draft.activity, "filterSql").strip().rstrip(";")
    if condition:
        in_sql = re.sub(r"\"([^\"]*)\"", lambda found: "'" + found[1].replace("'", "''") + "'", condition)
        draft.unverified_stages.append((slot, {"filter": in_sql.replace("`", '"')}))
    else:
        draft.suspended = True
