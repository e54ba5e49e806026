"""Objects to bytes and back, for the object storage: vLLM's own encoder where vLLM is installed,
Penstock's typed codec elsewhere, pickle for what neither supports."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ... import _core
from ...errors import UnsupportedType
from . import typed

__all__ = ["MsgpackSerde", "ObjectSerde"]

_TYPED = "penstock"
_PICKLED = bytes.__name__


class ObjectSerde(ABC):
    """How a storage turns values into bytes. Writer and readers use the same class."""

    @abstractmethod
    def serialize(self, value: Any) -> tuple[Any, int, bytes, int]:
        """The data, as bytes or a list of bytes, its length, the metadata, and its length."""
        raise NotImplementedError

    @abstractmethod
    def deserialize(self, data: memoryview) -> Any:
        """The value. ``data``: the metadata, then the data, in read-only shared memory, to which
        the value must not refer."""
        raise NotImplementedError


class MsgpackSerde(ObjectSerde):
    """What ``vllm serve --mm-processor-cache-type shm`` uses."""

    def __init__(self) -> None:
        try:
            from vllm.multimodal.inputs import MultiModalKwargsItem
            from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder
        except ImportError:
            self._encode: Callable[[Any], list[Any]] | None = None
            self._decoders: dict[str, Callable[[Any], Any]] = {}
            self._encoded: tuple[type, ...] = ()
            return
        import torch

        self._encode = MsgpackEncoder().encode
        self._encoded = (torch.Tensor, MultiModalKwargsItem)
        self._decoders = {
            one.__name__: MsgpackDecoder(one, share_mem=False).decode for one in self._encoded
        }

    def serialize(self, value: Any) -> tuple[bytes | list[bytes], int, bytes, int]:
        """Any picklable value. A list holds the parts of a value of vLLM's encoder."""
        data, kind, lengths = self._data_of(value)
        nbytes = len(data) if lengths is None else sum(lengths)
        metadata = pickle.dumps((kind, nbytes, lengths), pickle.HIGHEST_PROTOCOL)
        return data, nbytes, metadata, len(metadata)

    def _data_of(self, value: Any) -> tuple[Any, str, list[int] | None]:
        if self._encode is not None and isinstance(value, self._encoded):
            parts = [_flat(part) for part in self._encode(value)]
            return parts, type(value).__name__, [len(part) for part in parts]
        if self._encode is None and typed.carries(value):
            try:
                return _core.codec_encode(value), _TYPED, None
            except UnsupportedType:
                pass
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _PICKLED, None

    def deserialize(self, data_view: memoryview) -> Any:
        """The value, the caller's own. Raises ValueError for a kind that is not known here."""
        kind, nbytes, lengths = pickle.loads(data_view)
        data = data_view[len(data_view) - nbytes :]
        if kind == _PICKLED:
            return pickle.loads(data)
        if kind == _TYPED:
            return _core.codec_decode(data)
        if kind not in self._decoders:
            raise ValueError(f"Unsupported object type '{kind}' in metadata")
        parts = []
        for length in lengths:
            parts.append(data[:length])
            data = data[length:]
        return self._decoders[kind](parts)


def _flat(part: Any) -> Any:
    """A part of an encoded value, as something whose length is in bytes."""
    return part if isinstance(part, bytes | bytearray) else memoryview(part).cast("B")
