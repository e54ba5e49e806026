"""vLLM's object storage over Store: readers get what was put; what all have read may be freed; an
old handle never leads to another object."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from peers import WITHIN, eventually, needs_a_mount, with_own_shm

import penstock
from penstock.integrations.vllm.chunks import Chunks
from penstock.integrations.vllm.shm_object_storage import (
    MsgpackSerde,
    ObjectSerde,
    SingleWriterShmObjectStorage,
    SingleWriterShmRingBuffer,
)

KIB = 1 << 10
Storage = SingleWriterShmObjectStorage
Ring = SingleWriterShmRingBuffer


@pytest.fixture
def storages() -> Iterator[list[Storage]]:
    """A writer and two readers in this process."""
    made = make_storages(2, 100 * KIB, 10 * KIB)
    yield made
    for one in made:
        one.close()


def make_storages(
    readers: int, size: int, largest: int, serde: Any = MsgpackSerde
) -> list[Storage]:
    writer = Storage(largest, readers, Ring(size, create=True), serde)
    handle = writer.handle()
    handle.reader_lock = threading.Lock()
    return [writer, *(Storage.create_from_handle(handle) for _ in range(readers))]


def hand_out(writer: Storage, key: str, value: Any = None) -> tuple[int, int, list[int], str]:
    """What one request carries to all readers."""
    place = writer.get_cached(key) if writer.is_cached(key) else writer.put(key, value)
    return (*place, writer.get_signature(key), key)


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", {"a": [1, (2.5, None)]}, {1, 2}, np.arange(500), Path("/a")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_put_is_what_a_reader_gets(storages: Any, value: Any) -> None:
    writer, *readers = storages
    handed = hand_out(writer, "key", value)
    for reader in readers:
        got = reader.get(*handed)
        assert type(got) is type(value)
        np.testing.assert_equal(got, value)
    if isinstance(value, np.ndarray):
        got[0] = 7  # its own
    np.testing.assert_equal(writer.get(*handed[:2]), value)


def test_a_tensor_is_the_readers_own(storages: Any) -> None:
    torch = pytest.importorskip("torch")
    writer, reader, _ = storages
    sent = torch.arange(100, dtype=torch.bfloat16)
    got = reader.get(*hand_out(writer, "key", {"pixels": sent}))["pixels"]
    assert torch.equal(got, sent)
    got[0] = 7


class Item(dict[str, Any]):
    """Stands for vLLM's MultiModalKwargsItem, with an encoder that gives arrays parts of their own,
    as vLLM's does."""


class Encoder:
    def encode(self, value: Item) -> list[Any]:
        head = [(name, array.shape, array.dtype.str) for name, array in value.items()]
        return [pickle.dumps(head), *(memoryview(array) for array in value.values())]


class Decoder:
    def __init__(self, cls: type, share_mem: bool) -> None:
        assert not share_mem  # what it makes must not lie in shared memory
        self.cls = cls

    def decode(self, parts: list[Any]) -> Any:
        head = pickle.loads(parts[0])
        return self.cls(
            (name, np.frombuffer(bytearray(part), dtype).reshape(shape))
            for (name, shape, dtype), part in zip(head, parts[1:], strict=True)
        )


