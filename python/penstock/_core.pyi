"""What the C++ module gives the package. Types are kept by hand, as what stubgen makes of it says
`object` where those below help; docstrings come from the bindings, by tools/dev/stubs.py."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias, TypedDict, TypeVar, final, overload

from ._second_tier import SecondTier
from .handle import Name, Owner

# bytes, bytearray, memoryview, NumPy arrays...: whatever has a contiguous buffer. Python has a
# type for that from 3.12 on only (collections.abc.Buffer).
Buffer: TypeAlias = Any
Timeout: TypeAlias = float | None
T = TypeVar("T")

__version__: str

class Cancel:
    """Ends a wait from another thread, within 80 ms."""

    def __init__(self) -> None: ...
    def cancel(self) -> None: ...
    @property
    def cancelled(self) -> bool: ...

def is_made(one: object) -> bool:
    """Whether it is an object of this module whose ``__init__`` has run."""

def run_cancellable(cancel: Cancel, call: Callable[[], T]) -> T:
    """``call()``; its waits end within 80 ms after ``cancel`` is cancelled."""

@final
@dataclass(frozen=True)
class BroadcastStats:
    """Counters of one handle, or of a whole Broadcast seen from outside."""

    messages: int
    """Messages sent; of a reader: received."""
    bytes: int
    """Bytes of the payload of all messages that were sent."""
    large_messages: int
    """Messages sent through blocks."""
    waits: int
    """Calls that found no message, or no room, at once."""
    sleeps: int
    """Sleeps in the kernel."""
    reader_deaths: int
    """Readers found dead."""
    capacity: int
    """Size of the ring."""
    used_bytes: int
    """Of the ring, up to the reader furthest behind; of a reader: its own."""
    held_bytes: int
    """Of large messages that are not free yet; of a reader: 0."""
    reserved_bytes: int
    """Memory that the segment takes now."""
    huge_page_bytes: int
    """Of a segment created with huge_pages: its memory in huge pages now."""
    joins: int
    """Participants that ever joined, the creator included."""
    deaths: int
    """Participants found dead."""
    waiting: Literal["balanced", "latency", "frugal"]
    """What waiting may cost the processor."""
    spin_seconds: float
    """Processor time that waits spent spinning; of a broadcast's handle: its own."""
    spins_won: int
    """Waits that ended while they were spinning."""
    waits_slept: int
    """Waits that had to sleep in the kernel."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class QueueStats:
    """Counters of a whole queue since its creation, and its present state."""

    accepted: int
    """Messages put, by all producers."""
    accepted_bytes: int
    """Bytes of the messages that were put."""
    taken: int
    """Deliveries; a redelivered message counts again."""
    acknowledged: int
    """Messages that were acknowledged."""
    nacked: int
    """Messages returned by nack(), or by an exception in a block."""
    dropped: int
    """Messages dropped, by discard() and drop_dead_letters() only."""
    queued: int
    """Messages that wait now, redelivered ones included."""
    in_flight: int
    """Messages taken and not acknowledged now."""
    dead_letters: int
    """Dead letters now."""
    queued_bytes: int
    """Of the messages that wait now."""
    oldest: float
    """Time that the oldest queued message has waited."""
    slots: int
    """Messages at most: queued, in flight or dead letters."""
    capacity: int
    """Room for messages that are not stored in their slots."""
    held_bytes: int
    """Of the capacity, in blocks."""
    requests: int
    """In line now: for several messages, or behind such a request."""
    requested: int
    """Messages that they want together; of trajectories, sequences."""
    waits: int
    """Calls that found no message, or no room, at once."""
    sleeps: int
    """Sleeps of participants in the kernel."""
    closed: bool
    """The stream has ended."""
    reserved_bytes: int
    """Memory that the segment takes now."""
    huge_page_bytes: int
    """Of a segment created with huge_pages: its memory in huge pages now."""
    joins: int
    """Participants that ever joined, the creator included."""
    deaths: int
    """Participants found dead."""
    waiting: Literal["balanced", "latency", "frugal"]
    """What waiting may cost the processor."""
    spin_seconds: float
    """Processor time that waits spent spinning; of a broadcast's handle: its own."""
    spins_won: int
    """Waits that ended while they were spinning."""
    waits_slept: int
    """Waits that had to sleep in the kernel."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class TierStats:
    """Requests of one Store to its second tier since it was made."""

    hits: int
    """Fetched from the second tier."""
    misses: int
    """Asked, and the second tier had no value that can be read."""
    skipped: int
    """Not asked: the circuit was open."""
    shared: int
    """Gets that waited for another thread's fetch of the same key."""
    errors: int
    """Requests that failed, other than by timeout."""
    timeouts: int
    """Requests that timed out."""
    corrupt: int
    """Values that differ from what was written."""
    incompatible: int
    """Sound values that can't be read here: of another version, or refused by the reader."""
    no_room: int
    """Values larger than the first tier, or than what is not in use there."""
    fetched_bytes: int
    """Data and metadata of the hits."""
    written: int
    """Objects written to the second tier."""
    written_bytes: int
    """Data and metadata of the objects written."""
    dropped: int
    """Objects that were put and not written to the second tier."""
    dropped_bytes: int
    """Data and metadata of the objects dropped."""
    inflight: int
    """Objects that wait to be written back, or are being written."""
    inflight_bytes: int
    """Data and metadata of the objects in flight."""
    servers: int
    """Known servers."""
    servers_away: int
    """Of the known servers, those whose circuit is open."""
    circuit: Literal["closed", "partial", "open"]
    """Closed: every server is asked; partial: of a cluster, some are not; open: none is."""
    last_error: str
    """Why the last of errors, timeouts, corrupt, incompatible or no_room was counted."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class StoreStats:
    """Counters of a whole store since its creation, and its present state.

    ``used_bytes + free_bytes == capacity``, and ``used_bytes`` is the sum of the five after
    ``free_bytes``.
    """

    capacity: int
    """Room for objects, with their keys and metadata."""
    used_bytes: int
    """The sum of the five from object_bytes on."""
    free_bytes: int
    """The rest of the capacity, to the byte."""
    object_bytes: int
    """Of resident objects: data, metadata and keys."""
    staged_bytes: int
    """The same of staged objects."""
    doomed_bytes: int
    """The same of removed objects that are still being read."""
    padding_bytes: int
    """Lost to alignment and granules."""
    other_bytes: int
    """Being freed, or being given back to the system."""
    largest_free: int
    """The longest free piece."""
    objects: int
    """Resident objects."""
    staged: int
    """Objects that are being written (staged)."""
    doomed: int
    """Removed objects that are still being read."""
    in_use: int
    """Objects that are being read now."""
    retained: int
    """Objects that retain() keeps."""
    most_objects: int
    """Objects that there is room for in the index, about."""
    hits: int
    """Look-ups that found their object, of all participants."""
    misses: int
    """Look-ups that found nothing, of all participants."""
    committed: int
    """Objects that were committed."""
    committed_bytes: int
    """Bytes of the objects that were committed."""
    evicted: int
    """Objects that were evicted."""
    evicted_bytes: int
    """Bytes of the objects that were evicted."""
    deleted: int
    """Objects that were deleted."""
    aborted: int
    """Reservations that were aborted."""
    expired: int
    """Reservations whose time was over before their commit."""
    refused: int
    """Reservations refused for lack of room."""
    eviction: Literal["sieve", "fifo", "lru", "none"]
    """What is evicted when room is wanted."""
    second_tier: TierStats | None
    """Of the handle that was asked, if it has one."""
    reserved_bytes: int
    """Memory that the segment takes now."""
    huge_page_bytes: int
    """Of a segment created with huge_pages: its memory in huge pages now."""
    joins: int
    """Participants that ever joined, the creator included."""
    deaths: int
    """Participants found dead."""
    waiting: Literal["balanced", "latency", "frugal"]
    """What waiting may cost the processor."""
    spin_seconds: float
    """Processor time that waits spent spinning; of a broadcast's handle: its own."""
    spins_won: int
    """Waits that ended while they were spinning."""
    waits_slept: int
    """Waits that had to sleep in the kernel."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class MemoryStats:
    """Memory of this process for the arrays that it receives; see ``penstock.memory_stats()``."""

    in_use_bytes: int
    """Recycled memory under arrays that exist."""
    kept_bytes: int
    """Memory of earlier arrays, kept for the next ones."""
    limit_bytes: int
    """The most that is kept."""
    recycled: int
    """Arrays that got memory of an earlier one."""
    fresh: int
    """Arrays that got memory from the system."""
    returned_bytes: int
    """Memory given back to the system."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class EnvironmentStats:
    """One environment; without a name, those that have left and whose groups remain."""

    name: str
    """Of the environment; empty: those that have left and whose groups remain."""
    writers: int
    """Writers that are alive."""
    weight: float
    """Share of the credit, relative to the other living environments."""
    min_share: float
    """Share of each batch at least, 0 to 1."""
    group_size: int
    """Sequences that a rollout is expected to make."""
    running_groups: int
    """Groups begun with credit and not put yet."""
    running_sequences: int
    """Sequences of the groups that are running."""
    waiting_groups: int
    """Groups put and not acknowledged, in a batch or waiting."""
    waiting_sequences: int
    """Sequences of the groups that wait."""
    largest_waiting: int
    """Sequences of the largest group that waits."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

@final
@dataclass(frozen=True)
class TrajectoryStats:
    """Counters of the whole queue, and its present participants."""

    queue: QueueStats
    """Of the queue that carries the groups."""
    version: int
    """Version of the policy: the step of the last ack()."""
    batch_sequences: int
    """Sequences of a batch; 0: no trainer has attached yet."""
    max_staleness: int | None
    """Versions that a group may be old; none: any age."""
    batches: int
    """Batches that were acknowledged."""
    groups: int
    """Groups of the batches that were acknowledged."""
    sequences: int
    """Sequences of the batches that were acknowledged."""
    dropped_stale: int
    """Groups dropped for their age, by readers that asked for it."""
    max_tokens: int | None
    """Tokens of a sequence at most; none: no bound."""
    dead_lettered: int
    """Dead letters because no batch could be made of them."""
    environments: list[EnvironmentStats]
    """Each of the environments."""
    _table: ClassVar[tuple[tuple[str, str, str, str, str], ...]]
    _metrics: ClassVar[str]
    def asdict(self) -> dict[str, Any]: ...

class Loan:
    """Room for one message in shared memory; made by ``BroadcastWriter.loan()``.

    Can be entered once. Sent at the end of the block, dropped on an exception.
    """

    def __enter__(self) -> memoryview: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class View:
    """One message of a Broadcast, read in place; made by ``BroadcastReader.recv_view()``.

    Can be entered once, by any thread of its process.
    """

    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class _Outgoing:
    def try_send(self, owner: BroadcastWriter) -> None: ...
    def wait_for_room(self, owner: BroadcastWriter, timeout: Timeout, cancel: Cancel) -> None: ...

class BroadcastWriter:
    """The sending side; penstock.BroadcastWriter is its face."""

    def __init__(
        self,
        name: Name | None,
        *,
        readers: int,
        capacity: int | str,
        on_reader_death: str,
        large: int | str,
        codec: str | None,
        huge_pages: bool,
        populate: bool,
        lock_memory: bool,
        numa_node: int | None,
        waiting: str = "balanced",
        owner: Owner | None = None,
    ) -> None: ...
    def send(self, obj: Any, timeout: Timeout = None) -> None:
        """Send a value to every reader. Waits while the slowest reader leaves no room.

        ``timeout`` is in seconds: None waits for ever, 0 tries once.

        Raises Timeout, PeerDied, TooLarge, NoSpace, UnsupportedType or Closed: then nothing was
        sent.
        """

    def send_bytes(self, data: Buffer, timeout: Timeout = None) -> None:
        """Send a contiguous buffer; readers get bytes. Waits and raises as ``send`` does."""

    def loan(self, nbytes: int | str, timeout: Timeout = None) -> Loan:
        """Room for a message of ``nbytes`` bytes, filled in place: ``with writer.loan(n) as buf``.

        The message is sent at the end of the block, and dropped if the block raises. Arrays made of
        the buffer should end with the block; those that don't keep what they hold, at the cost of a
        copy (ResourceWarning), and reach the shared memory no longer. Until the block ends, other
        threads that want to send wait; this one gets Busy.

        Waits and raises as ``send`` does when the block begins.
        """

    def wait_ready(self, timeout: Timeout = None) -> None:
        """Wait until every rank has a living reader, for ``timeout`` seconds at most.

        Raises Timeout, which names the ranks that are missing, or Closed.
        """

    def close(self) -> None:
        """Close: readers drain what was sent and then get Closed. Ends waits of other threads.

        The second time it does nothing, and in a forked child neither.
        """

    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    @property
    def name(self) -> str:
        """The name it was created with; empty if anonymous."""

    @property
    def _instance(self) -> str: ...
    def _descriptor(self) -> int: ...
    def stats(self) -> BroadcastStats:
        """Counters since creation. Works while another thread is sending."""

    def _readers(self) -> list[dict[str, Any]]: ...
    def _blocked_by(self) -> list[dict[str, Any]]: ...
    def _encode(self, obj: Any) -> _Outgoing: ...
    def _pin(self, data: Buffer) -> _Outgoing: ...
    def _wait_room(self, nbytes: int | str, timeout: Timeout, cancel: Cancel) -> None: ...
    def _wait_ready(self, timeout: Timeout, cancel: Cancel) -> None: ...

class BroadcastReader:
    """The receiving side of one rank; penstock.BroadcastReader is its face."""

    def __init__(
        self,
        name: Name,
        *,
        instance: str,
        descriptor: int,
        rank: int,
        codec: str | None,
        timeout: Timeout,
        owner: Owner | None = None,
    ) -> None: ...
    def recv(self, timeout: Timeout = None) -> Any:
        """The next message, as an object of one's own; bytes if it was sent as bytes.

        ``timeout`` is in seconds: None waits for ever, 0 tries once.

        Raises Timeout, Closed (everything was received), PeerDied (the same, but the writer is
        dead), Corrupt, or Incompatible for a pickle that was not asked for, which stays there.
        """

    def recv_view(self, timeout: Timeout = None) -> View:
        """The next message, in place: ``with reader.recv_view() as obj``.

        Arrays in it are read-only views of the shared memory, and so is the memoryview that bytes
        come as. The room is given back at the end of the block, or when the last of them is gone.
        Waits and raises as ``recv`` does when the block begins.
        """

    def recv_bytes(self, timeout: Timeout = None) -> bytes:
        """The next message, sent as bytes. Any other gives Incompatible and stays there.

        Waits and raises as ``recv`` does.
        """

    def recv_bytes_into(self, buffer: Buffer, timeout: Timeout = None) -> int:
        """The next message of bytes, copied into a writable buffer; how many bytes it has.

        A message that is too large for the buffer raises TooLarge and stays there. Waits and raises
        as ``recv_bytes`` does.
        """

    def close(self) -> None:
        """Leave: the rank does not gate the writer until replaced. Ends waits of other threads.

        The second time it does nothing, and in a forked child neither.
        """

    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    @property
    def name(self) -> str:
        """The name it attached to; empty if anonymous."""

    @property
    def rank(self) -> int:
        """Its rank, from 0."""

    @property
    def _instance(self) -> str: ...
    def _descriptor(self) -> int: ...
    def stats(self) -> BroadcastStats:
        """Counters since attachment. Works while another thread is receiving."""

    def _wait_message(self, timeout: Timeout, cancel: Cancel) -> None: ...

class Batch:
    """Messages of a queue, read in place; made by ``Queue.get_many()`` and ``get_view()``.

    Can be entered once. Acknowledged at the end of the block, nacked on an exception.
    """

    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def _untake(self) -> None: ...

class _OutgoingPut:
    def try_send(self, owner: Queue) -> None: ...
    def wait_for_room(self, owner: Queue, timeout: Timeout, cancel: Cancel) -> None: ...

class _PutMany:
    def __init__(self) -> None: ...
    def put(self, queue: Queue, objs: Iterable[Any], timeout: Timeout) -> None: ...
    @property
    def accepted(self) -> int: ...

class Queue:
    """One participant of a queue; penstock.Queue is its face."""

    @overload
    def __init__(
        self,
        name: Name,
        *,
        capacity: int | str,
        slots: int,
        inline_bytes: int,
        participants: int,
        max_deliveries: int,
        ends_with: str = "creator",
        codec: str | None,
        populate: bool,
        lock_memory: bool,
        huge_pages: bool = False,
        waiting: str = "balanced",
        application: int = 0,
        owner: Owner | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: Name,
        *,
        instance: str,
        role: str,
        codec: str | None,
        timeout: Timeout,
        application: int = 0,
        owner: Owner | None = None,
    ) -> None: ...
    def put(self, obj: Any, timeout: Timeout = None) -> None:
        """Put a value. Waits while the queue is full.

        ``timeout`` is in seconds: None waits for ever, 0 tries once.

        Raises Timeout, Closed (the stream has ended), TooLarge, NoSpace or UnsupportedType: then
        nothing was put.
        """

    def put_bytes(self, data: Buffer, timeout: Timeout = None) -> None:
        """Put a contiguous buffer; consumers get bytes. Waits and raises as ``put`` does."""

    def get(self, timeout: Timeout = None) -> Any:
        """The next message, as an object of one's own; acknowledged when it returns.

        ``timeout`` is in seconds: None waits for ever, 0 tries once.

        Raises Timeout, Closed (the stream has ended and nothing is left), Corrupt, or Incompatible
        for a pickle that was not asked for, which stays there: in front of all that came after it,
        until ``max_deliveries`` such refusals, or until a consumer with ``codec="pickle"`` takes
        it.
        """

    def get_view(self, timeout: Timeout = None) -> Batch:
        """The next message, in place: ``with queue.get_view() as obj``; see ``get_many``."""

    def get_many(self, max_items: int = 64, min_items: int = 1, timeout: Timeout = None) -> Batch:
        """The next messages, in place: ``with queue.get_many() as batch``, a list.

        Waits until there are ``min_items``, for ``timeout`` seconds at most, and takes none before.
        Of several consumers that wait for more than one message each is served whole, in the order
        in which they came; a ``get`` that comes later waits behind them until its timeout, a try
        (``timeout=0``) takes what is there. Timeout leaves everything where it was. After the end
        of the stream the last batch may be smaller.

        Arrays are read-only views of shared memory, or of a copy where the message has at most 8
        KiB. The messages are acknowledged when the block ends, and nacked if it raises or the
        process dies: then they come again. The list is emptied at the end of the block. An array of
        a longer message that is kept, also by the variable of the ``with``, holds the message's
        memory; after an exception it holds the message back until it is gone.

        With a ``max_deliveries`` a message that came back so often, the last time in a batch with
        others, comes once more alone before it is a dead letter: a batch of one, also where
        ``min_items`` is more, and the batch before it ends early.

        Raises what ``get`` raises when the block begins, and InvalidArgument for more ``min_items``
        than the queue has slots; then nothing was taken.
        """

    def close(self) -> None:
        """Leave. Ends waits of other threads. The second time it does nothing.

        By the creator it also ends the stream, or by the last producer where it was created so:
        what is queued can still be had, then Closed. The name goes with the last participant if
        nothing is left in the queue, no dead letters either.
        """

    def end(self) -> None:
        """End the stream without leaving: nothing more is accepted. By any participant.

        Raises Closed after ``close()``.
        """

    def discard(self) -> int:
        """End the stream and throw away what is queued, and the dead letters; how many messages
        that were.

        Raises Closed after ``close()``.
        """

    def _dead_letters(self, limit: int) -> list[dict[str, Any]]: ...
    def _dead_letter_bytes(self, sequence: int) -> bytes: ...
    def _requeue_dead_letters(self, sequences: list[int] | None) -> int: ...
    def _drop_dead_letters(self, sequences: list[int] | None) -> int: ...
    @property
    def _codec(self) -> Literal["pickle"] | None: ...
    def __len__(self) -> int:
        """How many messages are queued."""

    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    @property
    def name(self) -> str:
        """The name it was created with, or attached to."""

    @property
    def _instance(self) -> str: ...
    @property
    def _replaced(self) -> str: ...
    def stats(self) -> QueueStats:
        """Counters and state of the whole queue. Looks at every slot."""

    def _encode(self, obj: Any) -> _OutgoingPut: ...
    def _pin(self, data: Buffer) -> _OutgoingPut: ...
    def _wait_message(self, timeout: Timeout, cancel: Cancel) -> None: ...

class _QueueInfo(TypedDict):
    segment: _Summary
    stats: QueueStats
    requests: list[dict[str, Any]]
    dead_letters: list[int]
    application: int
    ends_with: Literal["creator", "last_producer"]

class _StoreInfo(TypedDict):
    segment: _Summary
    stats: StoreStats

class _TrajectoryInfo(_QueueInfo):
    trajectories: TrajectoryStats

class _KeptData(TypedDict):
    messages: int
    objects: int
    bytes: int
    persistent: bool
    description: str

class _Summary(TypedDict):
    name: str
    kind: str
    reserved_bytes: int
    range_bytes: int
    owner: int | None
    participants: list[dict[str, Any]]
    reaped: list[dict[str, Any]]
    problem: str
    problem_code: str
    kept: _KeptData

class _Info(TypedDict):
    segment: _Summary
    stats: BroadcastStats
    readers: list[dict[str, Any]]
    closed: bool
    writer_blocked_for: float

def printable(text: str) -> str:
    """The text without characters that a terminal obeys or does not show: control, format and
    bidirectional characters are escaped, as are bytes that are not valid UTF-8."""

def check_name(name: Name) -> None:
    """Raises InvalidName for what no segment can be called."""

def check_owner(owner: Owner | None) -> None:
    """Raises InvalidArgument for what is no user's name or number."""

