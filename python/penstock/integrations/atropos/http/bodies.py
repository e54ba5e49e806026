"""Bodies of requests and answers: JSON, checked field by field, types before arrays.

Long columns of plain numbers become flat arrays first, and are cut out of the text. The remaining
fields are cut out too, and checked to be JSON; then shorter columns become arrays, and all other
fields become values.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from ....trajectories import TrajectoryGroup
from ....trajectories.loose import LEVELS, fitting, number_from
from .numbers import (
    COST_OF_VALUE,
    Charge,
    Columns,
    column_of,
    cost_of_values,
    cut,
    text_of_column,
    values_of,
)
from .words import NAMES, Invalid, kind_of

__all__ = [
    "encode",
    "field",
    "group_from_json",
    "group_from_text",
    "group_to_text",
    "groups_from_text",
    "object_of",
]

Json = dict[str, Any]
_T = TypeVar("_T")

_LARGEST: Final = 2**53
_REQUIRED: Final = ("tokens", "masks", "scores")
_KEYS: Final = (
    *("tokens", "masks", "scores", "advantages", "ref_logprobs", "inference_logprobs"),
    *("messages", "generation_params", "overrides", "group_overrides", "images", "env_id"),
    *("distill_token_ids", "distill_logprobs"),
)


_OBJECTS: Final = ("generation_params", "group_overrides")
_LOOSE: Final = ("messages", *_OBJECTS, "overrides", "images")
_MOST_SEQUENCES: Final = 65_536  # no batch is larger
_COST_OF_GROUP: Final = 2048
_NULL: Final = msgspec.Raw(b"null")
# Python writes these, and msgspec refuses them; the last may begin a lone surrogate.
_BEYOND_JSON: Final = re.compile(rb"NaN|Infinity|\\u[dD]")


class _GroupText(msgspec.Struct):
    """The known fields of a group, each as JSON text."""

    tokens: msgspec.Raw
    masks: msgspec.Raw
    scores: msgspec.Raw
    advantages: msgspec.Raw = _NULL
    ref_logprobs: msgspec.Raw = _NULL
    inference_logprobs: msgspec.Raw = _NULL
    messages: msgspec.Raw = _NULL
    generation_params: msgspec.Raw = _NULL
    overrides: msgspec.Raw = _NULL
    group_overrides: msgspec.Raw = _NULL
    images: msgspec.Raw = _NULL
    env_id: msgspec.Raw = _NULL
    distill_token_ids: msgspec.Raw = _NULL
    distill_logprobs: msgspec.Raw = _NULL


_ONE: Final = msgspec.json.Decoder(_GroupText)
_MANY: Final = msgspec.json.Decoder(list[_GroupText])
_MISSING: Final = re.compile(r"^Object missing required field `(\w+)`(?: - at `\$\[(\d+)\]`)?$")
_WRONG: Final = re.compile(r"^Expected `(\w+)`, got `(\w+)`(?: - at `\$\[(\d+)\]`)?$")


def encode(value: Any) -> bytes:
    """JSON as Python's clients read it; NaN stays NaN, because a lost batch would be worse."""
    try:
        return _dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can express
        return _dumps(value, ensure_ascii=True).encode()


