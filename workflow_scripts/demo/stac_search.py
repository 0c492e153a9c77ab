"""The search of a STAC API over a list of items: the parameters of item-search, query and sortby."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import shapely

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: value == wanted,
    "neq": lambda value, wanted: value != wanted,
    "lt": lambda value, wanted: value < wanted,
    "lte": lambda value, wanted: value <= wanted,
    "gt": lambda value, wanted: value > wanted,
    "gte": lambda value, wanted: value >= wanted,
    "startsWith": lambda value, wanted: str(value).startswith(wanted),
    "endsWith": lambda value, wanted: str(value).endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
    "in": lambda value, wanted: value in wanted,
}
_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def parse_time(text: str, *, is_end: bool = False) -> datetime:
    """Read an RFC 3339 time; a bare date means its first, or as an end its last, moment."""
    if len(text) == 10:
        text += "T23:59:59.999999Z" if is_end else "T00:00:00Z"
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_interval(text: str) -> tuple[datetime, datetime]:
    """Read a `datetime` parameter: one time, or an interval that ``..`` leaves open."""
    first, _, last = text.partition("/")
    last = last or first
    begin = _ALWAYS[0] if first in ("", "..") else parse_time(first)
    end = _ALWAYS[1] if last in ("", "..") else parse_time(last, is_end=True)
    if begin > end:
        raise ValueError(f"datetime {text!r} ends before it begins")
    return begin, end


def _same_type(value: Any, wanted: Any) -> Any:
    """Bring the wanted value to the type of the item's: clients send numbers as strings."""
    if isinstance(wanted, list):
        return [_same_type(value, one) for one in wanted]
    if isinstance(value, bool) and isinstance(wanted, str):
        return wanted.lower() == "true"
    if isinstance(value, int | float) and isinstance(wanted, str):
        return float(wanted)
    if isinstance(value, str) and isinstance(wanted, int | float):
        return str(wanted)
    return wanted


class Catalog:
    """Items that can be searched, with their outlines and times prepared."""

    def __init__(self, items: list[dict]) -> None:
        """Index `items` (dicts as in JSON); their order is the order of answers."""
        self._items = items
        self._outlines = [shapely.geometry.shape(item["geometry"]) for item in items]
        self._times = [self._span(item["properties"]) for item in items]
        self._tree = shapely.STRtree(self._outlines)
        self.collections = list(dict.fromkeys(item["collection"] for item in items))

    @staticmethod
    def _span(properties: dict) -> tuple[datetime, datetime]:
        if properties.get("datetime"):
            return (parse_time(properties["datetime"]),) * 2
        return parse_time(properties["start_datetime"]), parse_time(properties["end_datetime"])

    def extent(self, collection: str) -> dict:
        """Give a collection's extent in space and time."""
        rows = [i for i, item in enumerate(self._items) if item["collection"] == collection]
        times = [self._times[i] for i in rows]
        bounds = shapely.total_bounds([self._outlines[i] for i in rows]).tolist()
        first, last = min(time[0] for time in times), max(time[1] for time in times)
        interval = [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in (first, last)]
        return {"spatial": {"bbox": [bounds]}, "temporal": {"interval": [interval]}}

    def search(self, arguments: dict) -> list[dict]:
        """Give all items that fulfil the arguments of a search (paging is the server's)."""
        rows = set(range(len(self._items)))
        shape = None
        if arguments.get("bbox"):
            bbox = arguments["bbox"]
            shape = shapely.box(*(bbox if len(bbox) == 4 else bbox[:2] + bbox[3:5]))
        elif arguments.get("intersects"):
            shape = shapely.geometry.shape(arguments["intersects"])
        if shape is not None:
            rows &= set(self._tree.query(shape, predicate="intersects").tolist())
        for key, name in (("ids", "id"), ("collections", "collection")):
            if arguments.get(key):
                rows = {i for i in rows if self._items[i][name] in arguments[key]}
        if arguments.get("datetime"):
            begin, end = parse_interval(arguments["datetime"])
            rows = {i for i in rows if self._times[i][0] <= end and self._times[i][1] >= begin}
        for name, conditions in (arguments.get("query") or {}).items():
            unknown = set(conditions) - set(OPERATORS)
            if unknown:
                raise ValueError(f"query of {name!r}: operators {sorted(unknown)} are not known")
            rows = {i for i in rows if self._fulfils(i, name, conditions)}
        found = [self._items[i] for i in sorted(rows)]
        for rule in reversed(arguments.get("sortby") or []):
            found.sort(
                key=lambda item, name=rule["field"]: self._sort_key(item, name),
                reverse=rule.get("direction") == "desc",
            )
        return found

    def _fulfils(self, row: int, name: str, conditions: dict) -> bool:
        value = self._items[row]["properties"].get(name.removeprefix("properties."))
        if value is None:
            return False
        return all(OPERATORS[key](value, _same_type(value, wanted)) for key, wanted in conditions.items())

    @staticmethod
    def _sort_key(item: dict, name: str) -> tuple[bool, Any]:
        name = name.removeprefix("properties.")
        value = item.get(name, item["properties"].get(name))
        return (value is None, value if value is not None else "")
