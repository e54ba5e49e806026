"""Columns of numbers: JSON text becomes flat arrays, a bounded piece at a time.

Types are checked before an array is made, and no array is ever made of anything but numbers. A
list of Python's numbers takes up to 16 times its text: so no more than a piece of a long column is
ever one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from ..trajectories.columns import INTEGER_COLUMNS, FlatColumn
from .words import Invalid

__all__ = ["distilled_column", "scores_of", "token_column"]

_PIECE: Final = 64 << 10  # bytes of text that become lists at once
_LONGEST_TOKEN: Final = 4 << 20  # bytes of the list of one token
_END_OF_LIST: Final = re.compile(rb"\]\s*,")
_END_OF_LISTS: Final = re.compile(rb"\]\s*\]\s*,")
_FIRST: Final = re.compile(rb"\s*(.)")
_FIRSTS: Final = {
    b'"': "text",
    b"{": "an object",
    b"t": "true or false",
    b"f": "true or false",
    b"n": "null",
}
_PLACE: Final = re.compile(r" - at `\$((?:\[\d+\])*)`")
_FOUND: Final = re.compile(r"^Expected `array`, got `(\w+)`")
_INT64: Final = np.iinfo(np.int64)
_INT32: Final = np.iinfo(np.int32)


class _Kind(NamedTuple):
    """What the numbers of a column are; the types of one, two and three levels of lists."""

    words: str
    dtype: npt.DTypeLike
    one: Any
    two: Any
    three: Any


_WHOLE: Final = _Kind("whole numbers", np.int32, list[int], list[list[int]], list[list[list[int]]])
_REAL: Final = _Kind("numbers", np.float64, list[float], list[list[float]], list[list[list[float]]])
_DECODERS: Final = {
    lists: msgspec.json.Decoder(lists)
    for kind in (_WHOLE, _REAL)
    for lists in (kind.one, kind.two, kind.three)
}
_TEXTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_KINDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "object": "an object",
    "bool": "true or false",
}


def scores_of(name: str, source: Any) -> npt.NDArray[Any]:
    """One real number for each sequence. ``source`` is JSON text, or its value."""
    flat = _Flat(name, source)
    if _is_long(source):
        _check_list(source, "the field", name)
        for piece in _pieces_of_numbers(source):
            flat.add(flat.decode(piece, flat.kind.one, ("the field",)), "the field")
    else:
        flat.add(flat.decode(source, flat.kind.one, ("the field",)), "the field")
    return flat.array()


def token_column(name: str, source: Any) -> FlatColumn:
    """A column with a number for each token: a list for each sequence."""
    flat = _Flat(name, source)
    lengths: list[int] = []

    def add_short(rows: Any) -> None:
        rows = flat.decode(rows, flat.kind.two, ("the field", "sequence {} of"), len(lengths))
        flat.add_rows(rows, len(lengths))
        lengths.extend(map(len, rows))

    def add_long(row: bytes) -> None:
        before, where = flat.size, f"sequence {len(lengths)} of"
        _check_list(row, where, name)
        for piece in _pieces_of_numbers(row):
            flat.add(flat.decode(piece, flat.kind.one, (where,)), where)
        lengths.append(flat.size - before)

    _read_in_pieces(name, source, _END_OF_LIST, add_short, add_long)
    return FlatColumn(flat.array(), np.array(lengths, np.int64), None)


def distilled_column(name: str, source: Any, sequences: int) -> FlatColumn:
    """A column with several numbers for each token: a list for each token of each sequence.

    There must be as many ``sequences``. Its lists are objects while they are read: 56 bytes for
    each bracket of ``source``, at most.
    """
    flat = _Flat(name, source)
    lengths: list[int] = []
    widths: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]

    def add(tokens: list[list[Any]], at: int) -> int:
        widths.append(np.fromiter(map(len, tokens), np.int32, len(tokens)))
        flat.add(list(chain.from_iterable(tokens)), f"sequence {at} of")
        return len(tokens)

    def add_short(rows: Any) -> None:
        places = ("the field", "sequence {} of", "a token in sequence {} of", "sequence {} of")
        first = len(lengths)
        rows = flat.decode(rows, flat.kind.three, places, first)
        lengths.extend([add(tokens, first + at) for at, tokens in enumerate(rows)])

    def add_long(row: bytes) -> None:
        if len(lengths) >= sequences:
            raise Invalid(f"the field '{name}' has more sequences than the tokens: {sequences}")
        at = len(lengths)
        where = f"sequence {at} of"
        _check_list(row, where, name)
        places = (where, f"a token in {where}", where)
        pieces = _pieces_of_tokens(name, row)
        lengths.append(sum(add(flat.decode(one, flat.kind.two, places), at) for one in pieces))

    _read_in_pieces(name, source, _END_OF_LISTS, add_short, add_long)
    return FlatColumn(flat.array(), np.array(lengths, np.int64), np.concatenate(widths))


def _read_in_pieces(
    name: str,
    source: Any,
    end: re.Pattern[bytes],
    add_short: Callable[[Any], None],
    add_long: Callable[[bytes], None],
) -> None:
    """Several sequences at a time, or a long one alone."""
    if not _is_long(source):
        return add_short(source)
    _check_list(source, "the field", name)
    for piece in _pieces(source, end):
        if len(piece) <= 2 * _PIECE:
            add_short(piece)
        else:
            for row in _rows_of(name, piece):
                add_long(bytes(row))
    return None


def _rows_of(name: str, piece: bytes) -> list[msgspec.Raw]:
    try:
        return _TEXTS.decode(piece)
    except (ValueError, RecursionError):  # it was cut within a list that should be a number
        raise Invalid(f"the field '{name}' holds lists of something else than numbers") from None


class _Flat:
    """The numbers of a column in a row, in an array that is as large as its text allows."""

    def __init__(self, name: str, source: Any) -> None:
        self.kind = _WHOLE if name in INTEGER_COLUMNS else _REAL
        self.size = 0
        self._name = name
        most = source.count(b",") + 1 if isinstance(source, bytes) else 0
        self._array: npt.NDArray[Any] = np.empty(most, self.kind.dtype)

    def decode(self, source: Any, lists: Any, places: tuple[str, ...], first: int = 0) -> Any:
        """Lists of numbers; ``places`` say what is refused, by how deep in the lists it is.

        ``first`` is the number of the first list in the whole column.
        """
        try:
            if isinstance(source, bytes):
                return _DECODERS[lists].decode(source)
            return msgspec.convert(source, lists)
        except (ValueError, RecursionError) as error:
            self._refuse(str(error), places, first)

    def add_rows(self, rows: list[list[Any]], first: int) -> None:
        """The numbers of several sequences."""
        try:
            self.add(list(chain.from_iterable(rows)), "")
        except Invalid:  # too large: of which?
            for at, row in enumerate(rows):
                self.add(row, f"sequence {first + at} of")
            raise

    def add(self, values: list[Any], where: str) -> None:
        """The numbers of a piece."""
        try:
            numbers = np.array(values, np.int64 if self.kind is _WHOLE else np.float64)
        except OverflowError:
            raise Invalid(self._other(where)) from None
        end = self.size + len(numbers)
        if end > len(self._array):  # of values that were no text
            longer = np.empty(max(end, 2 * self.size), self._array.dtype)
            longer[: self.size] = self.array()
            self._array = longer
        if self._array.dtype == np.int32 and not _fits_int32(numbers):
            self._array = self._array.astype(np.int64)
        self._array[self.size : end] = numbers
        self.size = end

    def array(self) -> npt.NDArray[Any]:
        """All that were added."""
        return self._array[: self.size]

    def _refuse(self, why: str, places: tuple[str, ...], first: int) -> NoReturn:
        found = _PLACE.search(why)
        indices = found[1].strip("[]").split("][") if found and found[1] else []
        where = places[min(len(indices), len(places) - 1)]
        where = where.format(*(first + int(at) for at in indices[:1]))
        instead = _FOUND.match(why)
        if instead:
            kind = _KINDS.get(instead[1], instead[1])
            raise Invalid(f"{where} '{self._name}' is {kind}: give a list")
        raise Invalid(self._other(where))

    def _other(self, where: str) -> str:
        return f"{where} '{self._name}' holds something else than {self.kind.words}"


def _fits_int32(numbers: npt.NDArray[Any]) -> bool:
    if not numbers.size:
        return True
    return bool(numbers.min() >= _INT32.min and numbers.max() <= _INT32.max)


def _is_long(source: Any) -> bool:
    return isinstance(source, bytes) and len(source) > _PIECE


def _check_list(text: bytes, where: str, name: str) -> None:
    """Before it is cut in pieces."""
    first = _FIRST.match(text)
    if first is not None and first[1] != b"[":
        kind = _FIRSTS.get(first[1], "a number")
        raise Invalid(f"{where} '{name}' is {kind}: give a list")


def _pieces_of_numbers(text: bytes) -> Iterator[bytes]:
    """A list as several, cut at commas. Sound if and only if the list is one of numbers."""
    begin, last = text.index(b"[") + 1, text.rindex(b"]")
    while last - begin > _PIECE:
        end = text.find(b",", begin + _PIECE, last)
        if end < 0:
            break
        yield b"[%b]" % text[begin:end]
        begin = end + 1
    yield b"[%b]" % text[begin:last]


def _pieces(text: bytes, end: re.Pattern[bytes]) -> Iterator[bytes]:
    """A list of lists as several, cut between two of them; sound likewise."""
    begin, last = text.index(b"[") + 1, text.rindex(b"]")
    while last - begin > _PIECE and (found := end.search(text, begin + _PIECE, last)):
        comma = found.end() - 1
        yield b"[%b]" % text[begin:comma]
        begin = comma + 1
    yield b"[%b]" % text[begin:last]


def _pieces_of_tokens(name: str, text: bytes) -> Iterator[bytes]:
    for piece in _pieces(text, _END_OF_LIST):
        if len(piece) > _LONGEST_TOKEN:
            raise Invalid(f"a token of '{name}' has more than {_LONGEST_TOKEN} bytes of numbers")
        yield piece
