// penstock._core.Store: made and attached to, waited on, kept in order and left.
#include "store.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "context.hpp"
#include "errors.hpp"
#include "state.hpp"
#include "store_view.hpp"
#include "wait.hpp"

namespace penstock::py {

namespace {

Eviction parse_eviction(nb::handle given) {
    const std::string eviction = parse_text(given, "eviction");
    for (const Eviction known : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru, Eviction::None}) {
        if (eviction == to_string(known)) {
            return known;
        }
    }
    raise_error(ErrorCode::InvalidArgument,
                "eviction is '" + eviction + "': give 'sieve', 'fifo', 'lru' or 'none'");
}

nb::object get_ref(PyStore& store, nb::handle entry, nb::handle incarnation) {
    const StoreRef ref{parse_small(entry, "the entry of a ref"),
                       parse_natural(incarnation, "the incarnation of a ref")};
    const std::shared_ptr<Store> live = store.live();
    Result<StoreObject> found = live->get(ref);
    if (found) {
        return make_store_view(store.codec, *std::move(found));
    }
    if (found.code() != ErrorCode::NotFound) {
        raise_error(found.status());
    }
    return nb::none();
}

nb::object wait_for(PyStore& store, nb::handle key, nb::handle timeout, const Cancel* cancel) {
    const Deadline deadline = parse_timeout(timeout);
    const std::shared_ptr<Store> live = store.live();
    const std::string_view wanted = parse_key(key);
    std::optional<StoreObject> found;
    const WaitSubject subject{store.instance, detail::Awaited::Message};
    Waiting waiting(deadline, cancel, &subject);
    const Status outcome = py::store(live->wait(wanted, waiting.wait()), found);
    waiting.reacquire();
    if (outcome.code() == ErrorCode::Cancelled && !waiting.has_raised() && store.is_closed()) {
        store.live();  // raises Closed
    }
    waiting.finish(outcome);
    return make_store_view(store.codec, *std::move(found));
}

nb::tuple look(PyStore& store, nb::handle key) {
    const StoreLook found = store.live()->look(parse_key(key));
    const char* const states[] = {"miss", "hit", "staged"};
    return nb::make_tuple(states[static_cast<unsigned>(found.state)], found.staged_by, found.nbytes,
                          found.is_retained);
}

nb::list keys(PyStore& store) {
    const std::shared_ptr<Store> live = store.live();
    const std::vector<std::string> found = [&] {
        const WithoutGil without_gil;
        return live->keys();
    }();
    nb::list list;
    for (const std::string& key : found) {
        PyObject* text =
            PyUnicode_DecodeUTF8(key.data(), static_cast<Py_ssize_t>(key.size()), nullptr);
        if (text == nullptr) {
            PyErr_Clear();
            text = PyBytes_FromStringAndSize(key.data(), static_cast<Py_ssize_t>(key.size()));
        }
        list.append(nb::steal(text));
    }
    return list;
}

void create(PyStore* place, nb::handle given_name, nb::handle capacity, nb::handle objects,
            nb::handle participants, nb::handle eviction, nb::handle granule, nb::handle persistent,
            nb::handle codec, nb::handle populate, nb::handle lock_memory, nb::handle huge_pages,
            nb::handle owner) {
    const std::string name = parse_name(given_name);
    StoreOptions options;
    options.capacity = parse_bytes(capacity, "capacity");
    options.objects = objects.is_none() ? 0 : parse_natural(objects, "objects");
    options.participants = parse_small(participants, "participants");
    options.eviction = parse_eviction(eviction);
    options.granule = granule.is_none() ? 0 : parse_bytes(granule, "granule");
    options.persistent = parse_flag(persistent, "persistent");
    options.memory.populate = parse_flag(populate, "populate");
    options.memory.lock_memory = parse_flag(lock_memory, "lock_memory");
    options.memory.huge_pages = parse_flag(huge_pages, "huge_pages");
    options.replaces_owner = parse_owner(owner);
    const Codec values = parse_codec(codec);
    const Trust own{.owner = std::nullopt, .runs_code = values == Codec::Pickle};
    new (place)
        PyStore(create_waiting(options, [&] { return Store::create(name, options); }), values, own);
}

void attach(PyStore* place, nb::handle given_name, const std::string& instance, nb::handle codec,
            nb::handle timeout, nb::handle owner) {
    const std::string name = parse_name(given_name);
    const Codec values = parse_codec(codec);
    const Trust trust = parse_trust(owner, values);
    const Deadline deadline = parse_timeout(timeout);
    new (place) PyStore(
        attach_waiting(
            deadline, [&](const Wait& wait) { return Store::attach(name, wait, instance, trust); }),
        values, trust);
}

}  // namespace

