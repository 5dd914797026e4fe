"""The records that benchmarks read, generated from a seed and therefore equal on every machine.

``click``: flat, 14 fields, about 340 bytes. ``order``: about 880 bytes, an address, a list of lines, text with escapes. ``flights``: the
flights that ship with the project, 19 short fields, about 300 bytes. ``dirty``: clicks of which one in 100 is broken in one of six ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from stream.local.flights import BROKEN, flights_table

_BEGIN: Final = datetime(2026, 11, 1, tzinfo=UTC)
_PAGES: Final = ("home", "search", "product", "basket", "checkout", "account", "help", "returns")
_COUNTRIES: Final = ("DE", "FR", "US", "GB", "NL", "SE", "JP", "BR", "IN", "PL")
_BROWSERS: Final = ("Chrome 142", "Firefox 145", "Safari 19", "Edge 142")
_DEVICES: Final = ("mobile", "desktop", "tablet")
_CITIES: Final = ("Hamburg", "Lyon", "Zürich", "Gdańsk", "Portland", "Osaka", "Recife", "Malmö")
DIRTY_ONE_IN: Final = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """Records of one kind, and the work that is done on them.

    ``schema`` and ``stages`` are those of the pipeline file; ``peers/jobs.py`` does the same work with dicts and with Polars.
    """

    name: str
    lines: Callable[[int], Iterator[bytes]]
    schema: str
    stages: str


def clicks(count: int, seed: int = 1) -> Iterator[bytes]:
    """``count`` click events; one in ten has no ``dwell_ms``."""
    rng = Random(seed)
    for number in range(count):
        yield json.dumps(_click(rng, number), separators=(",", ":")).encode()


def _click(rng: Random, number: int) -> dict[str, Any]:
    page = rng.choice(_PAGES)
    return {
        "event_id": f"{rng.getrandbits(128):032x}",
        "ts": (_BEGIN + timedelta(milliseconds=number * 7)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user_id": rng.randrange(10**8),
        "session": f"{rng.getrandbits(64):016x}",
        "page": page,
        "url": f"https://shop.example/{page}/{rng.randrange(10**6)}?ref={rng.getrandbits(32):08x}",
        "country": rng.choice(_COUNTRIES),
        "device": rng.choice(_DEVICES),
        "browser": rng.choice(_BROWSERS),
        "width": rng.choice((360, 390, 412, 1280, 1440, 1920)),
        "height": rng.choice((640, 844, 915, 720, 900, 1080)),
        "dwell_ms": None if rng.random() < 0.1 else rng.randrange(200, 90_000),
        "scroll": round(rng.random(), 4),
        "returning": rng.random() < 0.4,
    }


def orders(count: int, seed: int = 2) -> Iterator[bytes]:
    """``count`` orders; one in ten is a test order."""
    rng = Random(seed)
    for number in range(count):
        yield json.dumps(_order(rng, number), separators=(",", ":")).encode()


def _order(rng: Random, number: int) -> dict[str, Any]:
    lines = [
        {
            "sku": f"SKU-{rng.randrange(10**6):06d}",
            "quantity": rng.randrange(1, 6),
            "price": round(rng.uniform(1, 400), 2),
            "gift": False,
        }
        for _ in range(rng.randrange(2, 8))
    ]
    city = rng.choice(_CITIES)
    return {
        "order_id": f"{rng.getrandbits(128):032x}",
        "placed_at": (_BEGIN + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "customer": rng.randrange(10**7),
        "channel": rng.choice(("web", "app", "phone", "test", "store", "web", "app", "web", "app", "web")),
        "currency": rng.choice(("EUR", "USD", "GBP")),
        "total": round(sum(line["quantity"] * line["price"] for line in lines), 2),  # type: ignore[operator, misc]
        "note": f'leave at "{city}" gate\n\tring twice, code {rng.randrange(10**4)}; thank you {rng.getrandbits(256):064x}',
        "shipping": {"name": f"Customer {rng.randrange(10**6)}", "street": f"{rng.randrange(1, 400)} Long Street", "city": city,
                     "zip": f"{rng.randrange(10**5):05d}", "country": rng.choice(_COUNTRIES)},
        "billing": {"name": f"Customer {rng.randrange(10**6)}", "street": f"{rng.randrange(1, 400)} Short Street", "city": city,
                    "zip": f"{rng.randrange(10**5):05d}", "country": rng.choice(_COUNTRIES)},
        "lines": lines,
        "coupon": None if rng.random() < 0.7 else f"AUTUMN-{rng.randrange(100)}",
        "priority": rng.randrange(5),
    }  # fmt: skip


def flights(count: int) -> Iterator[bytes]:
    """The first ``count`` flights of the year, starting again after the last."""
    lines = flights_table().write_ndjson().encode().splitlines()
    for number in range(count):
        yield lines[number % len(lines)]


def dirty(count: int) -> Iterator[bytes]:
    """Clicks, one in ``DIRTY_ONE_IN`` of them broken."""
    for number, line in enumerate(clicks(count, seed=4)):
        yield BROKEN[number // DIRTY_ONE_IN % len(BROKEN)] if number % DIRTY_ONE_IN == 17 else line


_CLICK_SCHEMA: Final = (
    "{event_id: string, ts: timestamp, user_id: int64, session: string, page: string, url: string, country: string, device: string, "
    "browser: string, width: int64, height: int64, dwell_ms: int64?, scroll: float64, returning: bool}"
)
_CLICK_STAGES: Final = "[{filter: dwell_ms IS NOT NULL}, {derive: {area: width * height, slow: dwell_ms > 30000}}]"
_ADDRESS: Final = "object{name: string, street: string, city: string, zip: string, country: string}"

SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("click", clicks, _CLICK_SCHEMA, _CLICK_STAGES),
        Shape(
            "order",
            orders,
            "{order_id: string, placed_at: timestamp, customer: int64, channel: string, currency: string, total: float64, note: string, "
            f'shipping: "{_ADDRESS}", billing: "{_ADDRESS}", '
            'lines: "list<object{sku: string, quantity: int64, price: float64, gift: bool}>", coupon: string?, priority: int64}',
            "[{filter: channel != 'test'}, {derive: {cents: total * 100.0, urgent: priority > 2}}]",
        ),
        Shape(
            "flights",
            flights,
            "{year: int64, month: int64, day: int64, dep_time: int64?, sched_dep_time: int64, dep_delay: int64?, arr_time: int64?, "
            "sched_arr_time: int64, arr_delay: int64?, carrier: string, flight: int64, tailnum: string?, origin: string, dest: string, "
            "air_time: int64?, distance: int64, hour: int64, minute: int64, time_hour: timestamp}",
            "[{filter: dep_time IS NOT NULL}, "
            "{derive: {departure_month: \"strftime(time_hour, '%Y-%m')\", made_up: dep_delay - arr_delay}}]",
        ),
        Shape("dirty", dirty, _CLICK_SCHEMA, _CLICK_STAGES),
    )
}