def wait_until_there(
    kind: str, name: Name, instance: str, timeout: Timeout, owner: Owner | None = None
) -> None: ...
def list_segments() -> list[_Summary]: ...
def inspect_segment(name: Name) -> _Summary: ...
def inspect_broadcast(name: Name) -> _Info: ...
def inspect_queue(name: Name) -> _QueueInfo: ...
def inspect_store(name: Name) -> _StoreInfo: ...
def inspect_trajectories(name: Name) -> _TrajectoryInfo: ...
def remove_if_abandoned(name: Name, data: bool) -> bool: ...
def parse_size(text: str) -> int:
    """Bytes of a size as people write it: "64MiB", "1.5GiB", "4096", "10MB".

    Raises InvalidArgument.
    """

def end_waits(threads: Iterable[int] | None) -> None:
    """At the end of the process: keeps these threads (None: all but the main one) from returning to
    Python from waits without the GIL."""

def waits_in_vain() -> set[int]:
    """The threads in waits that no other process can end."""

def end_awaited_streams() -> None:
    """Ends the streams of those threads: they get what is left, then Closed."""

def start_thread(call: Callable[[], object]) -> None:
    """Runs it in a thread, also when the interpreter can start none any more."""

def join_thread() -> None:
    """Waits for the thread of start_thread(), if there is one."""

