"""Real workers over one stream, and the steps of a plan carried out on them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

from tests.chaos.workers import Worker, clean
from tests.chaos.world import World
from tests.fleet.plan import Step, fault_rates, throttled_service

FAILOVER = float(os.environ.get("FLEET_FAILOVER", "6"))
"""Seconds: short, so that much happens in little time, and yet long enough for a machine with two busy cores."""

WORKERS = 4
MOST_WORKERS = 5
SHARDS = (12, 20)
"""Open shards stay between these."""

TICK = 0.5
SETTLERS = 2
"""Workers that stay to finish the work: few, since a small machine has little time for each."""

NATIVE = """
coordination:
  native: {{table: {table}, failover: {failover:g}s, look: 500ms}}
"""


@dataclass
class Member:
    """One worker process; ``due`` is what it has yet to do: ``end`` after SIGTERM, ``die`` after SIGKILL."""

    worker: Worker
    frozen_until: float | None = None
    due: str = ""


@dataclass
class Fleet:
    """``paths``: one pipeline file for each version that runs side by side. ``control``: the proxy's own address."""

    world: World
    paths: list[Path]
    control: str
    seed: int
    members: list[Member] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    errors: tuple[str | None, float] = (None, 0.0)
    outage: tuple[str | None, float] = (None, 0.0)
    throttling: tuple[str | None, float] = (None, 0.0)
    commands: list[Worker] = field(default_factory=list)
    resumes: list[tuple[float, list[str]]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    sealed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed}:fleet")
        self.born = 0

    # --- a run ------------------------------------------------------------------------------------------------------------

    def live_through(self, steps: list[Step], seconds: float) -> None:
        """Put records without a pause, let workers come and go, and carry out the steps of the plan at their time."""
        begun = monotonic()
        for _ in range(WORKERS):
            self.join()
        self._set_fault_rates()
        waiting = list(steps)
        while (now := monotonic() - begun) < seconds:
            self.world.produce(self.rng.randrange(5, 30))
            while waiting and waiting[0].at <= now:
                self.carry_out(waiting.pop(0), now)
            self._pass_time(now)
            self._wait()

    def carry_out(self, step: Step, now: float) -> None:
        """Carry out ``step``, if there is a worker or shard for it."""
        match step.act:
            case "kill" | "freeze" | "drain":
                self._disturb_worker(step, now)
            case "join":
                if len(self.members) < MOST_WORKERS:
                    self.join()
            case "split" | "merge":
                self._reshard(step)
            case "pause":
                self._pause(step, now)
            case "errors":
                self.errors = (_pick(["kinesis", "dynamodb", "s3"], step.choice), now + step.lasts)
            case "outage":
                self.outage = (_pick(["kinesis", "dynamodb", "s3"], step.choice), now + step.lasts)
            case "throttling":
                self.throttling = (throttled_service(step.choice), now + step.lasts)
        if step.act in {"errors", "outage", "throttling"}:
            self.done[step.act] += 1
            self._set_fault_rates()

    def join(self) -> None:
        """A new worker of either version."""
        path = self.paths[self.born % len(self.paths)]
        self.born += 1
        self.done["join"] += 1
        self.members.append(Member(self.world.start(path, "--drain", "120")))

    def settle(self, patience: float) -> None:
        """No faults and no more records: everything must be committed, and every worker must end in good order.

        Between two units that are committed, ``patience`` seconds may pass: how fast the machine is says nothing about the fleet.
        """
        self._control({})
        for member in self.members:
            self._thaw(member)
        self.joins.clear()
        self.resumes.clear()
        while self.commands:
            self._look_after_commands()
            connection.wait([command.sentinel for command in self.commands], timeout=TICK)
        resumed = self.world.operate("resume", str(self.paths[0]), "--all", "--by", "fleet")
        assert resumed.exit() == 0, f"seed {self.seed}: {resumed.said()}"
        while len(staying := [member for member in self.members if not member.due]) < SETTLERS:
            self.join()
        self._dismiss(staying[SETTLERS:])
        last, before = monotonic(), self.progress()
        while not self.committed():
            if (now := self.progress()) > before:
                last, before = monotonic(), now
            assert monotonic() - last < patience, f"seed {self.seed}: nothing was committed in {patience} s without faults: {self._gaps()}"
            self._look_after_members()
            self._wait(1.0)
        self._dismiss(self.members)
        begun = monotonic()
        while self.members:
            assert monotonic() - begun < patience, f"seed {self.seed}: workers do not end: {self._gaps()}"
            self._look_after_members()
            self._wait()

    def _dismiss(self, members: list[Member]) -> None:
        for member in members:
            if not member.due:
                member.worker.signal(signal.SIGTERM)
                member.due = "end"

    # --- steps ------------------------------------------------------------------------------------------------------------

    def _disturb_worker(self, step: Step, now: float) -> None:
        awake = [member for member in self.members if member.frozen_until is None and not member.due]
        if not awake:
            return
        member = _pick(awake, step.choice)
        self.done[step.act] += 1
        if step.act == "freeze":
            member.worker.signal(signal.SIGSTOP)
            member.frozen_until = now + step.lasts
            return
        member.worker.signal(signal.SIGKILL if step.act == "kill" else signal.SIGTERM)
        member.due = "die" if step.act == "kill" else "end"
        if len([each for each in self.members if not each.due]) < WORKERS:
            self.joins.append(now + step.lasts / 3)

    def _reshard(self, step: Step) -> None:
        count = len(self.world.open_shards())
        if step.act == "split" and count < SHARDS[1]:
            self.world.split(int(step.choice * count))
        elif step.act == "merge" and count > SHARDS[0]:
            self.world.merge(int(step.choice * (count - 1)))
        else:
            return
        self.done[step.act] += 1

    def _pause(self, step: Step, now: float) -> None:
        """Pause all shards or one of them, until somebody resumes it or the time is over."""
        shards = self.world.open_shards()
        which = [] if step.choice < 0.3 else [str(_pick(shards, step.choice)["ShardId"])]
        until = ["--until", f"{step.lasts + 10:.0f}s"] if int(step.choice * 1000) % 2 else []
        self._operate("pause", *which, "--note", f"at {step.at:.1f}", *until)
        if not until:
            self.resumes.append((now + step.lasts, which))

    def _operate(self, verb: str, *options: str) -> None:
        self.commands.append(self.world.operate(verb, str(self.paths[0]), *options, "--by", "fleet"))

    def _look_after_commands(self) -> None:
        """Every command must end with one of its exit codes, and without a traceback. It may fail while services do."""
        for command in list(self.commands):
            code = command.ended()
            if code is not None:
                assert code in {0, 1, 2}, f"seed {self.seed}: a command ended with {code}:\n{command.said()}"
                assert clean(command.said()), f"seed {self.seed}: {command.said()}"
                self.done[f"commands_{code}"] += 1
                self.commands.remove(command)

    def _pass_time(self, now: float) -> None:
        for member in self.members:
            if member.frozen_until is not None and now >= member.frozen_until:
                self._thaw(member)
        if due := [at for at in self.joins if at <= now]:
            self.joins = [at for at in self.joins if at > now]
            for _ in due:
                self.join()
        for at, which in [each for each in self.resumes if each[0] <= now]:
            self.resumes.remove((at, which))
            self._operate("resume", *which)
        self._look_after_commands()
        over = [name for name in ("errors", "outage", "throttling") if getattr(self, name)[0] and now >= getattr(self, name)[1]]
        for name in over:
            setattr(self, name, (None, 0.0))
        if over:
            self._set_fault_rates()
        self._look_after_members()

    def _thaw(self, member: Member) -> None:
        if member.frozen_until is not None:
            member.worker.signal(signal.SIGCONT)
            member.frozen_until = None

    def _look_after_members(self) -> None:
        """Every worker that has ended must have been told to end."""
        for member in list(self.members):
            code = member.worker.ended()
            if code is None:
                continue
            said = member.worker.said()
            # SIGTERM can be faster than the first lines of a process, which then has nothing to drain.
            early = member.due == "end" and code == -signal.SIGTERM and not said
            expected = {"": None, "end": code if early else 0, "die": -signal.SIGKILL}[member.due]
            assert code == expected, f"seed {self.seed}: a worker ended with {code}, expected {expected}:\n{said[-6000:]}"
            assert clean(said), f"seed {self.seed}: {said[-6000:]}"
            assert '"event":"shard_halted"' not in said, f"seed {self.seed}: {said[-6000:]}"
            wrong, paused = sealed_while_paused(said)
            assert not wrong, f"seed {self.seed}: {wrong[:5]}"
            self.done["shards_paused"] += paused
            self.members.remove(member)

    def _wait(self, seconds: float = TICK) -> None:
        connection.wait([member.worker.sentinel for member in self.members], timeout=seconds)

    # --- what is seen from outside --------------------------------------------------------------------------------------

    def committed(self) -> bool:
        """Whether the log covers every record put, and the end of every closed shard. Sealed manifests are read once."""
        for key, manifest in self._unknown_manifests():
            if manifest["state"] == "sealed":
                self.sealed[key] = manifest
        records, ends = self.progress()
        closed = sum("EndingSequenceNumber" in each["SequenceNumberRange"] for each in self.world.shards())
        return records >= self.world.put_so_far and ends >= closed

    def progress(self) -> tuple[int, int]:
        """Records and ends of shards that are known to be committed."""
        sealed = self.sealed.values()
        return sum(manifest.get("records", 0) for manifest in sealed), sum(manifest["kind"] == "end" for manifest in sealed)

    def _unknown_manifests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        world = self.world
        pages = world.s3.get_paginator("list_objects_v2").paginate(Bucket=world.bucket, Prefix=f"state/chaos/commits/{world.stream}/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", []) if entry["Key"] not in self.sealed]
        with ThreadPoolExecutor(8) as pool:
            bodies = pool.map(lambda key: world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read(), keys)
            yield from zip(keys, map(json.loads, bodies), strict=True)

    def _gaps(self) -> str:
        records, _ = self.progress()
        logs = [member.worker.said()[-1500:] for member in self.members]
        return f"{records} of {self.world.put_so_far} records; " + "\n---\n".join(logs)

    def fates_so_far(self) -> Counter[str]:
        """How many requests had which fate, by ``service.fate``."""
        return Counter(self._call("GET"))

    def _set_fault_rates(self) -> None:
        self._control(fault_rates(self.errors[0], self.outage[0], self.throttling[0]))

    def _control(self, rates: dict[str, dict[str, float]]) -> None:
        self._call("POST", json.dumps(rates).encode())

    def _call(self, method: str, body: bytes | None = None) -> Any:
        with urlopen(Request(f"{self.control}/_faults", data=body, method=method)) as reply:  # noqa: S310 - loopback
            return json.loads(reply.read())


def sealed_while_paused(said: str) -> tuple[list[str], int]:
    """What a worker that wrote ``said`` sealed of shards although it had said that they are paused, and how often it said so."""
    standing: set[str] = set()
    wrong, count = [], 0
    for text in said.splitlines():
        if not text.startswith("{") or not text.endswith("}"):
            continue  # the last line of a worker that was killed
        line = json.loads(text)
        shard = line.get("shard", "")
        match line["event"]:
            case "shard_paused":
                standing.add(shard)
                count += 1
            case "shard_resumed" | "shard_released":
                standing.discard(shard)
            case "shard_started" | "unit_sealed" if shard in standing:
                wrong.append(text)
    return wrong, count


def _pick(choices: list[Any], choice: float) -> Any:
    return choices[int(choice * len(choices))]