def _dumps(value: Any, *, ensure_ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Values that come only through shared memory: arrays, and bytes as base64."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def object_of(body: bytes) -> Json:
    """The body as a JSON object."""
    value = values_of(body)
    if not isinstance(value, dict):
        raise Invalid(f"the body is {kind_of(value)}: give an object")
    return value


def field(body: Json, name: str, kind: type[_T], default: _T | None = None) -> _T:
    """One plain field; required without a default. Values that Atropos's server accepts as numbers
    are accepted: text, true and false, 1.0."""
    value = body.get(name)
    if value is None:
        if default is None:
            raise Invalid(f"the field '{name}' is missing")
        return default
    found = kind_of(value)
    if kind in (int, float):
        try:
            value = number_from(value, kind)
        except OverflowError:
            value = _LARGEST + 1
        except (ValueError, TypeError):
            raise Invalid(f"the field '{name}' is {found}: give {NAMES[kind]}") from None
        if abs(value) > _LARGEST:
            raise Invalid(f"the field '{name}' is beyond 2**53: JSON carries no such number safely")
    if not isinstance(value, kind):
        raise Invalid(f"the field '{name}' is {found}: give {NAMES[kind]}")
    if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
        raise Invalid(f"the field '{name}' holds half a character, which UTF-8 can't say")
    return value


def groups_from_text(body: bytes, charge: Charge) -> list[TrajectoryGroup]:
    """All groups of a list, or none: an error names the group at fault."""
    many, columns = _cut(body, _MANY, charge)
    if not isinstance(many, list):
        raise Invalid(f"the body is {kind_of(many)}: give a list of groups")
    charge(len(many) * _COST_OF_GROUP)
    return [_group_at(at, one, columns.get(at, {}), charge) for at, one in enumerate(many)]


def _group_at(at: int, body: Any, columns: Columns, charge: Charge) -> TrajectoryGroup:
    try:
        return _group_of(body, columns, charge)
    except ValueError as error:  # InvalidArgument is a ValueError too
        raise _at(at, str(error)) from None


def _at(at: int | str, why: str) -> Invalid:
    return Invalid(f"group {at} of the list: {why}")


def group_from_text(body: bytes, charge: Charge) -> TrajectoryGroup:
    """A checked group. Raises Invalid, InvalidArgument for columns that do not fit, and the errors
    of ``charge``."""
    charge(_COST_OF_GROUP)
    one, columns = _cut(body, _ONE, charge)
    return _group_of(one, columns.get(0, {}), charge)


def group_from_json(body: Any) -> TrajectoryGroup:
    """The same for a decoded JSON value."""
    return _group_of(body, {}, lambda _: None)


def _cut(body: bytes, decoder: Any, charge: Charge) -> tuple[Any, dict[int, Columns]]:
    """The fields of a group, or of several, as text, and by group the columns that are arrays
    already; or the whole body as values, if only Python's own decoder can read it."""
    return _read_columns(body, decoder) or (_decoded(body, decoder, charge), {})


def _read_columns(body: bytes, decoder: Any) -> tuple[Any, dict[int, Columns]] | None:
    """None: the whole body is to be decoded, also for the wording of its errors."""
    found = cut(body, decoder is _MANY)
    if found is None:
        return None
    rest, columns = found
    with contextlib.suppress(ValueError, RecursionError):
        return decoder.decode(rest), columns
    return None


def _decoded(body: bytes, decoder: Any, charge: Charge) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(
            str(error), "a list of groups" if decoder is _MANY else "an object"
        ) from None
    except (ValueError, RecursionError) as error:
        if not _BEYOND_JSON.search(body):
            raise Invalid(f"the body is no JSON: {error}") from None
        charge(cost_of_values(body))
        return values_of(body)


def _refusal(why: str, wanted: str) -> Invalid:
    if missing := _MISSING.match(why):
        name, at = missing.groups()
        sentence = f"the field '{name}' is missing"
        return Invalid(sentence) if at is None else _at(at, sentence)
    if wrong := _WRONG.match(why):
        _, found, at = wrong.groups()
        if at is None:
            return Invalid(f"the body is {_KINDS.get(found, found)}: give {wanted}")
        return _at(at, f"the body is {_KINDS.get(found, found)}: give an object")
    return Invalid(f"the body is no group: {why}")


def _group_of(body: Any, read: Columns, charge: Charge) -> TrajectoryGroup:
    """``body``: a _GroupText, or a JSON value. ``read``: its columns that are arrays already."""
    given = _fields_of(body, charge) | read
    for name in _REQUIRED:
        if name not in given:
            raise Invalid(f"the field '{name}' is missing")
    columns: Json = {
        name: column_of(name, given[name], levels, charge)
        for name, levels in LEVELS.items()
        if name in given
    }
    sequences = len(columns["tokens"].lengths)
    if sequences > _MOST_SEQUENCES:
        raise Invalid(f"the group has {sequences} sequences, and no batch more than 65536")
    fits, plain = fitting(columns, lambda values: charge(COST_OF_VALUE * values))
    rest: Json = {}
    if "messages" in given:
        rest["messages"] = _messages(given["messages"])
    if "overrides" in given:
        rest["overrides"] = _list_of_objects("overrides", given["overrides"])
    for name in _OBJECTS:
        if name in given:
            rest[name] = field(given, name, dict)
    if "env_id" in given:
        rest["env_id"] = field(given, "env_id", int)
    if "images" in given:
        rest["images"] = given["images"]
    return TrajectoryGroup.from_flat(fits, rest, plain)


def _fields_of(body: Any, charge: Charge) -> Json:
    """The fields that are not null: columns unchanged, all others as values."""
    if not isinstance(body, _GroupText):
        if not isinstance(body, dict):
            raise Invalid(f"the body is {kind_of(body)}: give an object")
        return {name: value for name, value in body.items() if value is not None}
    texts = {name: bytes(getattr(body, name)).strip() for name in body.__struct_fields__}
    given: Json = {name: text for name, text in texts.items() if text != b"null"}
    for name in (*_LOOSE, "env_id"):
        if name in given:
            charge(cost_of_values(given[name]))
            given[name] = values_of(given[name])
    return given


def group_to_text(group: TrajectoryGroup) -> bytes:
    """A JSON object with the same keys for every group; null for absent fields."""
    texts = (b'"%b":%b' % (name.encode(), _text_of(group, name)) for name in _KEYS)
    return b"{" + b",".join(texts) + b"}"


def _text_of(group: TrajectoryGroup, name: str) -> bytes:
    if name in group.columns:
        return text_of_column(group, name)
    value = getattr(group, name)
    return b"null" if value is None else encode(value)


def _list(name: str, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"{where} '{name}' is {kind_of(value)}: give a list")
    return value


def _list_of_objects(name: str, value: Any) -> list[Any]:
    return _each(name, value, lambda one: isinstance(one, dict), "an object")


def _messages(value: Any) -> list[Any]:
    for conversation in _list("messages", value, "the field"):
        _each(
            "messages",
            conversation,
            lambda one: isinstance(one, dict) and "role" in one and "content" in one,
            "an object with role and content",
        )
    checked: list[Any] = value
    return checked


def _each(name: str, value: Any, is_right: Callable[[Any], bool], wanted: str) -> list[Any]:
    values = _list(name, value, "the field")
    for at, one in enumerate(values):
        if not is_right(one):
            raise Invalid(f"item {at} of the field '{name}' is not {wanted}")
    return values


_KINDS: Final = {
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