def leave_all() -> bool:
    """Makes every participant of this process leave, even if objects still refer to it. False: a
    thread stayed inside a call, or can still write into a reservation, and the kernel releases the
    locks at the end of the process."""

def check_timeout(timeout: Timeout) -> None: ...
def codec_encode(value: Any, codec: str | None = None) -> bytes:
    """The message that send(value) would put into shared memory."""

def _check_group(message: Buffer) -> None: ...

# Lists of numbers, `levels` deep (1 to 3), as a dtype and the bytes of its values, of the int64
# lengths of its sequences, and of the int32 widths of its tokens. None for any other text, and for
# numbers that no such dtype holds.
def _read_json_numbers(
    text: Buffer, levels: int, integers: bool
) -> tuple[str, bytearray, bytearray | None, bytearray | None] | None: ...

# A group, or of `many` a list of groups, with null for each long list of plain numbers that is a
# column, (name, levels, integers); and (place of the group, name, what _read_json_numbers gives) of
# each. None: there are none, or it is no such text. What is left is not checked.
def _cut_json_columns(
    text: Buffer, many: bool, columns: Iterable[tuple[str, int, bool]]
) -> (
    tuple[bytes, list[tuple[int, str, tuple[str, bytearray, bytearray | None, bytearray | None]]]]
    | None
): ...

