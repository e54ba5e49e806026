"""Keys of KV chunks: a hash of a chunk's tokens and of all before them, in the namespace of the
engines that may share it.

The chain over the tokens is computed once for a request; each object group and rank then derives
keys of its own from the hashes. All hashes are BLAKE2b with 256 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import InvalidArgument

__all__ = ["KEY_PREFIX", "Namespace", "Tokens", "chunk_hashes", "keys_of", "tokens_of"]

Tokens: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]

KEY_PREFIX: Final = b"kv1:"  # no other key in the store begins like this
_DIGEST: Final = 32  # bytes


class Namespace(NamedTuple):
    """Everything that must be equal for engines to share a chunk.

    ``layout`` says how a chunk's bytes are arranged, so that engines with another arrangement get
    other keys.
    """

    model_name: str
    world_size: int
    kv_rank: int
    group_id: int
    cache_salt: str
    layout: str

    def keys(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Keys of chunks, 36 bytes each."""
        return keys_of(self.secret(), hashes)

    def secret(self) -> bytes:
        """Makes the keys of this namespace differ from others for the same hashes."""
        # Each field is preceded by its length: no two namespaces give the same bytes.
        fields = [str(field).encode("utf-8", "surrogatepass") for field in self]
        return _hash(b"".join(len(field).to_bytes(8, "little") + field for field in fields))


def keys_of(secret: bytes, hashes: Sequence[bytes]) -> list[bytes]:
    """Keys of chunks in the namespace with that secret."""
    return [KEY_PREFIX + _hash(one, key=secret) for one in hashes]


def tokens_of(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Token ids as int64, so that equal ids hash equally whatever their type was.

    Raises InvalidArgument unless they are a flat sequence of ints that fit.
    """
    array = np.asarray(tokens)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, "<i8")
    limit = np.iinfo(np.int64).max
    is_good = array.ndim == 1 and array.dtype.kind in "iu"
    if not is_good or (array.dtype == np.uint64 and int(array.max()) > limit):
        raise InvalidArgument(
            f"tokens are {array.dtype} in {array.ndim} dimensions: give a flat sequence of ints"
        )
    return np.ascontiguousarray(array, "<i8")


def chunk_hashes(tokens: Tokens, chunk_tokens: int) -> list[bytes]:
    """A hash of each whole chunk and all tokens before it; tokens after the last whole chunk have
    none."""
    ids = tokens_of(tokens)
    count = len(ids) // chunk_tokens
    data = memoryview(ids[: count * chunk_tokens].tobytes())
    size = 8 * chunk_tokens
    hashes: list[bytes] = []
    last = _hash(chunk_tokens.to_bytes(8, "little"))
    for begin in range(0, len(data), size):
        last = _hash(data[begin : begin + size], key=last)
        hashes.append(last)
    return hashes


def _hash(data: bytes | memoryview, key: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST, key=key).digest()
