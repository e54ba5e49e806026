// Implementation of put, reserve and look-ups.
#include "store_objects.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec_descr.hpp"
#include "codec_numpy.hpp"
#include "codec_refusal.hpp"
#include "errors.hpp"
#include "outgoing.hpp"
#include "segment/text.hpp"
#include "store_tensor.hpp"
#include "store_view.hpp"
#include "text.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

// "'key' of store 'kv'", for error messages.
std::string title_of(std::string_view key, const PyStore& store) {
    constexpr std::size_t most = 60;
    return "'" + detail::printable(detail::cut(key, most)) + "' of store '" + store.name + "'";
}

// Arguments common to put() and reserve(): options and metadata.
struct Asked {
    ReserveOptions options;
    std::vector<std::byte> meta;

    Asked(nb::handle weight, nb::handle expires_after, nb::handle alignment) {
        options.weight = parse_small(weight, "weight");
        if (!expires_after.is_none()) {
            options.expires_after = parse_seconds(expires_after, "expires_after");
        }
        if (!alignment.is_none()) {
            options.alignment = parse_bytes(alignment, "alignment");
        }
    }
    // Appends to `meta`, which holds a tensor's head or nothing.
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

// False: the key has an object, or a living process is writing it.
bool put_with(PyStore& store, nb::handle key, std::uint64_t nbytes, const Asked& asked,
              Deadline deadline, const auto& fill) {
    Result<StoreReservation> room = store.reserve(parse_key(key), nbytes, asked.options);
    if (!room) {
        if (room.code() == ErrorCode::AlreadyExists || room.code() == ErrorCode::Busy) {
            return false;
        }
        raise_error(room.status());
    }
    fill(room->bytes().data());
    commit(*room, deadline);
    return true;
}

bool put(PyStore& store, nb::handle key, nb::handle value, nb::handle meta, nb::handle weight,
         nb::handle expires_after, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    Asked asked(weight, expires_after, nb::none());
    asked.append_meta(meta);
    const Encoded encoded = encode(value, store.codec);
    asked.options.format = encoded.codec() == Codec::Pickle ? Format::Pickle : Format::Typed;
    return put_with(store, key, encoded.nbytes(), asked, deadline,
                    [&](std::byte* place) { write_to(place, encoded); });
}

bool put_bytes(PyStore& store, nb::handle key, nb::handle data, nb::handle meta, nb::handle weight,
               nb::handle expires_after, nb::handle timeout) {
    const Deadline deadline = parse_timeout(timeout);
    Asked asked(weight, expires_after, nb::none());
    asked.append_meta(meta);
    const Pinned pinned(data, Pinned::Access::Read);
    const auto bytes = pinned.bytes();
    return put_with(store, key, bytes.size(), asked, deadline, [&](std::byte* place) {
        if (!bytes.empty()) {
            copy_bytes(place, bytes.data(), bytes.size());
        }
    });
}

nb::object stage(PyStore& store, nb::handle key, std::uint64_t nbytes, const Asked& asked,
                 bool in_place) {
    Result<StoreReservation> room = store.reserve(parse_key(key), nbytes, asked.options);
    if (!room) {
        raise_refused(store, key, room.status());
    }
    return make_store_staged(*std::move(room), asked.options.alignment, in_place);
}

nb::object reserve_bytes(PyStore& store, nb::handle key, nb::handle nbytes, nb::handle meta,
                         nb::handle weight, nb::handle expires_after, nb::handle alignment) {
    Asked asked(weight, expires_after, alignment);
    asked.append_meta(meta);
    return stage(store, key, parse_bytes(nbytes, "nbytes"), asked, false);
}

// Items of an array: a dtype with a code, or with a description.
struct Items {
    codec::DType code = codec::DType::Described;
    std::uint64_t bytes = 0;
    std::vector<std::byte> descr;
};

Items items_named(const std::string& name) {
    const codec::DType code = codec::dtype_named(name);
    if (code == codec::DType::Described) {
        raise_error(ErrorCode::InvalidArgument, "an object can't have the dtype '" + name +
                                                    "': give a plain one, such as 'float16' or "
                                                    "'bfloat16'");
    }
    return {code, codec::item_size(code), {}};
}

std::vector<std::byte> describe(nb::handle dtype) {
    constexpr std::size_t kMax = std::size_t{64} << 10U;
    std::vector<std::byte> descr(kMax);
    codec::Writer out(descr);
    try {
        write_descr(dtype, out);
    } catch (const Refusal& refusal) {
        raise_error(ErrorCode::InvalidArgument, "can't reserve an object: " + refusal.sentence());
    }
    if (out.fault() != codec::Fault::None) {
        raise_error(ErrorCode::InvalidArgument,
                    "can't reserve an object: its dtype takes more than 64 KiB to describe");
    }
    descr.resize(out.size());
    return descr;
}

// Parses a dtype's name, or a dtype of NumPy.
Items parse_items(nb::handle dtype) {
    if (PyUnicode_Check(dtype.ptr())) {
        return items_named(nb::cast<std::string>(dtype));
    }
    const codec::DType code = dtype_code(dtype);
    const auto bytes = nb::cast<std::uint64_t>(dtype.attr("itemsize"));
    return {code, bytes,
            code == codec::DType::Described ? describe(dtype) : std::vector<std::byte>()};
}

nb::object reserve_tensor(PyStore& store, nb::handle key, const std::vector<std::int64_t>& shape,
                          nb::handle dtype, bool is_torch, nb::handle meta, nb::handle weight,
                          nb::handle expires_after, nb::handle alignment, bool in_place) {
    if (shape.size() > codec::kMaxDims) {
        raise_error(ErrorCode::InvalidArgument, "an array has 64 dimensions at most");
    }
    const Items items = parse_items(dtype);
    const std::uint64_t nbytes = tensor_bytes(items.bytes, shape);
    Asked asked(weight, expires_after, alignment);
    const auto source = is_torch ? codec::Source::Torch : codec::Source::NumPy;
    asked.meta = write_tensor_head(items.code, source, shape, items.descr);
    asked.append_meta(meta);
    asked.options.format = Format::Tensor;
    return stage(store, key, nbytes, asked, in_place);
}

// nullopt: a miss.
std::optional<StoreObject> find(PyStore& store, nb::handle key, nb::handle timeout) {
    Result<StoreObject> found = store.find(parse_key(key), parse_timeout(timeout));
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

nb::object get(PyStore& store, nb::handle key, nb::handle timeout) {
    std::optional<StoreObject> found = find(store, key, timeout);
    return found ? make_store_view(store.codec, *std::move(found)) : nb::none();
}

nb::object get_copy(PyStore& store, nb::handle key, nb::handle missing, nb::handle timeout) {
    const std::optional<StoreObject> found = find(store, key, timeout);
    if (!found) {
        return nb::borrow(missing);
    }
    nb::object copy = copy_of(*found, store.codec);
    check(found->check_held());
    return copy;
}

}  // namespace

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
    raise_wrong_type("a key", "a str or bytes", key);
}