# The JSON text of what _read_json_numbers gives. Raises InvalidArgument where the numbers do not
# add up, and for another dtype than int32, int64 and float64.
def _write_json_numbers(
    values: Buffer, dtype: str, lengths: Buffer | None, widths: Buffer | None
) -> bytes: ...
def codec_decode(buffer: Buffer, copy: bool = True, codec: str | None = None) -> Any:
    """The value of a message. Without copy its arrays are views of the buffer, which must be
    64-byte aligned.
    """

def register_dataclass(cls: type, name: str | None = None) -> None:
    """Lets instances of a dataclass be sent and received under its qualified name."""

def tensor_over_buffer(buffer: Buffer, dtype: str, shape: tuple[int, ...]) -> Any:
    """A PyTorch tensor over a buffer, without a copy."""

def dtype_named(name: str) -> Any:
    """NumPy's dtype of that name; of ml_dtypes where NumPy has none."""

class Store:
    """One participant of a store; penstock.Store is its face."""

    @overload
    def __init__(
        self,
        name: Name,
        *,
        capacity: int | str,
        objects: int | None,
        participants: int,
        eviction: str,
        granule: int | str | None,
        persistent: bool,
        codec: str | None,
        populate: bool,
        lock_memory: bool,
        huge_pages: bool,
        waiting: str = "balanced",
        owner: Owner | None = None,
        second_tier: SecondTier | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: Name,
        *,
        instance: str,
        codec: str | None,
        timeout: Timeout,
        owner: Owner | None = None,
        second_tier: SecondTier | None = None,
    ) -> None: ...
    def put(
        self,
        key: str | bytes,
        obj: Any,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
        timeout: Timeout = None,
    ) -> bool:
        """Put a value. False: it is there already, or a living process is writing it.

        ``meta`` is any typed value, stored beside it. An object of a higher ``weight`` is passed by
        so many times more when others are evicted. ``expires_after`` is in seconds; see
        ``reserve``.

        Raises NoSpace (all else is in use), TooLarge, UnsupportedType or Closed; with a second tier
        by ``policy="write_through"`` also what speaks of a server, which ``timeout`` may end: then
        the first tier has it.
        """

    def put_bytes(
        self,
        key: str | bytes,
        data: Buffer,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
        timeout: Timeout = None,
    ) -> bool:
        """Put a contiguous buffer; readers get bytes, or a view of them. See ``put``."""

    def _reserve_bytes(
        self,
        key: str | bytes,
        nbytes: int | str,
        *,
        meta: Any,
        weight: int,
        expires_after: float | None,
        alignment: int | str | None,
    ) -> StoreStaged: ...
    def _reserve_tensor(
        self,
        key: str | bytes,
        shape: list[int],
        dtype: Any,
        is_torch: bool,
        *,
        meta: Any,
        weight: int,
        expires_after: float | None,
        alignment: int | str | None,
        in_place: bool = False,
    ) -> StoreStaged: ...
    def _get(self, key: str | bytes, timeout: Timeout = None) -> StoreView | None: ...
    def _get_copy(self, key: str | bytes, missing: Any, timeout: Timeout = None) -> Any: ...
    @property
    def name(self) -> str:
        """The name it was created with, or attached to."""

    @property
    def _instance(self) -> str: ...
    def _get_ref(self, entry: int, incarnation: int) -> StoreView | None: ...
    def _wait(
        self, key: str | bytes, timeout: Timeout, cancel: Cancel | None = None
    ) -> StoreView: ...
    def _look(
        self, key: str | bytes, timeout: Timeout = None
    ) -> tuple[Literal["hit", "staged", "miss", "remote"], int, int, bool]: ...
    def __contains__(self, key: str | bytes) -> bool:
        """Whether it is there at this moment, in either tier; does not count as read."""

    def _contains(self, key: str | bytes, timeout: Timeout) -> bool: ...
    def delete(self, key: str | bytes, timeout: Timeout = None) -> bool:
        """Look-ups miss it; readers that hold it go on. False: it was not there.

        From both tiers. Raises what speaks of a server, which ``timeout`` may end: the first tier
        has it no more, the second perhaps has. Waits for a ``put`` of this key that is under way.
        """

    def touch(self, key: str | bytes, timeout: Timeout = None) -> bool:
        """Count as read, for eviction, in both tiers, as far as ``timeout`` goes. False: it is
        not there.
        """

    def retain(self, key: str | bytes) -> bool:
        """Never evict it until ``release()``, also after this process died; counts. False: it is
        not there.
        """

    def release(self, key: str | bytes) -> bool:
        """Take one ``retain()`` back. False: it is not there, or was not pinned."""

    def clear(self) -> int:
        """Remove everything, and refuse the commit of what is being written; how many objects.

        From the first tier: a second one keeps what it has, and is still written to.
        """

    def trim(self, keep: int | str = 0) -> int:
        """Give the memory of free room back to the system, all but ``keep`` bytes; how many
        bytes.
        """

    def reap_dead(self) -> None:
        """Take back what the dead hold now; it also happens when a call needs it."""

    def populate(self, timeout: Timeout = None) -> None:
        """Map the store's memory into this process, so that its first use of each page costs no
        fault.

        Page tables are each process's own: where the creator took all memory (``populate=True``),
        the first store into each 32 MiB still took another process five times a later one. Maps all
        of a store that was created with ``populate``, ``lock_memory`` or ``huge_pages``, and of
        another what is in use now; about 0.15 s for each GiB. Of a store with ``huge_pages``,
        memory that got small pages is first moved into huge ones, as far as there are any by now;
        an access to a page that is being moved waits some ms. Other threads run, and may use the
        store. Ctrl-C and ``close()`` end it within some 10 ms, where memory is moved within some
        50. Raises Timeout, Closed, NoSpace or InvalidArgument (before Linux 5.14); what was mapped
        until then stays so.
        """

    def persist(self) -> None:
        """From now on the store stays when the last one leaves, as one that was created
        ``persistent``.

        For good, and for every process, now or later. It is removed by ``penstock gc
        --data``.
        """

    @property
    def persistent(self) -> bool:
        """Whether it stays when the last one leaves. Closed after ``close()``."""

    def register_cuda(self) -> None:
        """Pin the store's memory for the GPU, until the store is closed and its arrays are gone.

        Copies between its arrays and a device then need no staging. The store must have been
        created with ``populate``. Raises InvalidArgument; NotFound where there is no CUDA device.
        """

    def keys(self, timeout: Timeout = None) -> list[str | bytes]:
        """What is there at this moment, in no order. Keys that are no UTF-8 come as bytes.

        With a second tier of both; raises what is in the way of a whole answer. ``timeout=0`` asks
        the first tier alone.
        """

    def stats(self) -> StoreStats:
        """Counters and state of the whole store; ``used_bytes + free_bytes`` is exactly the
        capacity.

        Looks at every object. ``second_tier`` has this object's counters.
        """

    @property
    def capacity(self) -> int:
        """Bytes that objects with their keys and metadata may take. Closed after ``close()``."""

    def _flush(self, timeout: Timeout) -> dict[str, int]: ...
    def _close(self, timeout: Timeout) -> dict[str, int]: ...
    def _owe(self, dropped: int, dropped_bytes: int) -> None: ...
    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...