PyStore::PyStore(Store attached, Codec values, const Trust& trust)
    : StoreObjects(values, attached.name(), attached.instance()),
      store_(std::make_shared<Store>(std::move(attached))), trust_(trust) {}

// Evicting, and clearing up after the dead, may take a while: other threads run meanwhile.
Result<StoreRoom> PyStore::reserve(std::string_view key, std::uint64_t nbytes,
                                   const ReserveOptions& options) {
    const std::shared_ptr<Store> own = live();
    const WithoutGil without_gil;
    Result<StoreReservation> staged = own->reserve(key, nbytes, options);
    if (!staged) {
        return staged.status();
    }
    return StoreRoom(*std::move(staged));
}

Result<StoreObject> PyStore::find(std::string_view key) {
    return live()->get(key);
}

std::shared_ptr<Store> PyStore::live() {
    if (store_ == nullptr && is_lent_) {
        raise_error(ErrorCode::Busy,
                    "the store '" + name + "' is just being made the first tier of a tiered store");
    }
    if (store_ == nullptr) {
        std::string sentence = "the store '";
        raise_error(ErrorCode::Closed,
                    sentence.append(name).append("' was closed by this process"));
    }
    if (generation_ != os::fork_generation()) {
        auto own = std::make_shared<Store>(Store::attach(name, Deadline::now(), instance, trust_));
        // The parent's: its threads may have been at work when this child was forked.
        [[maybe_unused]] const auto* const left_to_the_parent =
            new std::shared_ptr<Store>(std::move(store_));
        store_ = std::move(own);
        is_lent_ = false;
        generation_ = os::fork_generation();
    }
    return store_;
}

std::shared_ptr<Store> PyStore::lend() {
    live();
    if (is_lent_) {
        raise_error(ErrorCode::Busy,
                    "the store '" + name + "' is the first tier of another tiered store");
    }
    if (store_.use_count() > 1) {
        raise_error(ErrorCode::Busy, "another thread is using the store '" + name +
                                         "', and who is its first tier must be alone with it");
    }
    is_lent_ = true;
    return std::move(store_);
}

void PyStore::give_back(std::shared_ptr<Store> own) {
    store_ = std::move(own);
    is_lent_ = false;
}

void PyStore::close() {
    if (!is_lent_) {
        leave();
    }
}

void PyStore::leave() {
    if (store_ == nullptr || generation_ != os::fork_generation()) {
        return;
    }
    is_lent_ = false;
    store_->request_close();
    store_.reset();  // the last call that still uses it leaves
}

