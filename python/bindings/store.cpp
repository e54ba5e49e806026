// penstock._core.Store: encode and put, look up and decode, reserve and commit.
#include "store.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec_numpy.hpp"
#include "errors.hpp"
#include "state.hpp"
#include "store_tensor.hpp"
#include "wait.hpp"

namespace penstock::py {

nb::object make_store_staged(StoreReservation reservation);  // store_staged.cpp

namespace {

Eviction parse_eviction(const std::string& eviction) {
    for (const Eviction known : {Eviction::Sieve, Eviction::Fifo, Eviction::Lru, Eviction::None}) {
        if (eviction == to_string(known)) {
            return known;
        }
    }
    raise_error(ErrorCode::InvalidArgument,
                "eviction is '" + eviction + "': give 'sieve', 'fifo', 'lru' or 'none'");
}

// What put() and reserve() have in common beside the object: who is told what, and its metadata.
struct Asked {
    ReserveOptions options;
    std::vector<std::byte> meta;

    Asked(nb::handle weight, nb::handle expires_after, nb::handle alignment) {
        options.weight = parse_small(weight, "weight");
        if (!expires_after.is_none()) {
            options.expires_after = std::chrono::nanoseconds(
                static_cast<std::int64_t>(nb::cast<double>(expires_after) * 1e9));
        }
        if (!alignment.is_none()) {
            options.alignment = parse_bytes(alignment, "alignment");
        }
    }
    // Behind what is there: a tensor's head, or nothing.
    void append_meta(nb::handle value) {
        if (!value.is_none()) {
            const Encoded encoded = encode(value, Codec::Typed);
            const std::size_t head = meta.size();
            meta.resize(head + encoded.nbytes());
            encoded.write(meta.data() + head);
        }
        options.meta = meta;
    }
};

[[noreturn]] void raise_refused(const PyStore& store, nb::handle key, const Status& status) {
    if (status.code() == ErrorCode::AlreadyExists) {
        raise_error(ErrorCode::AlreadyExists,
                    title_of(parse_key(key), store) + " is there already; delete it first");
    }
    raise_error(status);
}

// Evicting, and clearing up after the dead, may take a while: other threads run meanwhile.
Result<StoreReservation> reserve_room(Store& store, std::string_view key, std::uint64_t nbytes,
                                      const ReserveOptions& options) {
    const WithoutGil without_gil;
    return store.reserve(key, nbytes, options);
}

// False: it is there, or somebody alive is writing it.
bool put_with(PyStore& store, nb::handle key, std::uint64_t nbytes, const Asked& asked,
              const auto& fill) {
    const std::shared_ptr<Store> live = store.live();
    Result<StoreReservation> staged = reserve_room(*live, parse_key(key), nbytes, asked.options);
    if (!staged) {
        if (staged.code() == ErrorCode::AlreadyExists || staged.code() == ErrorCode::Busy) {
            return false;
        }
        raise_error(staged.status());
    }
    fill(staged->bytes().data());
    check(staged->commit());
    return true;
}

bool put(PyStore& store, nb::handle key, nb::handle value, nb::handle meta, nb::handle weight,
         nb::handle expires_after) {
    Asked asked(weight, expires_after, nb::none());
    asked.append_meta(meta);
    const Encoded encoded = encode(value, store.codec);
    asked.options.format = encoded.codec() == Codec::Pickle ? Format::Pickle : Format::Typed;
    return put_with(store, key, encoded.nbytes(), asked, [&](std::byte* place) {
        std::optional<WithoutGil> without_gil;
        if (encoded.nbytes() >= kLongCopy) {
            without_gil.emplace();
        }
        encoded.write(place);
    });
}

bool put_bytes(PyStore& store, nb::handle key, nb::handle data, nb::handle meta, nb::handle weight,
               nb::handle expires_after) {
    Asked asked(weight, expires_after, nb::none());
    asked.append_meta(meta);
    const Pinned pinned(data, Pinned::Access::Read);
    const auto bytes = pinned.bytes();
    return put_with(store, key, bytes.size(), asked, [&](std::byte* place) {
        if (!bytes.empty()) {
            copy_bytes(place, bytes.data(), bytes.size());
        }
    });
}

nb::object reserve_bytes(PyStore& store, nb::handle key, nb::handle nbytes, nb::handle meta,
                         nb::handle weight, nb::handle expires_after, nb::handle alignment) {
    Asked asked(weight, expires_after, alignment);
    asked.append_meta(meta);
    const std::shared_ptr<Store> live = store.live();
    Result<StoreReservation> staged =
        reserve_room(*live, parse_key(key), parse_bytes(nbytes, "nbytes"), asked.options);
    if (!staged) {
        raise_refused(store, key, staged.status());
    }
    return make_store_staged(*std::move(staged));
}

codec::DType parse_dtype(const std::string& wanted) {
    for (unsigned code = 1; code < static_cast<unsigned>(codec::DType::Described); ++code) {
        const auto dtype = static_cast<codec::DType>(code);
        if (codec::item_size(dtype) > 0 && codec::name(dtype) == wanted) {
            return dtype;
        }
    }
    raise_error(ErrorCode::InvalidArgument,
                "an object can't have the dtype '" + wanted +
                    "': give a plain one, such as 'float16' or 'bfloat16'");
}

nb::object reserve_tensor(PyStore& store, nb::handle key, const std::vector<std::int64_t>& shape,
                          const std::string& dtype, bool is_torch, nb::handle meta,
                          nb::handle weight, nb::handle expires_after, nb::handle alignment) {
    const codec::DType code = parse_dtype(dtype);
    if (shape.size() > codec::kMaxDims) {
        raise_error(ErrorCode::InvalidArgument, "an array has 64 dimensions at most");
    }
    const std::uint64_t nbytes = tensor_bytes(code, shape);
    Asked asked(weight, expires_after, alignment);
    asked.meta =
        write_tensor_head(code, is_torch ? codec::Source::Torch : codec::Source::NumPy, shape);
    asked.append_meta(meta);
    asked.options.format = Format::Tensor;
    const std::shared_ptr<Store> live = store.live();
    Result<StoreReservation> staged = reserve_room(*live, parse_key(key), nbytes, asked.options);
    if (!staged) {
        raise_refused(store, key, staged.status());
    }
    return make_store_staged(*std::move(staged));
}

// None: it is not there.
std::optional<StoreObject> find(PyStore& store, nb::handle key) {
    const std::shared_ptr<Store> live = store.live();
    Result<StoreObject> found = live->get(parse_key(key));
    if (!found) {
        if (found.code() == ErrorCode::NotFound) {
            return std::nullopt;
        }
        raise_error(found.status());
    }
    if (found->format() == Format::Pickle && store.codec != Codec::Pickle) {
        raise_error(ErrorCode::Incompatible,
                    title_of(parse_key(key), store) +
                        " is a pickle, and reading it could run any code: if you trust who put "
                        "it, attach with codec='pickle'");
    }
    return *std::move(found);
}

nb::object get(PyStore& store, nb::handle key) {
    std::optional<StoreObject> found = find(store, key);
    return found ? make_store_view(store, *std::move(found)) : nb::none();
}

nb::object get_copy(PyStore& store, nb::handle key, nb::handle missing) {
    const std::optional<StoreObject> found = find(store, key);
    return found ? copy_of(*found, store.codec) : nb::borrow(missing);
}

nb::object get_ref(PyStore& store, std::uint32_t entry, std::uint64_t incarnation) {
    const std::shared_ptr<Store> live = store.live();
    Result<StoreObject> found = live->get(StoreRef{entry, incarnation});
    if (found) {
        return make_store_view(store, *std::move(found));
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
    Waiting waiting(deadline, cancel);
    const Status outcome = py::store(live->wait(wanted, waiting.wait()), found);
    waiting.reacquire();
    if (waiting.has_raised()) {
        throw nb::python_error();
    }
    if (outcome.code() == ErrorCode::Cancelled && store.is_closed()) {
        store.live();  // raises Closed
    }
    check(outcome);
    return make_store_view(store, *std::move(found));
}

nb::tuple look(PyStore& store, nb::handle key) {
    const StoreLook found = store.live()->look(parse_key(key));
    const char* const states[] = {"miss", "hit", "staged"};
    return nb::make_tuple(states[static_cast<unsigned>(found.state)], found.staged_by,
                          found.nbytes);
}

// True, or False for a miss; anything else is raised.
bool is_done(const Status& status) {
    if (status.code() == ErrorCode::NotFound) {
        return false;
    }
    check(status);
    return true;
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

void create(PyStore* place, const std::string& name, nb::handle capacity, nb::handle objects,
            nb::handle members, const std::string& eviction, nb::handle granule, bool persistent,
            nb::handle codec, bool populate, bool lock_memory, bool huge_pages) {
    StoreOptions options;
    options.capacity = parse_bytes(capacity, "capacity");
    options.objects = objects.is_none() ? 0 : parse_bytes(objects, "objects");
    options.members = parse_small(members, "members");
    options.eviction = parse_eviction(eviction);
    options.granule = granule.is_none() ? 0 : parse_bytes(granule, "granule");
    options.persistent = persistent;
    options.memory.populate = populate;
    options.memory.lock_memory = lock_memory;
    options.memory.huge_pages = huge_pages;
    const Codec values = parse_codec(codec);
    const WithoutGil without_gil;  // populate may take seconds
    new (place) PyStore(Store::create(name, options), values);
}

void attach(PyStore* place, const std::string& name, const std::string& instance, nb::handle codec,
            nb::handle timeout) {
    const Codec values = parse_codec(codec);
    const Deadline deadline = parse_timeout(timeout);
    new (place) PyStore(
        attach_waiting(deadline,
                       [&](const Wait& wait) { return Store::attach(name, wait, instance); }),
        values);
}

}  // namespace

PyStore::PyStore(Store attached, Codec values)
    : codec(values), name(attached.name()), instance(attached.instance()),
      store_(std::make_shared<Store>(std::move(attached))) {}

std::shared_ptr<Store> PyStore::live() {
    if (store_ == nullptr) {
        std::string sentence = "the store '";
        raise_error(ErrorCode::Closed,
                    sentence.append(name).append("' was closed by this process"));
    }
    if (generation_ != os::fork_generation()) {
        auto own = std::make_shared<Store>(Store::attach(name, Deadline::now(), instance));
        // The parent's: its threads may have been at work when this child was forked.
        [[maybe_unused]] const auto* const left_to_the_parent =
            new std::shared_ptr<Store>(std::move(store_));
        store_ = std::move(own);
        generation_ = os::fork_generation();
    }
    return store_;
}

void PyStore::close() {
    if (store_ == nullptr || generation_ != os::fork_generation()) {
        return;
    }
    store_->request_close();
    store_.reset();  // the last call that still uses it leaves
}

std::string_view parse_key(nb::handle key) {
    if (PyUnicode_Check(key.ptr())) {
        Py_ssize_t size = 0;
        const char* const text = PyUnicode_AsUTF8AndSize(key.ptr(), &size);
        if (text == nullptr) {
            throw nb::python_error();
        }
        return {text, static_cast<std::size_t>(size)};
    }
    if (PyBytes_Check(key.ptr())) {
        const auto bytes = bytes_of(key);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    PyErr_SetString(PyExc_TypeError, "a key is a str or bytes");
    throw nb::python_error();
}

std::string title_of(std::string_view key, const PyStore& store) {
    std::string title = "'";
    title.append(key.substr(0, 60)).append("' of store '").append(store.name).append("'");
    return title;
}

void bind_store(nb::module_& module) {
    bind_store_view(module);
    bind_store_staged(module);
    nb::class_<PyStore>(module, "Store", nb::is_weak_referenceable())
        .def("__init__", &create, nb::arg("name"), nb::kw_only(), nb::arg("capacity"),
             nb::arg("objects").none(), nb::arg("members"), nb::arg("eviction"),
             nb::arg("granule").none(), nb::arg("persistent"), nb::arg("codec").none(),
             nb::arg("populate"), nb::arg("lock_memory"), nb::arg("huge_pages"))
        .def("__init__", &attach, nb::arg("name"), nb::kw_only(), nb::arg("instance"),
             nb::arg("codec").none(), nb::arg("timeout").none())
        .def("put", &put, nb::arg("key"), nb::arg("obj").none(), nb::kw_only(),
             nb::arg("meta") = nb::none(), nb::arg("weight") = 0,
             nb::arg("expires_after") = nb::none())
        .def("put_bytes", &put_bytes, nb::arg("key"), nb::arg("data"), nb::kw_only(),
             nb::arg("meta") = nb::none(), nb::arg("weight") = 0,
             nb::arg("expires_after") = nb::none())
        .def("_reserve_bytes", &reserve_bytes, nb::arg("key"), nb::arg("nbytes"), nb::kw_only(),
             nb::arg("meta").none(), nb::arg("weight"), nb::arg("expires_after").none(),
             nb::arg("alignment").none())
        .def("_reserve_tensor", &reserve_tensor, nb::arg("key"), nb::arg("shape"), nb::arg("dtype"),
             nb::arg("is_torch"), nb::kw_only(), nb::arg("meta").none(), nb::arg("weight"),
             nb::arg("expires_after").none(), nb::arg("alignment").none())
        .def("_get", &get, nb::arg("key"))
        .def("_get_copy", &get_copy, nb::arg("key"), nb::arg("missing"))
        .def("_get_ref", &get_ref, nb::arg("entry"), nb::arg("incarnation"))
        .def("_wait", &wait_for, nb::arg("key"), nb::arg("timeout").none(),
             nb::arg("cancel").none() = nb::none())
        .def("_look", &look, nb::arg("key"))
        .def("__contains__",
             [](PyStore& store, nb::handle key) { return store.live()->contains(parse_key(key)); })
        .def("delete", [](PyStore& store,
                          nb::handle key) { return is_done(store.live()->remove(parse_key(key))); })
        .def("touch",
             [](PyStore& store, nb::handle key) { return store.live()->touch(parse_key(key)); })
        .def("pin", [](PyStore& store,
                       nb::handle key) { return is_done(store.live()->pin(parse_key(key))); })
        .def("unpin", [](PyStore& store,
                         nb::handle key) { return is_done(store.live()->unpin(parse_key(key))); })
        .def("clear",
             [](PyStore& store) {
                 const std::shared_ptr<Store> live = store.live();
                 const WithoutGil without_gil;
                 return live->clear();
             })
        .def(
            "trim",
            [](PyStore& store, nb::handle keep) {
                const std::shared_ptr<Store> live = store.live();
                const std::uint64_t kept = parse_bytes(keep, "keep");
                const WithoutGil without_gil;
                return live->trim(kept);
            },
            nb::arg("keep") = 0)
        .def("clear_dead",
             [](PyStore& store) {
                 const std::shared_ptr<Store> live = store.live();
                 const WithoutGil without_gil;
                 live->clear_dead();
             })
        .def("register_cuda",
             [](PyStore& store) {
                 const std::shared_ptr<Store> live = store.live();
                 const WithoutGil without_gil;  // pinning gigabytes takes seconds
                 live->register_cuda();
             })
        .def("keys", &keys)
        .def("_stats",
             [](PyStore& store) {
                 const std::shared_ptr<Store> live = store.live();
                 return to_dict([&] {
                     const WithoutGil without_gil;
                     return live->stats();
                 }());
             })
        .def_prop_ro("capacity", [](PyStore& store) { return store.live()->capacity(); })
        .def("close", &PyStore::close)
        .def_prop_ro("closed", &PyStore::is_closed)
        .def_ro("name", &PyStore::name)
        .def_ro("_instance", &PyStore::instance);
    module.def(
        "dtype_named", [](const std::string& name) { return dtype_of_code(parse_dtype(name)); },
        nb::arg("name"), "NumPy's dtype of that name; of ml_dtypes where NumPy has none.");
    module.def("inspect_store", [](const std::string& name) {
        const StoreInfo info = [&] {
            const WithoutGil without_gil;
            return inspect_store(name);
        }();
        nb::dict dict;
        dict["segment"] = to_dict(info.segment);
        dict["stats"] = to_dict(info.stats);
        return dict;
    });
}

}  // namespace penstock::py