class StoreConnector:
    """Batches on a store, carried out by threads that need no Python; for event loops.

    ``threads`` copy, one object each at a time; look-ups and deletions go before copies. Each
    ``submit_…`` gives a number, and its outcome comes with that number from ``drain_completions()``
    when ``event_fd()`` is readable. It waits while more than ``max_pending`` keys are under way.
    Any thread may use it; in a forked child every call raises WrongProcess.
    """

    def __init__(self, store: Store, *, threads: int = 2, max_pending: int = 65536) -> None: ...
    def event_fd(self) -> int:
        """A descriptor that is readable while there is something to drain; it stays ours."""

    def submit_batch_get(self, keys: Sequence[str | bytes], buffers: Sequence[Any]) -> int:
        """Copy each object into its buffer, where their sizes are equal.

        A buffer is writable and contiguous, and must not be read before the batch is drained.
        """

    def submit_batch_set(self, keys: Sequence[str | bytes], buffers: Sequence[Any]) -> int:
        """Put a copy of each buffer under its key, unless there is one.

        A buffer must not change before the batch is drained. The outcome of a key is True where the
        object is new. A key that another process is writing is waited for.
        """

    def submit_batch_exists(self, keys: Sequence[str | bytes]) -> int:
        """Whether each is there; counts as read, for eviction."""

    def submit_batch_lock(self, keys: Sequence[str | bytes]) -> int:
        """Whether each is there; pins what the first tier has, until ``unlock()`` or ``close()``.

        What is pinned can be got, though it is deleted meanwhile. Locks of one key count.
        """

    def submit_batch_delete(self, keys: Sequence[str | bytes]) -> int:
        """Delete each, in both tiers; False where it was not there."""

    def unlock(self, keys: Sequence[str | bytes]) -> None:
        """Take one lock of each key back; does nothing for a key that has none."""

    def drain_completions(self) -> list[tuple[int, bool, str, list[bool]]]:
        """What is finished since the last call: (number, ok, error, [bool for each key]).

        ``ok`` is False where something failed that is not a miss, and ``error`` says what.
        """

    def close(self) -> None:
        """End the threads as soon as each has done the object it is at; drops what waits.

        Releases what is locked. The second time it does nothing.
        """

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""