void bind_store(nb::module_& module) {
    bind_handle<PyStore, StoreObjects>(module, "Store", "store",
                                       "One participant of a store; penstock.Store is its face.")
        .def("__init__", &create, nb::arg("name").none(), nb::kw_only(), nb::arg("capacity").none(),
             nb::arg("objects").none(), nb::arg("participants").none(), nb::arg("eviction").none(),
             nb::arg("granule").none(), nb::arg("persistent").none(), nb::arg("codec").none(),
             nb::arg("populate").none(), nb::arg("lock_memory").none(),
             nb::arg("huge_pages").none(), nb::arg("owner").none() = nb::none())
        .def("__init__", &attach, nb::arg("name").none(), nb::kw_only(), nb::arg("instance"),
             nb::arg("codec").none(), nb::arg("timeout").none(),
             nb::arg("owner").none() = nb::none())
        .def("__init__", &refuse_construction<PyStore>)
        .def("_get_ref", &get_ref, nb::arg("entry").none(), nb::arg("incarnation").none())
        .def("_wait", &wait_for, nb::arg("key").none(), nb::arg("timeout").none(),
             nb::arg("cancel").none() = nb::none())
        .def("_look", &look, nb::arg("key").none())
        .def(
            "__contains__",
            [](PyStore& store, nb::handle key) { return store.live()->contains(parse_key(key)); },
            nb::arg("key").none(), "Whether it is there at this moment; does not count as read.")
        .def(
            "delete",
            [](PyStore& store, nb::handle key) {
                return is_done(store.live()->remove(parse_key(key)));
            },
            nb::arg("key").none(),
            "Look-ups miss it; readers that hold it go on. False: it was not there.")
        .def(
            "touch",
            [](PyStore& store, nb::handle key) { return store.live()->touch(parse_key(key)); },
            nb::arg("key").none(), "Count as read, for eviction. False: it is not there.")
        .def(
            "retain",
            [](PyStore& store, nb::handle key) {
                return is_done(store.live()->retain(parse_key(key)));
            },
            nb::arg("key").none(),
            "Never evict it until ``release()``, also after this process died; counts. False: it "
            "is "
            "not there.")
        .def(
            "release",
            [](PyStore& store, nb::handle key) {
                return is_done(store.live()->release(parse_key(key)));
            },
            nb::arg("key").none(),
            "Take one ``retain()`` back. False: it is not there, or was not pinned.")
        .def(
            "clear",
            [](PyStore& store) {
                const std::shared_ptr<Store> live = store.live();
                const WithoutGil without_gil;
                return live->clear();
            },
            "Remove everything, and refuse the commit of what is being written; how many objects.")
        .def(
            "trim",
            [](PyStore& store, nb::handle keep) {
                const std::shared_ptr<Store> live = store.live();
                const std::uint64_t kept = parse_bytes(keep, "keep");
                const WithoutGil without_gil;
                return live->trim(kept);
            },
            nb::arg("keep").none() = 0,
            "Give the memory of free room back to the system, all but ``keep`` bytes; how many "
            "bytes.")
        .def(
            "reap_dead",
            [](PyStore& store) {
                const std::shared_ptr<Store> live = store.live();
                const WithoutGil without_gil;
                live->reap_dead();
            },
            "Take back what the dead hold now; it also happens when a call needs it.")
        .def(
            "populate",
            [](PyStore& store, nb::handle timeout) {
                const Deadline deadline = parse_timeout(timeout);
                const std::shared_ptr<Store> live = store.live();
                Waiting waiting(deadline);
                const Status outcome = live->populate(waiting.wait());
                waiting.reacquire();
                if (outcome.code() == ErrorCode::Cancelled && !waiting.has_raised() &&
                    store.is_closed()) {
                    store.live();  // raises Closed
                }
                waiting.finish(outcome);
            },
            nb::arg("timeout").none() = nb::none(),
            "Map the store's memory into this process, so that its first use of each page costs no "
            "fault.\n"
            "\n"
            "Page tables are each process's own: where the creator took all memory "
            "(``populate=True``), the\n"
            "first store into each 32 MiB still took another process five times a later one. Maps "
            "all of a\n"
            "store that was created with ``populate``, ``lock_memory`` or ``huge_pages``, and of "
            "another what is\n"
            "in use now; about 0.15 s for each GiB. Other threads run, and may use the store. "
            "Ctrl-C "
            "and\n"
            "``close()`` end it within some 10 ms. Raises Timeout, Closed, NoSpace or "
            "InvalidArgument (before\n"
            "Linux 5.14); what was mapped until then stays so.")
        .def(
            "persist", [](PyStore& store) { check(store.live()->persist()); },
            "From now on the store stays when the last one leaves, as one that was created "
            "``persistent``.\n"
            "\n"
            "For good, and for every process, now or later. It is removed by ``penstock gc "
            "--data``.")
        .def_prop_ro(
            "persistent", [](PyStore& store) { return store.live()->is_persistent(); },
            "Whether it stays when the last one leaves. Closed after ``close()``.")
        .def(
            "register_cuda",
            [](PyStore& store) {
                const std::shared_ptr<Store> live = store.live();
                const WithoutGil without_gil;  // pinning gigabytes takes seconds
                live->register_cuda();
            },
            "Pin the store's memory for the GPU, until the store is closed and its arrays are "
            "gone.\n"
            "\n"
            "Copies between its arrays and a device then need no staging. The store must have been "
            "created\n"
            "with ``populate``. Raises InvalidArgument; NotFound where there is no CUDA device.")
        .def("keys", &keys,
             "What is there at this moment, in no order. Keys that are no UTF-8 come as bytes.")
        .def(
            "stats",
            [](PyStore& store) {
                const std::shared_ptr<Store> live = store.live();
                return to_python([&] {
                    const WithoutGil without_gil;
                    return live->stats();
                }());
            },
            "Counters and state of the whole store; ``used_bytes + free_bytes`` is exactly the "
            "capacity.\n\nLooks at every object.")
        .def_prop_ro(
            "capacity", [](PyStore& store) { return store.live()->capacity(); },
            "Bytes that objects with their keys and metadata may take. Closed after ``close()``.")
        .def("close", &PyStore::close,
             "Leave. What is pinned, or being written, stays until it is let go.\n\n"
             "The second time it does nothing; of a TieredStore's first tier neither.");
}

}  // namespace penstock::py
