"""Bodies of requests and answers: JSON, perhaps gzipped, checked field by field."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, NoReturn, TypeVar

import numpy as np

from ..trajectories import TrajectoryGroup

__all__ = [
    "Invalid",
    "TooBig",
    "UnknownEncoding",
    "decode",
    "encode",
    "field",
    "group_from_json",
    "group_to_json",
    "groups_from_json",
    "object_of",
]

Json = dict[str, Any]
_T = TypeVar("_T")

_PER_TOKEN: Final = ("masks", "advantages", "ref_logprobs", "inference_logprobs")
_DISTILLED: Final = ("distill_token_ids", "distill_logprobs")
_INTEGERS: Final = frozenset({"tokens", "masks", "distill_token_ids"})
_LARGEST: Final = 2**53
_REQUIRED: Final = ("tokens", "masks", "scores")
_KEYS: Final = (
    *("tokens", "masks", "scores", "advantages", "ref_logprobs", "inference_logprobs"),
    *("messages", "generation_params", "overrides", "group_overrides", "images", "env_id"),
    *("distill_token_ids", "distill_logprobs"),
)


class Invalid(ValueError):
    """The body is not what the route takes; the sentence names the field."""


class TooBig(ValueError):
    """The body has more bytes than the server takes, unpacked."""


class UnknownEncoding(ValueError):
    """A Content-Encoding that is not known here."""


def decode(raw: bytes, encoding: str, limit: int) -> Any:
    """The JSON value of a body. Raises Invalid, TooBig, UnknownEncoding."""
    encoding = encoding.strip().lower()
    if encoding == "gzip":
        raw = _unzip(raw, limit)
    elif encoding not in ("", "identity"):
        raise UnknownEncoding(f"the body has the encoding {encoding!r}: give gzip or none")
    if len(raw) > limit:
        raise TooBig(f"the body has more than {limit} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {error}") from None


def _unzip(raw: bytes, limit: int) -> bytes:
    """No more is unpacked than allowed: a few bytes of gzip may stand for gigabytes."""
    parts: list[bytes] = []
    room = limit + 1
    try:
        while raw:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(raw, room))
            room -= len(parts[-1])
            if room <= 0:
                raise TooBig(f"the body has more than {limit} bytes when unpacked")
            if not member.eof:
                raise Invalid("the body is no whole gzip data")
            raw = member.unused_data
    except zlib.error as error:
        raise Invalid(f"the body is no gzip data: {error}") from None
    return b"".join(parts)


def encode(value: Any) -> bytes:
    """JSON as Python's clients read it; NaN stays NaN, as a lost batch would be worse."""
    try:
        return _dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character somewhere, which only an escape can say
        return _dumps(value, ensure_ascii=True).encode()


def _dumps(value: Any, *, ensure_ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """What only shared memory can bring: arrays, and bytes as base64."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def object_of(body: Any) -> Json:
    """The body as a JSON object."""
    if not isinstance(body, dict):
        raise Invalid(f"the body is {_kind(body)}: give an object")
    return body


def field(body: Json, name: str, kind: type[_T], default: _T | None = None) -> _T:
    """One plain field; required if there is no default. Numbers may be whole where floats go."""
    value = body.get(name)
    if value is None:
        if default is None:
            raise Invalid(f"the field '{name}' is missing")
        return default
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise Invalid(f"the field '{name}' is beyond 2**53: JSON carries no such number safely")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Invalid(f"the field '{name}' is {_kind(value)}: give {_NAMES[kind]}")
    if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
        raise Invalid(f"the field '{name}' holds half a character, which UTF-8 can't say")
    return value


def groups_from_json(body: Any) -> list[TrajectoryGroup]:
    """All groups of a list, or none: which one is wrong, the sentence says."""
    if not isinstance(body, list):
        raise Invalid(f"the body is {_kind(body)}: give a list of groups")
    return [_group_at(at, one) for at, one in enumerate(body)]


def _group_at(at: int, body: Any) -> TrajectoryGroup:
    try:
        return group_from_json(body)
    except ValueError as error:  # InvalidArgument is one too
        raise Invalid(f"group {at} of the list: {error}") from None


def group_from_json(body: Any) -> TrajectoryGroup:
    """A checked group. Raises Invalid, and InvalidArgument for columns that do not fit."""
    given = {name: value for name, value in object_of(body).items() if value is not None}
    for name in _REQUIRED:
        if name not in given:
            raise Invalid(f"the field '{name}' is missing")
    fields: Json = {name: _sequences(name, given[name]) for name in _PER_TOKEN if name in given}
    for name in _DISTILLED:
        if name in given:
            fields[name] = _distilled(name, given[name])
    fields["scores"] = _numbers("scores", given["scores"], "the field")
    if "messages" in given:
        fields["messages"] = _messages(given["messages"])
    if "overrides" in given:
        fields["overrides"] = _list_of_objects("overrides", given["overrides"])
    for name in ("generation_params", "group_overrides"):
        if name in given:
            fields[name] = field(given, name, dict)
    if "env_id" in given:
        fields["env_id"] = field(given, "env_id", int)
    if "images" in given:
        fields["images"] = given["images"]
    return TrajectoryGroup(_sequences("tokens", given["tokens"]), **fields)


def group_to_json(group: TrajectoryGroup) -> Json:
    """The same keys in every group; None where it has no such thing."""
    return {name: _as_lists(getattr(group, name)) for name in _KEYS}


def _as_lists(value: Any) -> Any:
    """Columns become lists; what the caller gave as plain values stays as it is."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list):
        return [_as_lists(one) for one in value]
    return value


def _sequences(name: str, value: Any) -> list[Any]:
    sequences = _list(name, value, "the field")
    return [_numbers(name, one, f"sequence {at} of") for at, one in enumerate(sequences)]


def _distilled(name: str, value: Any) -> list[Any]:
    sequences = _list(name, value, "the field")
    for at, sequence in enumerate(sequences):
        for token in _list(name, sequence, f"sequence {at} of"):
            _list(name, token, f"a token in sequence {at} of")
        _numbers(name, list(chain.from_iterable(sequence)), f"sequence {at} of")
    return sequences


def _numbers(name: str, value: Any, where: str) -> Any:
    """An array of what is whole, or real. NumPy looks at the values faster than Python would."""
    values = _list(name, value, where)
    whole = name in _INTEGERS
    wanted = "whole numbers" if whole else "numbers"
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):  # lists of different lengths among them
        _refuse(name, where, wanted)
    if array.size == 0 and array.ndim == 1:
        return array.astype(np.int32 if whole else np.float64)
    if array.ndim != 1 or array.dtype.kind not in ("i" if whole else "if"):
        _refuse(name, where, wanted)
    if not whole:
        return array.astype(np.float64, copy=False)
    limits = np.iinfo(np.int32)
    fits = array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int32 if fits else np.int64, copy=False)


def _refuse(name: str, where: str, wanted: str) -> NoReturn:
    raise Invalid(f"{where} '{name}' holds something else than {wanted}")


def _list(name: str, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"{where} '{name}' is {_kind(value)}: give a list")
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


_NAMES: Final[Mapping[type, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list"
    return _NAMES.get(type(value), type(value).__name__)