def has_redis() -> bool:
    """Whether this was built with hiredis, without which there is no second tier."""

class PagedPlanes:
    def __init__(self, arrays: Any) -> None: ...

class StoreView:
    """An object of a store, pinned and read where it lies; made by ``get()``.

    Can be entered once. Its pin is gone when the block has ended, or ``release()`` was called, and
    the last array that was made of it is gone.
    """

    @property
    def meta(self) -> Any:
        """What was stored beside the object, or None; a copy. Closed after release."""

    @property
    def nbytes(self) -> int:
        """Bytes of the object, without key and metadata. Closed after release."""

    @property
    def ref(self) -> tuple[int, int]:
        """Names this object and no other, also for other processes; see ``Store.get_ref``."""

    @property
    def offset(self) -> int:
        """Where the object's bytes begin in the segment's file, ``/dev/shm/penstock.NAME``.

        Another process may open or map that file, and read ``nbytes`` from there on while this view
        is held, and no longer: then it may be another object's memory. It must not be written.
        Closed after release.
        """

    def release(self) -> None:
        """Let go, where there is no block to end."""

    def _scatter(self, planes: PagedPlanes, blocks: Any, skip_tokens: int) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class StoreStaged:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def ref(self) -> tuple[int, int]: ...
    @property
    def offset(self) -> int: ...
    def array(self, dtype: Any, shape: list[int]) -> Any: ...
    def tensor(self, dtype: str, shape: list[int]) -> Any: ...
    def gather(self, planes: PagedPlanes, blocks: Any) -> None: ...
    def settle(self, room: Any) -> bool: ...
    def commit(self, timeout: Timeout = None) -> None: ...
    def abort(self) -> None: ...
    def resize(self, nbytes: int) -> None: ...