bool is_done(const Status& status) {
    if (status.code() == ErrorCode::NotFound) {
        return false;
    }
    check(status);
    return true;
}

void bind_store_objects(nb::module_& module, nb::class_<PyStore>& store) {
    bind_store_view(module);
    bind_store_staged(module);
    store
        .def(
            "put", &put, nb::arg("key").none(), nb::arg("obj").none(), nb::kw_only(),
            nb::arg("meta") = nb::none(), nb::arg("weight").none() = 0,
            nb::arg("expires_after") = nb::none(), nb::arg("timeout").none() = nb::none(),
            "Put a value. False: it is there already, or a living process is writing it.\n"
            "\n"
            "``meta`` is any typed value, stored beside it. An object of a higher ``weight`` is "
            "passed by so\n"
            "many times more when others are evicted. ``expires_after`` is in seconds; see "
            "``reserve``.\n"
            "\n"
            "Raises NoSpace (all else is in use), TooLarge, UnsupportedType or Closed; with a "
            "second tier by\n"
            "``policy=\"write_through\"`` also what speaks of a server, which ``timeout`` may end: "
            "then the first\n"
            "tier has it.")
        .def("put_bytes", &put_bytes, nb::arg("key").none(), nb::arg("data").none(), nb::kw_only(),
             nb::arg("meta") = nb::none(), nb::arg("weight").none() = 0,
             nb::arg("expires_after") = nb::none(), nb::arg("timeout").none() = nb::none(),
             "Put a contiguous buffer; readers get bytes, or a view of them. See ``put``.")
        .def("_reserve_bytes", &reserve_bytes, nb::arg("key").none(), nb::arg("nbytes").none(),
             nb::kw_only(), nb::arg("meta").none(), nb::arg("weight").none(),
             nb::arg("expires_after").none(), nb::arg("alignment").none())
        .def("_reserve_tensor", &reserve_tensor, nb::arg("key").none(), nb::arg("shape"),
             nb::arg("dtype"), nb::arg("is_torch"), nb::kw_only(), nb::arg("meta").none(),
             nb::arg("weight").none(), nb::arg("expires_after").none(), nb::arg("alignment").none(),
             nb::arg("in_place") = false)
        .def("_get", &get, nb::arg("key").none(), nb::arg("timeout").none() = nb::none())
        .def("_get_copy", &get_copy, nb::arg("key").none(), nb::arg("missing").none(),
             nb::arg("timeout").none() = nb::none())
        .def_prop_ro("name", &name_of<&PyStore::name, PyStore>,
                     "The name it was created with, or attached to.")
        .def_ro("_instance", &PyStore::instance);
    module.def(
        "dtype_named",
        [](const std::string& name) { return dtype_of_code(items_named(name).code); },
        nb::arg("name"), "NumPy's dtype of that name; of ml_dtypes where NumPy has none.");
}

}  // namespace penstock::py
