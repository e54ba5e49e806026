// penstock._core.StoreConnector: submits batches with the memory they copy from or into, and
// collects them when the descriptor is readable. The methods are those of an LMCache connector.
#include "store_connector.hpp"

#include <cstddef>
#include <new>
#include <utility>

#include "errors.hpp"
#include "store_objects.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

using detail::BatchItem;
using detail::BatchKind;
using detail::BatchResult;
using detail::ItemOutcome;

nb::tuple as_tuple(const BatchResult& result) {
    nb::list done;
    bool is_whole = true;
    for (const ItemOutcome outcome : result.outcomes) {
        done.append(outcome == ItemOutcome::Done);
        is_whole = is_whole && outcome != ItemOutcome::Failed;
    }
    return nb::make_tuple(result.id, is_whole, nb::str(result.error.data(), result.error.size()),
                          done);
}

}  // namespace

PyStoreConnector::PyStoreConnector(nb::object store, unsigned threads, std::size_t most_pending)
    : store_(std::move(store)), title_(nb::cast<PyStore&>(store_).name),
      connector_(std::make_shared<detail::StoreConnector>(nb::cast<PyStore&>(store_).live(),
                                                          threads, most_pending)) {}

// Leaks one reference in a forked child: the destructor would join threads that only the parent
// has.
void PyStoreConnector::leave_to_the_parent() noexcept {
    using Reference = std::shared_ptr<detail::StoreConnector>;
    alignas(Reference) std::byte place[sizeof(Reference)];
    new (place) Reference(std::move(connector_));
}

PyStoreConnector::~PyStoreConnector() {
    if (is_foreign()) {
        leave_to_the_parent();
        return;
    }
    close();
}

std::shared_ptr<detail::StoreConnector> PyStoreConnector::live() const {
    if (is_foreign()) {
        raise_error(ErrorCode::WrongProcess, "the connector of the store '" + title_ +
                                                 "' belongs to the parent of this process: make "
                                                 "one here, of a store that is attached here");
    }
    if (is_closed_) {
        raise_error(ErrorCode::Closed,
                    "the connector of the store '" + title_ + "' was closed by this process");
    }
    return connector_;
}

int PyStoreConnector::descriptor() const {
    return live()->descriptor();
}

std::uint64_t PyStoreConnector::submit(BatchKind kind, std::vector<BatchItem> items,
                                       Memory memory) {
    const std::shared_ptr<detail::StoreConnector> own = live();
    const std::uint64_t id = next_id_++;
    memory_.emplace(id, std::move(memory));
    Waiting waiting(Deadline::never());  // for room
    const Status status = own->submit(id, kind, std::move(items), waiting.wait());
    waiting.reacquire();
    if (!status) {
        memory_.erase(id);
    }
    waiting.finish(status);
    return id;
}

std::uint64_t PyStoreConnector::copy(BatchKind kind, const nb::sequence& keys,
                                     const nb::sequence& buffers) {
    if (nb::len(keys) != nb::len(buffers)) {
        raise_error(ErrorCode::InvalidArgument, std::to_string(nb::len(keys)) + " keys and " +
                                                    std::to_string(nb::len(buffers)) +
                                                    " buffers: give one for each");
    }
    const auto access = kind == BatchKind::Get ? Pinned::Access::Write : Pinned::Access::Read;
    std::vector<BatchItem> items;
    Memory memory;
    for (std::size_t at = 0; at < nb::len(keys); ++at) {
        memory.push_back(std::make_unique<Pinned>(nb::object(buffers[at]), access));
        items.push_back({std::string(parse_key(nb::object(keys[at]))), memory.back()->bytes()});
    }
    return submit(kind, std::move(items), std::move(memory));
}

std::uint64_t PyStoreConnector::look(BatchKind kind, const nb::sequence& keys) {
    std::vector<BatchItem> items;
    for (const nb::handle key : keys) {
        items.push_back({std::string(parse_key(key)), {}});
    }
    return submit(kind, std::move(items), {});
}

void PyStoreConnector::unlock(const nb::sequence& keys) {
    std::vector<std::string> released;
    for (const nb::handle key : keys) {
        released.emplace_back(parse_key(key));
    }
    const std::shared_ptr<detail::StoreConnector> own = live();
    const WithoutGil without_gil;
    own->unlock(released);
}