TRAJECTORY_COLUMNS: tuple[str, ...]

class Rollout:
    """Credit for one group."""

    @property
    def version(self) -> int:
        """The policy's version when the rollout began."""

    def release(self) -> None:
        """Return the credit without a group."""

class _OutgoingGroup:
    def __init__(self, message: dict[str, Any]) -> None: ...
    def try_put(self, writer: TrajectoryWriter, rollout: Rollout | None) -> None: ...
    def wait_for_room(self, writer: TrajectoryWriter, timeout: Timeout, cancel: Cancel) -> None: ...

class TrajectoryWriter:
    """An environment, behind penstock.trajectories.TrajectoryWriter."""

    def __init__(
        self,
        name: Name,
        *,
        instance: str,
        options: dict[str, Any] | None,
        environment: str,
        weight: float,
        min_share: float,
        group_size: int,
        env_id: int | None,
        timeout: Timeout,
        owner: Owner | None = None,
        scales_shares: bool = False,
    ) -> None: ...
    @property
    def name(self) -> str:
        """The name it was created with, or attached to."""

    @property
    def environment(self) -> str:
        """The environment's name."""

    @property
    def env_id(self) -> int:
        """The environment's number: given at attachment, or assigned by the queue, from 1."""

    @property
    def _instance(self) -> str: ...
    @property
    def _replaced(self) -> str: ...
    @property
    def version(self) -> int:
        """The policy's version: the step of the trainer's last ``ack()``. Closed after
        ``close()``.
        """

    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def credit(self) -> int:
        """How many groups of ``group_size`` could be begun now; 0: no credit is left.

        Raises Closed after ``close()``.
        """

    def _begin(self, timeout: Timeout) -> Rollout: ...
    def _put(self, message: dict[str, Any], rollout: Rollout | None, timeout: Timeout) -> None: ...
    def end(self) -> None:
        """End the stream without leaving: nothing more is accepted. Any participant may call."""

    def close(self) -> None:
        """Leave. Ends waits of other threads. Idempotent."""

    def stats(self) -> TrajectoryStats:
        """Counters and state of the whole queue. Looks at every slot."""

