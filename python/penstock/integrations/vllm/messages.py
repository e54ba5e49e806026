"""What a MessageQueue puts on its Broadcast: any picklable object, its large buffers out of band.

    ()                          the writer is ready
    (value,)                    a value that the typed codec carries exactly
    bytes                       a pickle
    (pickle, buffer, …)         a pickle and its buffers, as arrays of uint8, in order
    (pickle, (buffer,), …)      the same; a buffer in a tuple stays in shared memory at the reader

Everything is copied into shared memory before ``enqueue`` returns, and what is received is the
receiver's own, except buffers of the last kind.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import typed
from .tensors import reduce_tensor

__all__ = ["OUT_OF_BAND", "READY", "decode", "message_of", "pickled", "pickled_message_of"]

READY: tuple[()] = ()
OUT_OF_BAND = 64 << 10  # bytes of a buffer from which copies through the pickle cost more

Reducers = dict[type, Callable[[Any], Any]]
Take = Callable[[pickle.PickleBuffer], Any]


def message_of(value: Any) -> Any:
    """The message of a value; bytes are to be sent as bytes. Raises what pickle raises.

    The message refers to the value's memory: send it before that changes.
    """
    return (value,) if typed.carries(value) else pickled_message_of(value)


def pickled_message_of(value: Any) -> Any:
    """The message of a value as a pickle, never by the typed codec."""
    buffers: list[Any] = []

    def take(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True  # in the pickle
        buffers.append(np.frombuffer(raw, np.uint8))
        return False

    data = pickled(value, take)
    return (data, *buffers) if buffers else data


def decode(message: Any) -> Any:
    """The value of a message, not READY."""
    if type(message) is bytes:
        return pickle.loads(message, buffers=())
    if len(message) == 1:
        return message[0]
    return pickle.loads(message[0], buffers=message[1:])


def pickled(value: Any, take: Take, reducers: Reducers | None = None) -> bytes:
    """The pickle of a value; ``take`` gets its buffers, and returns False for one that it took."""
    torch = sys.modules.get("torch")
    if torch is None:  # then the value has no tensors
        return pickle.dumps(value, 5, buffer_callback=take)
    with io.BytesIO() as out:
        pickler = pickle.Pickler(out, 5, buffer_callback=take)
        # Reducers that are registered for all picklers count too.
        pickler.dispatch_table = {
            **copyreg.dispatch_table,
            torch.Tensor: reduce_tensor,
            **(reducers or {}),
        }
        pickler.dump(value)
        return out.getvalue()
