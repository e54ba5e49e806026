// penstock._core.Store: create, attach, wait, maintain and close.
#include "store.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "context.hpp"
#include "errors.hpp"
#include "second_tier.hpp"
#include "state.hpp"
#include "store_objects.hpp"
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

// Returns `call(store, wait)`, which runs without the GIL if the store has a second tier.
template <typename Call>
auto ask(PyStore& store, nb::handle timeout, Call&& call) {
    const Deadline deadline = parse_timeout(timeout);
    const std::shared_ptr<Store> live = store.live();
    if (!live->is_tiered()) {
        return call(*live, Wait());
    }
    Waiting waiting(deadline);
    auto outcome = call(*live, waiting.wait());
    waiting.finish(Status::ok());
    bool is_cut_off = true;  // the result may be incomplete if the handle was closed meanwhile
    if constexpr (std::is_same_v<decltype(outcome), Status>) {
        is_cut_off = outcome.code() == ErrorCode::Cancelled;
    }
    if (is_cut_off && store.is_closed()) {
        store.live();  // raises Closed
    }
    return outcome;
}

nb::object wait_for(PyStore& store, nb::handle key, nb::handle timeout, const Cancel* cancel) {
    const Deadline deadline = parse_timeout(timeout);
    return make_store_view(store.codec,
                           store.wait_for(parse_key(key), deadline, cancel).or_throw());
}

bool contains(PyStore& store, nb::handle given, nb::handle timeout) {
    const std::string_view key = parse_key(given);
    const std::shared_ptr<Store> own = store.live();
    return own->contains(key, Deadline::now()) ||
           (own->is_tiered() && ask(store, timeout, [&](Store& live, const Wait& wait) {
                return live.contains(key, wait);
            }));
}

bool remove(PyStore& store, nb::handle given, nb::handle timeout) {
    const std::string_view key = parse_key(given);
    return is_done(
        ask(store, timeout, [&](Store& live, const Wait& wait) { return live.remove(key, wait); }));
}

bool touch(PyStore& store, nb::handle given, nb::handle timeout) {
    const std::string_view key = parse_key(given);
    return ask(store, timeout,
               [&](Store& live, const Wait& wait) { return live.touch(key, wait); });
}

nb::tuple look(PyStore& store, nb::handle given, nb::handle timeout) {
    const std::string_view key = parse_key(given);
    const StoreLook found =
        ask(store, timeout, [&](Store& live, const Wait& wait) { return live.look(key, wait); });
    const char* const states[] = {"miss", "hit", "staged", "remote"};
    return nb::make_tuple(states[static_cast<unsigned>(found.state)], found.staged_by, found.nbytes,
                          found.is_retained);
}

nb::list keys(PyStore& store, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    const std::shared_ptr<Store> live = store.live();
    const std::vector<std::string> found =
        attach_waiting(deadline, [&](const Wait& wait) { return live->keys(wait); });
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
            nb::handle waiting, nb::handle owner, nb::handle second_tier) {
    const std::string name = parse_name(given_name);
    StoreOptions options;
    options.capacity = parse_bytes(capacity, "capacity");
    options.objects = objects.is_none() ? 0 : parse_natural(objects, "objects");
    options.participants = parse_small(participants, "participants");
    options.eviction = parse_eviction(eviction);
    options.granule = granule.is_none() ? 0 : parse_bytes(granule, "granule");
    options.persistent = parse_flag(persistent, "persistent");
    options.waiting = parse_waiting(waiting);
    options.memory.populate = parse_flag(populate, "populate");
    options.memory.lock_memory = parse_flag(lock_memory, "lock_memory");
    options.memory.huge_pages = parse_flag(huge_pages, "huge_pages");
    options.replaces_owner = parse_owner(owner);
    options.second_tier = parse_second_tier(second_tier);
    const Codec values = parse_codec(codec);
    const Trust own{.owner = std::nullopt, .runs_code = values == Codec::Pickle};
    new (place) PyStore(
        create_waiting(
            options, [&] { return Store::create(name, options); }, options.second_tier.has_value()),
        values, own, options.second_tier);
}

void attach(PyStore* place, nb::handle given_name, const std::string& instance, nb::handle codec,
            nb::handle timeout, nb::handle owner, nb::handle given_tier) {
    const std::string name = parse_name(given_name);
    const std::optional<SecondTierOptions> second_tier = parse_second_tier(given_tier);
    const Codec values = parse_codec(codec);
    const Trust trust = parse_trust(owner, values);
    const Deadline deadline = parse_timeout(timeout);
    const auto attach = [&](const Wait& wait) {
        return Store::attach(name, wait, instance, trust, second_tier);
    };
    new (place) PyStore(attach_waiting(deadline, attach), values, trust, second_tier);
}

}  // namespace