def integer_array(values: object) -> Any:
    """A list or tuple of ints as an array: int32 if all fit, otherwise int64.

    None unless it is a list or tuple of ints of 64 bits.
    """

def real_array(values: object) -> Any:
    """A list or tuple of floats and ints as an array of float64.

    None unless it is a list or tuple of these, with ints up to 2**53.
    """

def number_list(array: Any) -> list[Any]:
    """The result of ``array.tolist()``, faster for arrays of one dimension."""

def new_memory(nbytes: int) -> Buffer:
    """A writable, 64-byte aligned buffer that holds anything; a large one is recycled memory."""

def memory_stats() -> MemoryStats:
    """Statistics of the memory under the arrays that this process received as its own.

    Arrays, tensors and pickled buffers of 128 KiB and more lie in memory that the last reference to
    them gives back for the next ones; ``bytes`` and ``bytearray`` don't.
    """

class TrajectoryReader:
    """A trainer, behind penstock.trajectories.TrajectoryReader."""

    def __init__(
        self,
        name: Name,
        *,
        instance: str,
        options: dict[str, Any] | None,
        sequences: int,
        timeout: Timeout,
        owner: Owner | None = None,
    ) -> None: ...
    @property
    def name(self) -> str:
        """The name it was created with, or attached to."""

    @property
    def _instance(self) -> str: ...
    @property
    def _replaced(self) -> str: ...
    @property
    def version(self) -> int:
        """The policy's version: the step of the last ``ack()``. Closed after ``close()``."""

    @property
    def sequences(self) -> int:
        """Sequences of a batch, as given at creation or attachment."""

    @property
    def closed(self) -> bool:
        """Whether this handle was closed here."""

    @property
    def _is_foreign(self) -> bool: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *raised: object) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def _next(
        self,
        sequences: int | None,
        lookahead: int | None,
        causal_shift: bool,
        drop_stale: bool,
        set_oversized_aside: bool,
        timeout: Timeout,
    ) -> TrajectoryBatch: ...
    def _take_notices(self) -> list[str]: ...
    def _limit_tokens(self, max_tokens: int) -> None: ...
    def _reopen(self) -> bool: ...
    def drop_waiting(self) -> int:
        """Drop the waiting groups that no trainer holds, and go on; return how many.

        Dead letters stay. Takes time in proportion to the number of groups.
        """

    def _held_messages(self, restored: bool = False) -> list[bytes]: ...
    def _restore(self, message: bytes) -> None: ...
    def _raise_version(self, version: int) -> None: ...
    def discard(self) -> int:
        """End the stream and drop queued groups and dead letters; return how many."""

    def _dead_letters(self, limit: int) -> list[dict[str, Any]]: ...
    def _dead_letter_bytes(self, sequence: int) -> bytes: ...
    def _requeue_dead_letters(self, sequences: list[int] | None) -> int: ...
    def _drop_dead_letters(self, sequences: list[int] | None) -> int: ...
    def end(self) -> None:
        """End the stream without leaving: nothing more is accepted. Any participant may call."""

    def close(self) -> None:
        """Leave. Ends waits of other threads. Idempotent."""

    def stats(self) -> TrajectoryStats:
        """Counters and state of the whole queue. Looks at every slot."""

class TrajectoryBatch:
    @property
    def is_open(self) -> bool: ...
    def __len__(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    @property
    def longest(self) -> int: ...
    @property
    def total(self) -> int: ...
    def group(self, index: int) -> dict[str, Any]: ...
    def title(self, index: int) -> str: ...
    def longest_of(self, index: int) -> int: ...
    def unfit(self, column: str, dtype: str | None) -> list[int]: ...
    def message(self, index: int) -> bytes: ...
    def is_restored(self, index: int) -> bool: ...
    def deliveries(self) -> list[int]: ...
    def has(self, column: str) -> bool: ...
    def is_used(self, column: str) -> bool: ...
    def dtype(self, column: str) -> str: ...
    def width(self, column: str) -> int: ...
    def fill_padded(self, columns: Sequence[tuple[str, Any, float]]) -> None: ...
    def fill_packed(self, column: str, array: Any) -> None: ...
    def fill_padding_mask(self, array: Any, row_items: int) -> None: ...
    def fill_positions(self, array: Any) -> None: ...
    def fill_cu_seqlens(self, array: Any) -> None: ...
    def fill_group_index(self, array: Any) -> None: ...
    def fill_lengths(self, array: Any) -> None: ...
    def fill_versions(self, array: Any) -> int: ...
    def fill_scores(self, array: Any) -> None: ...
    def ack(self, step: int) -> None: ...
    def nack(self) -> None: ...
    def dead_letter(self, index: int) -> None: ...
    def untake(self) -> None: ...
