"""What peers do in the tests of vLLM's queue and object store, by `Peer.call("do", …)`."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np

from penstock.integrations.vllm.shm_broadcast import Handle, MessageQueue
from penstock.integrations.vllm.shm_object_storage import SingleWriterShmObjectStorage

Objects = dict[str, Any]


def create(objects: Objects, key: str, *args: Any, **kwargs: Any) -> Handle:
    """The writer of a new queue."""
    objects[key] = MessageQueue(*args, **kwargs)
    return objects[key].export_handle()


def attach(objects: Objects, key: str, handle: Handle, rank: int) -> None:
    """A reader."""
    objects[key] = MessageQueue.create_from_handle(handle, rank)


def attach_storage(objects: Objects, key: str, handle: Any) -> None:
    """A reader of an object storage. Its lock never serves, so any object stands for it."""
    handle.reader_lock = threading.Lock()
    objects[key] = SingleWriterShmObjectStorage.create_from_handle(handle)


def sums(objects: Objects, key: str, count: int, timeout: float) -> list[int]:
    """The sum of each of the next arrays."""
    return [int(np.sum(objects[key].dequeue(timeout=timeout))) for _ in range(count)]


def error_of_dequeuing(objects: Objects, key: str, timeout: float) -> tuple[str, str, float]:
    """The error that ends a reader: class, text, and the moment."""
    try:
        while True:
            objects[key].dequeue(timeout=timeout)
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic()


def error_of_enqueuing(
    objects: Objects, key: str, nbytes: int, timeout: float
) -> tuple[str, str, float]:
    """The same of a writer that sends as fast as it can."""
    try:
        while True:
            objects[key].enqueue(bytes(nbytes), timeout=timeout)
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic()


def seconds_of_idling(objects: Objects, key: str, seconds: float) -> float:
    """The processor time of a wait for nothing."""
    begin = time.process_time()
    try:
        objects[key].dequeue(timeout=seconds, indefinite=True)
    except TimeoutError:
        return time.process_time() - begin
    raise AssertionError("it received something")


def memory_after(objects: Objects, key: str, count: int) -> int:
    """Resident bytes after so many messages, without shared memory."""
    for _ in range(count):
        objects[key].dequeue(timeout=30)
    with open("/proc/self/status", encoding="ascii") as status:
        facts = dict(line.split(":", 1) for line in status)
    return int(facts["RssAnon"].split()[0]) * 1024


def die_with(objects: Objects, lock: Any) -> None:
    """Takes a lock and is killed."""
    lock.acquire()
    os.kill(os.getpid(), 9)