PyStore::PyStore(Store attached, Codec values, const Trust& trust,
                 std::optional<SecondTierOptions> second_tier)
    : codec(values), name(attached.name()), instance(attached.instance()),
      store_(share(std::move(attached))), trust_(trust), second_tier_(std::move(second_tier)) {
    if (second_tier_) {
        second_tier_->has_trial = false;  // so that a child's first call keeps its timeout
    }
}

// The deleter of a store with a second tier runs without the GIL: it joins the tier's threads,
// which may be waiting for the system's resolver.
std::shared_ptr<Store> PyStore::share(Store attached) {
    return {new Store(std::move(attached)), [](Store* last) {
                std::optional<WithoutGil> without_gil;
                if (last->is_tiered() && PyGILState_Check() != 0) {
                    without_gil.emplace();
                }
                delete last;
            }};
}

// Releases the GIL, because eviction and reaping may take long.
Result<StoreReservation> PyStore::reserve(std::string_view key, std::uint64_t nbytes,
                                          const ReserveOptions& options) {
    const std::shared_ptr<Store> own = live();
    const WithoutGil without_gil;
    return own->reserve(key, nbytes, options);
}

// Returns `call(wait, check)`, which may ask a second tier. Raises the exceptions of signal
// handlers.
template <typename Call>
Result<StoreObject> PyStore::await_object(Waiting& waiting, Call&& call) {
    std::exception_ptr interruption;
    const FetchCheck check = [&](const FetchedValue& value) -> FetchResult {
        if (WithoutGil::is_left_behind()) {
            return {FetchResult::Kind::Cancelled, "the interpreter ends"};
        }
        return waiting.with_gil([&]() -> FetchResult {
            try {
                return check_fetched(value, codec);
            } catch (const nb::python_error&) {
                interruption = std::current_exception();
                return {FetchResult::Kind::Cancelled, "interrupted"};
            }
        });
    };
    Result<StoreObject> found = call(waiting.wait(), &check);
    waiting.reacquire();
    if (interruption) {
        std::rethrow_exception(interruption);
    }
    if (found.code() == ErrorCode::Cancelled && !waiting.has_raised() && is_closed()) {
        live();  // raises Closed
    }
    waiting.finish(Status::ok());
    return found;
}

Result<StoreObject> PyStore::find(std::string_view key, Deadline deadline) {
    // Hits in the first tier keep the GIL, and cost the same as without a second tier.
    const std::shared_ptr<Store> own = live();
    Result<StoreObject> found = own->get(key, Deadline::now());
    if (found.code() != ErrorCode::Timeout) {
        return found;
    }
    if (deadline.is_try()) {
        return Status(ErrorCode::Timeout, "the second tier was not asked, for want of time");
    }
    Waiting waiting(deadline);
    return await_object(waiting, [&](const Wait& wait, const FetchCheck* check) {
        return own->get(key, wait, check);
    });
}

Result<StoreObject> PyStore::wait_for(std::string_view key, Deadline deadline,
                                      const Cancel* cancel) {
    const std::shared_ptr<Store> own = live();
    const WaitSubject subject{instance, detail::Awaited::Message};
    // With a second tier another machine may put the object, even if no process here can: no
    // subject.
    Waiting waiting(deadline, cancel, own->is_tiered() ? nullptr : &subject);
    return await_object(waiting, [&](const Wait& wait, const FetchCheck* check) {
        return own->wait(key, wait, check);
    });
}

std::shared_ptr<Store> PyStore::live() {
    if (store_ == nullptr) {
        std::string sentence = "the store '";
        raise_error(ErrorCode::Closed,
                    sentence.append(name).append("' was closed by this process"));
    }
    if (is_foreign()) {
        std::shared_ptr<Store> own =
            share(Store::attach(name, Deadline::now(), instance, trust_, second_tier_));
        // Leaked: the parent's threads may have been using it at the fork.
        [[maybe_unused]] const auto* const left_to_the_parent =
            new std::shared_ptr<Store>(std::move(store_));
        store_ = std::move(own);
        owed_ = {};
        generation_ = os::fork_generation();
    }
    return store_;
}

void PyStore::owe(std::uint64_t dropped, std::uint64_t dropped_bytes) noexcept {
    owed_.dropped += dropped;
    owed_.dropped_bytes += dropped_bytes;
}

Unwritten PyStore::complete(Unwritten report) noexcept {
    const Unwritten owed = std::exchange(owed_, {});
    report.dropped += owed.dropped;
    report.dropped_bytes += owed.dropped_bytes;
    return report;
}

Unwritten PyStore::flush(Deadline deadline) {
    const std::shared_ptr<Store> own = live();
    if (!own->is_tiered()) {
        return {};
    }
    Waiting waiting(deadline);
    const Unwritten report = own->flush(waiting.wait());
    waiting.reacquire();
    if (waiting.has_raised()) {
        owe(report.dropped, report.dropped_bytes);
    }
    waiting.finish(Status::ok());
    return complete(report);
}