def test_vllms_encoder_is_used_where_it_is(monkeypatch: Any) -> None:
    pytest.importorskip("torch")
    inputs, serial = ModuleType("vllm.multimodal.inputs"), ModuleType("vllm.v1.serial_utils")
    inputs.MultiModalKwargsItem = Item  # type: ignore[attr-defined]
    serial.MsgpackEncoder, serial.MsgpackDecoder = Encoder, Decoder  # type: ignore[attr-defined]
    for module in (ModuleType("vllm"), ModuleType("vllm.multimodal"), ModuleType("vllm.v1")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for module in (inputs, serial):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    writer, reader = make_storages(1, 100 * KIB, 50 * KIB)
    sent = Item(pixels=np.arange(5000, dtype=np.float32).reshape(50, 100), sizes=np.arange(3))
    got = reader.get(*hand_out(writer, "key", sent))
    assert type(got) is Item
    assert got.keys() == sent.keys()
    for name, array in sent.items():
        np.testing.assert_array_equal(got[name], array)
        got[name][0] = 7
    assert reader.get(*hand_out(writer, "text", "no item")) == "no item"
    for one in (writer, reader):
        one.close()


def test_keys_ids_and_errors_are_vllms(storages: Any) -> None:
    writer, reader, _ = storages
    assert [writer.put(f"key {n}", n)[1] for n in range(3)] == [0, 1, 2]
    assert list(writer.key_index) == ["key 0", "key 1", "key 2"]
    assert writer.id_index == {0: "key 0", 1: "key 1", 2: "key 2"}
    assert writer.get_cached("key 1") == writer.key_index["key 1"]
    with pytest.raises(KeyError):
        writer.get_cached("missing")
    with pytest.raises(ValueError, match=r"Key 'key 1' already exists in the storage\."):
        writer.put("key 1", "other")
    with pytest.raises(ValueError, match=r"\(.* bytes\) exceeds max object size \(10240 bytes\)"):
        writer.put("large", "x" * 11 * KIB)
    with pytest.raises(ValueError, match="'999:1' has been modified or is invalid"):
        writer.get(999, 1)
    with pytest.raises(ValueError, match="Lock must be provided for readers"):
        Storage(1, 1, reader.ring_buffer, MsgpackSerde)
    with pytest.raises(ValueError, match="Unsupported data type"):
        writer.copy_to_buffer({}, 0, b"", 0, memoryview(bytearray(8)))  # type: ignore[arg-type]
    reader.clear()  # a reader's is without effect
    assert writer.is_cached("key 0")
    assert not writer.is_cached("missing")


def test_readers_need_the_signature_of_just_this_object(storages: Any) -> None:
    writer, reader, _ = storages
    address, number, signature, key = hand_out(writer, "key", "value")
    reader.touch(key, address, number, signature)
    flipped = [signature[0] ^ 1, *signature[1:]]
    for call in (
        lambda wrong: reader.get(address, number, wrong, key),
        lambda wrong: reader.touch(key, address, number, wrong),
        lambda wrong: writer.verify_signature(key, address, number, wrong),
    ):
        with pytest.raises(ValueError, match=r"Missing SHM handle signature for cache key\."):
            call(None)
        for wrong in (flipped, [signature], signature[:-1], [256] * 32, bytes(signature)):
            with pytest.raises(ValueError, match=r"Invalid SHM handle signature for cache key\."):
                call(wrong)
    for wrong_handle in (
        (address, number, signature, "other"),
        (address + 1, number, signature, key),
    ):
        with pytest.raises(ValueError, match="Invalid SHM handle signature"):
            reader.get(*wrong_handle)
    assert reader.get(address, number, signature, key) == "value"
    writer.clear()
    with pytest.raises(ValueError, match="Invalid SHM handle signature"):
        writer.verify_signature(key, address, number, signature)


def test_after_clear_ids_go_on_and_old_handles_never_lead_to_another_object(storages: Any) -> None:
    writer, reader, _ = storages
    old = [hand_out(writer, f"key {n}", f"value {n}") for n in range(5)]
    writer.clear()
    assert not writer.key_index
    assert not writer.ring_buffer.metadata
    assert reader.get(*old[0]) == "value 0"  # its own, while its memory is not used again
    assert writer.put("key 0", "new") == (0, 5)
    with pytest.raises(ValueError, match="modified or is invalid"):
        reader.get(*old[0])
    with pytest.raises(ValueError, match="modified or is invalid"):
        reader.touch("key 0", *old[0][:3])
    assert reader.get(*old[4]) == "value 4"


def test_an_object_is_freed_when_all_have_read_it_as_often_as_it_was_handed_out(
    storages: Any,
) -> None:
    writer, *readers = storages
    handed = [hand_out(writer, "image", "value") for _ in range(2)]

    def is_freed() -> bool:
        writer.free_unused()
        return not writer.is_cached("image")

    for reader in readers:
        for one in handed:
            assert not is_freed()
            assert reader.get(*one) == "value"
    writer.touch("image")
    assert not is_freed()
    writer.release_touches()
    assert is_freed()
    writer.touch("missing")


def test_the_oldest_go_first(storages: Any) -> None:
    writer, *readers = storages
    count = 0
    while list(writer.key_index)[:1] in ([], ["0"]):
        handed = hand_out(writer, str(count), bytes(5 * KIB))
        for reader in readers:
            reader.get(*handed)
        count += 1
    keys = [int(key) for key in writer.key_index]
    assert keys == list(range(keys[0], count))


def test_an_object_that_was_never_read_blocks_only_itself(storages: Any) -> None:
    """vLLM 0.32's storage is full for ever after some such objects."""
    writer, *readers = storages
    first = hand_out(writer, "never read", "kept")
    for number in range(200):
        handed = hand_out(writer, f"key {number}", bytes(5 * KIB))
        for reader in readers:
            reader.get(*handed)
    assert readers[0].get(*first) == "kept"


def test_a_touched_object_keeps_the_younger_ones_too(storages: Any) -> None:
    """Its request is about to use them."""
    writer, *readers = storages
    for key in ("a", "b", "c"):
        handed = hand_out(writer, key, bytes(5 * KIB))
        for reader in readers:
            reader.get(*handed)
    writer.touch("b")
    writer.free_unused()
    assert list(writer.key_index) == ["b", "c"]
    writer.release_touches()
    writer.free_unused()
    assert not writer.is_cached("b")


def test_a_storage_of_unread_objects_is_full(storages: Any) -> None:
    writer, *_ = storages
    with pytest.raises(MemoryError, match=r"free_buf\(\)"):  # noqa: PT012
        for number in range(100):
            writer.put(str(number), bytes(5 * KIB))
    assert 15 <= len(writer.key_index) <= 20


def test_more_acknowledgements_than_the_store_counts_are_owed() -> None:
    writer, reader = make_storages(1, 100 * KIB, KIB)
    count = 66_000  # the Store counts to 65535
    place = [hand_out(writer, "key", 1)[:2] for _ in range(count)][-1]
    for _ in range(1000):
        reader.ring_buffer.acknowledge(*place)
    writer.free_unused()  # notes what was owed
    for _ in range(count - 1000 - 1):
        reader.ring_buffer.acknowledge(*place)
    writer.free_unused()
    assert writer.is_cached("key")
    reader.ring_buffer.acknowledge(*place)
    writer.free_unused()
    assert not writer.is_cached("key")
    writer.close()
    reader.close()


class FailingSerde(MsgpackSerde):
    def serialize(self, value: Any) -> Any:
        data, nbytes, metadata, size = super().serialize(value)
        return (
            ([data, 5], nbytes, metadata, size)
            if value == "bad"
            else (data, nbytes, metadata, size)
        )


def test_a_put_that_fails_leaves_nothing() -> None:
    writer, reader = make_storages(1, 10 * KIB, 8 * KIB, FailingSerde)
    for _ in range(20):
        with pytest.raises(TypeError):
            writer.put("key", "bad")
    assert not writer.key_index
    assert reader.get(*hand_out(writer, "key", "x" * 7 * KIB)) == "x" * 7 * KIB
    writer.close()
    reader.close()


# Processes


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_readers_in_other_processes(peer: Any, method: str) -> None:
    others = [peer(method) for _ in range(2)]
    writer = Storage(10 * KIB, 2, Ring(100 * KIB, create=True))
    for other in others:
        other.call("do", "vllm_queues:attach_storage", "s", writer.handle())
    for number in range(60):
        handed = hand_out(writer, f"key {number % 7} of {number // 7}", ["value", number])
        for other in others:
            other.call("s.touch", handed[3], *handed[:3])
            assert other.call("s.get", *handed) == ["value", number]
    writer.close()


def test_a_reader_that_dies_with_the_lock_holds_up_nobody(storages: Any, peer: Any) -> None:
    """vLLM's other readers wait for that lock for ever."""
    lock = multiprocessing.get_context("spawn").Lock()
    writer = storages[0]
    ring = Ring(*writer.ring_buffer.handle())
    reader = Storage(10 * KIB, 2, ring, MsgpackSerde, lock)
    dies = multiprocessing.get_context("spawn").Process(target=lock_and_die, args=(lock,))
    dies.start()
    dies.join(WITHIN)
    assert dies.exitcode == -9
    assert not lock.acquire(block=False)
    assert reader.get(*hand_out(writer, "key", "value")) == "value"
    reader.close()


def lock_and_die(lock: Any) -> None:
    lock.acquire()
    os.kill(os.getpid(), 9)


def test_nothing_is_left_when_the_last_has_left(peer: Any) -> None:
    other = peer()
    writer = Storage(KIB, 1, Ring(10 * KIB, create=True))
    file = Path(f"/dev/shm/penstock.{writer.ring_buffer.shared_memory.name}")
    other.call("do", "vllm_queues:attach_storage", "s", writer.handle())
    handed = hand_out(writer, "key", "value")
    writer.close()
    assert other.call("s.get", *handed) == "value"
    other.kill()
    assert eventually(
        lambda: not file.exists() or penstock.inspect.remove_if_abandoned(file.name[9:])
    )


def test_names_are_taken_once_and_found_again(name: str) -> None:
    ring = Ring(KIB, name=f"{name}=/x", create=True)  # no name of a segment, but one of vLLM's
    with pytest.raises(FileExistsError):
        Ring(KIB, name=f"{name}=/x", create=True)
    with pytest.raises(FileNotFoundError):
        Ring(KIB, name=name)
    with pytest.raises(AssertionError):
        Ring(2 * KIB, name=f"{name}=/x")
    other = Ring(*ring.handle())
    assert other.get_auth_secret() == ring.get_auth_secret()
    assert len(ring.get_auth_secret()) == ring.AUTH_SECRET_BYTES
    assert other.shared_memory.name == ring.shared_memory.name
    other.close()
    ring.close()
    ring.close()
    with pytest.raises(AssertionError, match="Buffer has been closed"):
        ring.allocate_buf(1)


def test_handles_and_rings_of_the_other_kind_are_refused_in_words(storages: Any, name: str) -> None:
    handle = storages[0].handle()
    assert pickle.loads(pickle.dumps(handle)) == handle
    with pytest.raises(penstock.Incompatible, match="PENSTOCK_VLLM=1"):
        Ring(*handle.ring_buffer_handle)
    handle.ring_buffer_handle = (100, "psm_0123")
    with pytest.raises(penstock.Incompatible, match="vLLM's own object storage"):
        Storage.create_from_handle(handle)
    theirs = Path("/dev/shm") / name
    theirs.write_bytes(bytes(100))
    try:
        with pytest.raises(penstock.Incompatible, match="ring of vLLM's own"):
            Ring(64, name=name)
    finally:
        theirs.unlink()


@needs_a_mount
def test_memory_is_reserved_before_it_is_promised() -> None:
    """vLLM's ring is made whatever /dev/shm has, and a write may end the process by SIGBUS."""
    done = with_own_shm(
        """
        from penstock.integrations.vllm.shm_object_storage import *
        ring = SingleWriterShmRingBuffer(1 << 30, create=True)
        storage = SingleWriterShmObjectStorage(1 << 24, 1, ring)
        try:
            for number in range(64):
                storage.put(str(number), bytes(1 << 20))
        except MemoryError as error:
            print(len(storage.key_index), error)
        storage.clear()
        print(storage.put("again", bytes(1 << 20)))
        """,
        mount="size=48m",
    )
    assert done.returncode == 0, done.stderr
    count, _, error = done.stdout.splitlines()[0].partition(" ")
    assert 4 < int(count) < 44
    assert "/dev/shm" in error
    assert done.stdout.splitlines()[1].startswith("(0, ")


class SameBlock(ObjectSerde):
    """Values of many GiB that need little memory of one's own."""

    block = bytes(range(256)) * (1 << 20)

    def serialize(self, value: int) -> tuple[list[bytes], int, bytes, int]:
        return [self.block] * value, len(self.block) * value, b"m", 1

    def deserialize(self, data: memoryview) -> int:
        assert bytes(data[-256:]) == self.block[:256]
        return len(data)


@pytest.mark.full
def test_an_object_larger_than_2_gib() -> None:
    """vLLM's storage raises OverflowError."""
    if os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize < 5 << 30:
        pytest.skip("/dev/shm has less than 5 GiB")
    writer, reader = make_storages(1, 4 << 30, 3 << 30, SameBlock)
    assert reader.get(*hand_out(writer, "key", 9)) == 1 + 9 * len(SameBlock.block)
    writer.close()
    reader.close()


# The ring alone


def test_chunks_are_written_once_and_read_by_others() -> None:
    ring = Ring(4096, create=True)
    other = Ring(*ring.handle())
    address, number = ring.allocate_buf(100)
    with other.access_buf(address) as (data, facts):
        assert (len(data), facts) == (0, (-1, 0))  # not there before it is written
    with ring.access_buf(address) as (data, facts):
        assert facts == (number, 108)
        data[:5] = b"Hello"
    for one in (ring, other):
        with one.access_buf(address) as (data, facts):
            assert (bytes(data[:5]), facts) == (b"Hello", (number, 108))
            assert data.readonly
    with pytest.raises(AssertionError, match="Only the writer can allocate"):
        other.allocate_buf(1)
    with pytest.raises(AssertionError, match="greater than 0"):
        ring.allocate_buf(0)
    assert ring.byte2int(ring.int2byte(-5)) == -5
    assert list(ring.free_buf(lambda number, data: bytes(data[:5]) == b"Hello")) == [0]
    ring.close()
    other.close()


def test_a_full_ring_raises_and_freed_room_is_used_again() -> None:
    ring = Ring(200, create=True)
    ring.allocate_buf(100)
    ring.allocate_buf(80)
    with pytest.raises(MemoryError, match="Not enough space in the data buffer"):
        ring.allocate_buf(1)
    assert list(ring.free_buf(lambda number, _: number == 1)) == [1]  # 0 blocks no other
    assert (ring.monotonic_id_start, ring.data_buffer_start) == (0, 0)
    ring.allocate_buf(80)
    assert list(ring.free_buf(lambda *_: True, nbytes=100)) == [0]
    ring.clear()
    assert (ring.monotonic_id_start, ring.monotonic_id_end) == (3, 3)
    assert (ring.data_buffer_start, ring.data_buffer_end, ring.metadata) == (0, 0, {})
    ring.close()


def test_pieces_of_an_address_range_never_overlap() -> None:
    chance = random.Random(3)
    chunks = Chunks(1000)
    taken: dict[int, int] = {}
    for _ in range(5000):
        nbytes = chance.randint(1, 90)
        address = chunks.take(nbytes)
        if address is None or chance.random() < 0.4:
            if address is not None:
                taken[address] = nbytes
            if taken:
                gone = chance.choice(list(taken))
                chunks.remove(gone)
                del taken[gone]
            continue
        assert 0 <= address <= 1000 - nbytes
        assert all(
            address + nbytes <= other or other + size <= address for other, size in taken.items()
        )
        taken[address] = nbytes
        assert chunks.used == sum(taken.values())
        begin = chance.randint(0, 999)
        expected = [one for one in sorted(taken) if one < begin + 50 and one + taken[one] > begin]
        assert chunks.overlapping(begin, 50) == expected
    for address in list(taken):
        chunks.remove(address)
    assert chunks.take(1000) == 0
