"""Conditional updates of lease rows, as requests of UpdateItem. Pure."""

from __future__ import annotations

from typing import Any

from stream.lease.rows import Lease


class LeaseUpdate:
    """The changes of one update. Each method returns the update itself."""

    def __init__(self) -> None:
        self._set: dict[str, dict[str, Any]] = {}
        self._add: dict[str, int] = {}
        self._remove: list[str] = []

    def set(self, name: str, value: dict[str, Any]) -> LeaseUpdate:
        """Set the attribute ``name`` to ``value``, as the wire has it."""
        self._set[name] = value
        return self

    def add(self, name: str, number: int) -> LeaseUpdate:
        """Add ``number`` to the attribute ``name``."""
        self._add[name] = number
        return self

    def remove(self, *names: str) -> LeaseUpdate:
        """Remove the attributes ``names``."""
        self._remove += names
        return self

    def request(self, lease: Lease) -> dict[str, Any]:
        """The request of UpdateItem, conditional on the counter and the owners of ``lease``, the hand-off included."""
        values: dict[str, dict[str, Any]] = {":counter": {"N": str(lease.counter)}}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in self._set)
        values |= {f":{name}": value for name, value in self._set.items()}
        if self._add:
            expression += " ADD " + ", ".join(f"#{name} :{name}" for name in self._add)
            values |= {f":{name}": {"N": str(number)} for name, number in self._add.items()}
        if self._remove:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in self._remove)
        conditions = ["#leaseCounter = :counter"]
        for name, holder in (("leaseOwner", lease.owner), ("checkpointOwner", lease.checkpoint_owner)):
            conditions.append(f"attribute_not_exists(#{name})" if holder is None else f"#{name} = :old{name}")
            if holder is not None:
                values[f":old{name}"] = {"S": holder}
        names = {*self._set, *self._add, *self._remove, "leaseOwner", "checkpointOwner"}
        return {
            "Key": {"leaseKey": {"S": lease.key}},
            "UpdateExpression": expression,
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#{name}": name for name in sorted(names)},
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