Unwritten PyStore::close(Deadline deadline) {
    if (store_ == nullptr || is_foreign()) {
        return {};
    }
    const std::shared_ptr<Store> own = std::move(store_);  // the last call under way leaves
    if (!own->is_tiered()) {
        own->request_close();
        return {};
    }
    Waiting waiting(deadline);
    const Unwritten report = own->finish(waiting.wait());
    waiting.reacquire();
    own->request_close();
    waiting.finish(Status::ok());
    return complete(report);
}

void bind_store(nb::module_& module) {
    nb::class_<PyStore> bound = bind_handle<PyStore>(
        module, "Store", "store", "One participant of a store; penstock.Store is its face.");
    bind_store_objects(module, bound);
    bound
        .def("__init__", &create, nb::arg("name").none(), nb::kw_only(), nb::arg("capacity").none(),
             nb::arg("objects").none(), nb::arg("participants").none(), nb::arg("eviction").none(),
             nb::arg("granule").none(), nb::arg("persistent").none(), nb::arg("codec").none(),
             nb::arg("populate").none(), nb::arg("lock_memory").none(),
             nb::arg("huge_pages").none(), nb::arg("waiting").none() = "balanced",
             nb::arg("owner").none() = nb::none(), nb::arg("second_tier").none() = nb::none())
        .def("__init__", &attach, nb::arg("name").none(), nb::kw_only(), nb::arg("instance"),
             nb::arg("codec").none(), nb::arg("timeout").none(),
             nb::arg("owner").none() = nb::none(), nb::arg("second_tier").none() = nb::none())
        .def("__init__", &refuse_construction<PyStore>)
        .def("_get_ref", &get_ref, nb::arg("entry").none(), nb::arg("incarnation").none())
        .def("_wait", &wait_for, nb::arg("key").none(), nb::arg("timeout").none(),
             nb::arg("cancel").none() = nb::none())
        .def("_look", &look, nb::arg("key").none(), nb::arg("timeout").none() = nb::none())
        .def(
            "__contains__",
            [](PyStore& own, nb::handle key) { return contains(own, key, nb::none()); },
            nb::arg("key").none(),
            "Whether it is there at this moment, in either tier; does not count as read.")
        .def("_contains", &contains, nb::arg("key").none(), nb::arg("timeout").none())
        .def(
            "delete", &remove, nb::arg("key").none(), nb::arg("timeout").none() = nb::none(),
            "Look-ups miss it; readers that hold it go on. False: it was not there.\n"
            "\n"
            "From both tiers. Raises what speaks of a server, which ``timeout`` may end: the first "
            "tier has it no\n"
            "more, the second perhaps has. Waits for a ``put`` of this key that is under way.")
        .def("touch", &touch, nb::arg("key").none(), nb::arg("timeout").none() = nb::none(),
             "Count as read, for eviction, in both tiers, as far as ``timeout`` goes. False: it is "
             "not there.")
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
            "Remove everything, and refuse the commit of what is being written; how many objects.\n"
            "\n"
            "From the first tier: a second one keeps what it has, and is still written to.")
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
            "in use now; about 0.15 s for each GiB. Of a store with ``huge_pages``, memory that "
            "got "
            "small\n"
            "pages is first moved into huge ones, as far as there are any by now; an access to a "
            "page that\n"
            "is being moved waits some ms. Other threads run, and may use the store. Ctrl-C and "
            "``close()``\n"
            "end it within some 10 ms, where memory is moved within some 50. Raises Timeout, "
            "Closed, NoSpace\n"
            "or InvalidArgument (before Linux 5.14); what was mapped until then stays so.")
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
                const WithoutGil without_gil;  // registering gigabytes takes seconds
                live->register_cuda();
            },
            "Pin the store's memory for the GPU, until the store is closed and its arrays are "
            "gone.\n"
            "\n"
            "Copies between its arrays and a device then need no staging. The store must have been "
            "created\n"
            "with ``populate``. Raises InvalidArgument; NotFound where there is no CUDA device.")
        .def("keys", &keys, nb::arg("timeout").none() = nb::none(),
             "What is there at this moment, in no order. Keys that are no UTF-8 come as bytes.\n"
             "\n"
             "With a second tier of both; raises what is in the way of a whole answer. "
             "``timeout=0`` "
             "asks the\n"
             "first tier alone.")
        .def(
            "_flush",
            [](PyStore& own, nb::handle timeout) {
                return to_dict(own.flush(parse_timeout(timeout)));
            },
            nb::arg("timeout").none())
        .def(
            "_close",
            [](PyStore& own, nb::handle timeout) {
                return to_dict(own.close(parse_timeout(timeout)));
            },
            nb::arg("timeout").none())
        .def("_owe", &PyStore::owe, nb::arg("dropped"), nb::arg("dropped_bytes"))
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
            "capacity.\n\nLooks at every object. ``second_tier`` has this object's counters.")
        .def_prop_ro(
            "capacity", [](PyStore& store) { return store.live()->capacity(); },
            "Bytes that objects with their keys and metadata may take. Closed after ``close()``.");
}

}  // namespace penstock::py