nb::list PyStoreConnector::drain() {
    nb::list list;
    for (const BatchResult& result : live()->collect()) {
        memory_.erase(result.id);
        list.append(as_tuple(result));
    }
    return list;
}

void PyStoreConnector::close() {
    if (is_closed_ || is_foreign()) {
        return;
    }
    is_closed_ = true;
    {
        const WithoutGil without_gil;  // close() joins threads
        connector_->close();
    }
    memory_.clear();
}

bool PyStoreConnector::is_closed() const {
    return is_closed_;
}

void bind_store_connector(nb::module_& module) {
    nb::class_<PyStoreConnector>(
        module, "StoreConnector", nb::is_weak_referenceable(),
        "Batches on a store, carried out by threads that need no Python; for event loops.\n"
        "\n"
        "``threads`` copy, one object each at a time; "
        "look-ups and\n"
        "deletions go before copies. Each ``submit_…`` gives a number, and its outcome comes with "
        "that number\n"
        "from ``drain_completions()`` when ``event_fd()`` is readable. It waits while more than "
        "``max_pending``\n"
        "keys are under way. Any thread may use it; in a forked child every call raises "
        "WrongProcess.")
        .def(
            "__init__",
            [](PyStoreConnector* place, nb::object store, nb::handle threads,
               nb::handle max_pending) {
                const unsigned count = parse_small(threads, "threads");
                if (count == 0 || count > 256) {
                    raise_error(ErrorCode::InvalidArgument,
                                "threads is " + std::to_string(count) + ": give 1 to 256");
                }
                new (place) PyStoreConnector(std::move(store), count,
                                             parse_natural(max_pending, "max_pending"));
            },
            nb::arg("store"), nb::kw_only(), nb::arg("threads").none() = 2,
            nb::arg("max_pending").none() = 65536)
        .def("event_fd", &PyStoreConnector::descriptor,
             "A descriptor that is readable while there is something to drain; it stays ours.")
        .def(
            "submit_batch_get",
            [](PyStoreConnector& own, const nb::sequence& keys, const nb::sequence& buffers) {
                return own.copy(BatchKind::Get, keys, buffers);
            },
            nb::arg("keys"), nb::arg("buffers"),
            "Copy each object into its buffer, where their sizes are equal.\n"
            "\n"
            "A buffer is writable and contiguous, and must not be read before the batch is "
            "drained.")
        .def(
            "submit_batch_set",
            [](PyStoreConnector& own, const nb::sequence& keys, const nb::sequence& buffers) {
                return own.copy(BatchKind::Set, keys, buffers);
            },
            nb::arg("keys"), nb::arg("buffers"),
            "Put a copy of each buffer under its key, unless there is one.\n"
            "\n"
            "A buffer must not change before the batch is drained. The outcome of a key is True "
            "where the\n"
            "object is new. A key that another process is writing is waited for.")
        .def(
            "submit_batch_exists",
            [](PyStoreConnector& own, const nb::sequence& keys) {
                return own.look(BatchKind::Exists, keys);
            },
            nb::arg("keys"), "Whether each is there; counts as read, for eviction.")
        .def(
            "submit_batch_lock",
            [](PyStoreConnector& own, const nb::sequence& keys) {
                return own.look(BatchKind::Lock, keys);
            },
            nb::arg("keys"),
            "Whether each is there; pins what the first tier has, until ``unlock()`` or "
            "``close()``.\n"
            "\n"
            "What is pinned can be got, though it is deleted meanwhile. Locks of one key count.")
        .def(
            "submit_batch_delete",
            [](PyStoreConnector& own, const nb::sequence& keys) {
                return own.look(BatchKind::Remove, keys);
            },
            nb::arg("keys"), "Delete each, in both tiers; False where it was not there.")
        .def("unlock", &PyStoreConnector::unlock, nb::arg("keys"),
             "Take one lock of each key back; does nothing for a key that has none.")
        .def("drain_completions", &PyStoreConnector::drain,
             "What is finished since the last call: (number, ok, error, [bool for each key]).\n"
             "\n"
             "``ok`` is False where something failed that is not a miss, and ``error`` says what.")
        .def("close", &PyStoreConnector::close,
             "End the threads as soon as each has done the object it is at; drops what waits.\n\n"
             "Releases what is locked. The second time it does nothing.")
        .def_prop_ro("closed", &PyStoreConnector::is_closed, "Whether it was closed here.");
}

}  // namespace penstock::py
