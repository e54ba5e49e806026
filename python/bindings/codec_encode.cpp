// The encoder uses CPython's C API directly: it runs for every value of every message, and each
// temporary object would cost as much as the value itself.
#include "codec_encode.hpp"

#include <string>

#include "codec_dataclass.hpp"
#include "codec_dlpack.hpp"
#include "codec_numpy.hpp"
#include "codec_stack.hpp"
#include "codec_torch.hpp"

namespace penstock::py {

using codec::Extension;

namespace {

constexpr std::int64_t kKindBytes = 0;
constexpr std::int64_t kKindByteArray = 1;

nb::object checked(PyObject* object) {
    if (object == nullptr) {
        nb::raise_python_error();
    }
    return nb::steal(object);
}

std::span<const std::byte> content_of_bytes(nb::handle bytes) {
    return {reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(bytes.ptr())),
            static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

std::span<const std::byte> content_of_buffer(const Py_buffer& buffer) {
    return {static_cast<const std::byte*>(buffer.buf), static_cast<std::size_t>(buffer.len)};
}

// Base types (int, str…) whose subclasses would come out as another type than they went in.
const char* known_base(nb::handle value) {
    PyObject* const object = value.ptr();
    if (PyLong_Check(object)) return "int";
    if (PyFloat_Check(object)) return "float";
    if (PyComplex_Check(object)) return "complex";
    if (PyUnicode_Check(object)) return "str";
    if (PyBytes_Check(object)) return "bytes";
    if (PyByteArray_Check(object)) return "bytearray";
    if (PyList_Check(object)) return "list";
    if (PyTuple_Check(object)) return "tuple";
    if (PyDict_Check(object)) return "dict";
    return nullptr;
}

Refusal unknown(nb::handle value) {
    const std::string type = type_of(value);
    if (const char* const base = known_base(value); base != nullptr) {
        return Refusal(" is a " + type + ", a subclass of " + base +
                       ", and would arrive as a plain one: convert it first");
    }
    if (nb::hasattr(value.type(), "__dataclass_fields__")) {
        return Refusal(" is a " + type +
                       ": register this dataclass on both sides with "
                       "penstock.codec.register_dataclass");
    }
    return Refusal(" is a " + type + ", which the typed codec does not know");
}

Refusal changed(nb::handle container) {
    return Refusal(" is a " + type_of(container) + " that changed while it was being encoded");
}

}  // namespace

// One container level, during this object's life.
class Encoder::Level {
public:
    Level(Encoder& encoder, nb::handle container) : encoder_(encoder) {
        if (encoder_.depth_ == codec::kMaxDepth) {
            throw Refusal(" is nested more than 256 deep", container);
        }
        check_stack("cannot encode the value", encoder_.depth_);
        ++encoder_.depth_;
    }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() { --encoder_.depth_; }

private:
    Encoder& encoder_;
};

void Encoder::value(nb::handle value) {
    PyObject* const object = value.ptr();
    PyTypeObject* const type = Py_TYPE(object);
    if (type == &PyUnicode_Type) {
        text(value);
    } else if (type == &PyLong_Type) {
        integer(value);
    } else if (is_ndarray(value)) {
        encode_array(value, scratch_);
    } else if (object == Py_None) {
        out_.nil();
    } else if (type == &PyBool_Type) {
        out_.boolean(object == Py_True);
    } else if (type == &PyFloat_Type) {
        out_.real(PyFloat_AS_DOUBLE(object));
    } else if (type == &PyDict_Type) {
        dict(value);
    } else if (type == &PyList_Type) {
        list(value);
    } else if (type == &PyTuple_Type) {
        tuple(value);
    } else {
        other(value);
    }
}

void Encoder::other(nb::handle value) {
    PyObject* const object = value.ptr();
    PyTypeObject* const type = Py_TYPE(object);
    if (type == &PyBytes_Type) {
        const std::span<const std::byte> content = content_of_bytes(value);
        scratch_.message.bytes(content);
        if (content.size() >= codec::kOutOfBand) {
            scratch_.keep(nb::borrow(value));
        }
    } else if (type == &PyComplex_Type) {
        out_.complex(PyComplex_RealAsDouble(object), PyComplex_ImagAsDouble(object));
    } else if (type == &PyByteArray_Type) {
        byte_array(value);
    } else if (type == &PyMemoryView_Type) {
        memory_view(value);
    } else {
        rare(value);
    }
}

// Types of other packages, which are loaded by now if the value has such a type.
void Encoder::rare(nb::handle value) {
    if (torch_is_in_use() && is_tensor(value)) {
        encode_tensor(value, scratch_);
    } else if (const Dataclass* const entry = dataclass_of(value); entry != nullptr) {
        dataclass(value, *entry);
    } else if (numpy_is_in_use() && is_numpy_scalar(value)) {
        encode_numpy_scalar(value, out_);
    } else if (numpy_is_in_use() && is_array_or_subclass(value)) {
        encode_array(value, scratch_);
    } else if (has_dlpack(value)) {
        encode_dlpack(value, scratch_);
    } else {
        throw unknown(value);
    }
}

void Encoder::integer(nb::handle value) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    if (overflow == 0) {
        out_.integer(number);
    } else {
        big_integer(value);
    }
}

void Encoder::big_integer(nb::handle value) {
    const unsigned long long number = PyLong_AsUnsignedLongLong(value.ptr());
    if (PyErr_Occurred() == nullptr) {
        out_.natural(number);
        return;
    }
    PyErr_Clear();
    const auto bits = nb::cast<std::size_t>(value.attr("bit_length")());
    const nb::object bytes = value.attr("to_bytes")(bits / 8 + 1, "big", nb::arg("signed") = true);
    out_.extension(Extension::BigInt, content_of_bytes(bytes));
}

void Encoder::text(nb::handle value) {
    PyObject* const object = value.ptr();
    if (PyUnicode_IS_COMPACT_ASCII(object)) {
        out_.text({static_cast<const char*>(PyUnicode_DATA(object)),
                   static_cast<std::size_t>(PyUnicode_GET_LENGTH(object))});
        return;
    }
    Py_ssize_t size = 0;
    const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 != nullptr) {
        out_.text({utf8, static_cast<std::size_t>(size)});
        return;
    }
    if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError) == 0) {
        nb::raise_python_error();
    }
    PyErr_Clear();
    surrogate_text(value);
}

void Encoder::surrogate_text(nb::handle value) {
    const nb::object bytes =
        checked(PyUnicode_AsEncodedString(value.ptr(), "utf-8", "surrogatepass"));
    out_.extension(Extension::SurrogateText, content_of_bytes(bytes));
}

void Encoder::item(nb::handle item, nb::handle container, std::size_t index) {
    try {
        value(item);
    } catch (Refusal& refusal) {
        refusal.came_through(container, index_step(index));
        throw;
    }
}

// Encoding an item may run Python code (__dlpack__) that changes the container: so every item is
// held while it is encoded, and the size is compared.
void Encoder::list(nb::handle value) {
    const Level level(*this, value);
    const Py_ssize_t count = PyList_GET_SIZE(value.ptr());
    out_.array(static_cast<std::size_t>(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (PyList_GET_SIZE(value.ptr()) != count) {
            throw changed(value);
        }
        const nb::object held = nb::borrow(PyList_GET_ITEM(value.ptr(), i));
        item(held, value, static_cast<std::size_t>(i));
    }
}

void Encoder::tuple(nb::handle value) {
    const Level level(*this, value);
    const Py_ssize_t count = PyTuple_GET_SIZE(value.ptr());
    const std::size_t mark = out_.begin_extension(Extension::Tuple);
    out_.array(static_cast<std::size_t>(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
        item(PyTuple_GET_ITEM(value.ptr(), i), value, static_cast<std::size_t>(i));
    }
    out_.end_extension(mark);
}

void Encoder::dict(nb::handle value) {
    const Level level(*this, value);
    const Py_ssize_t count = PyDict_GET_SIZE(value.ptr());
    out_.map(static_cast<std::size_t>(count));
    Py_ssize_t position = 0;
    Py_ssize_t seen = 0;
    PyObject* key = nullptr;
    PyObject* item = nullptr;
    while (PyDict_Next(value.ptr(), &position, &key, &item) != 0) {
        if (++seen > count) {
            break;
        }
        const nb::object held_key = nb::borrow(key);
        const nb::object held_item = nb::borrow(item);
        dict_item(held_key, held_item, value);
    }
    if (seen != count || PyDict_GET_SIZE(value.ptr()) != count) {
        throw changed(value);
    }
}

void Encoder::dict_item(nb::handle key, nb::handle item, nb::handle dict) {
    if (Py_TYPE(key.ptr()) == &PyUnicode_Type) {
        text(key);
    } else {
        this->key(key, dict);
    }
    try {
        value(item);
    } catch (Refusal& refusal) {
        refusal.came_through(dict, key_step(key));
        throw;
    }
}

void Encoder::key(nb::handle key, nb::handle dict) {
    if (!is_key(key, depth_)) {
        throw Refusal(" has a key of type " + type_of(key) +
                      ", which the typed codec does not send as a key");
    }
    try {
        value(key);
    } catch (Refusal& refusal) {
        refusal.came_through(dict, " (key " + key_step(key) + ")");
        throw;
    }
}

// Whether a key is a valid key at the receiver. The contents of tuples and dataclasses were hashed,
// so they are valid too, except tensors, which hash by address.
bool Encoder::is_key(nb::handle key, unsigned depth) const {
    PyObject* const object = key.ptr();
    PyTypeObject* const type = Py_TYPE(object);
    if (object == Py_None || type == &PyUnicode_Type || type == &PyLong_Type ||
        type == &PyBool_Type || type == &PyFloat_Type || type == &PyComplex_Type ||
        type == &PyBytes_Type) {
        return true;
    }
    if (type == &PyTuple_Type) {
        if (depth == codec::kMaxDepth) {
            return true;  // value() reports it
        }
        check_stack("cannot encode the value", depth);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
            if (!is_key(PyTuple_GET_ITEM(object, i), depth + 1)) {
                return false;
            }
        }
        return true;
    }
    return dataclass_of(key) != nullptr || (numpy_is_in_use() && is_numpy_scalar(key));
}

void Encoder::out_of_band(const Py_buffer& buffer, std::int64_t kind) {
    const auto size = static_cast<std::int64_t>(buffer.len);
    const std::uint32_t index = scratch_.message.add({.dtype = codec::DType::UInt8,
                                                      .source = codec::Source::Bytes,
                                                      .shape = {&size, 1},
                                                      .data = buffer.buf});
    const std::size_t mark = out_.begin_extension(Extension::OutOfBand);
    out_.array(2);
    out_.integer(kind);
    out_.natural(index);
    out_.end_extension(mark);
}

// A buffer view keeps other threads from resizing it until the message was written.
void Encoder::byte_array(nb::handle value) {
    nb::object view = checked(PyMemoryView_FromObject(value.ptr()));
    const Py_buffer& buffer = *PyMemoryView_GET_BUFFER(view.ptr());
    if (content_of_buffer(buffer).size() < codec::kOutOfBand) {
        out_.extension(Extension::ByteArray, content_of_buffer(buffer));
    } else {
        out_of_band(buffer, kKindByteArray);
        scratch_.keep(std::move(view));
    }
}

// Arrives as bytes: the viewed bytes in C order.
void Encoder::memory_view(nb::handle value) {
    nb::object view = checked(PyMemoryView_FromObject(value.ptr()));
    const Py_buffer& buffer = *PyMemoryView_GET_BUFFER(view.ptr());
    if (PyBuffer_IsContiguous(&buffer, 'C') == 0) {
        const nb::object bytes = view.attr("tobytes")();
        this->value(bytes);
    } else if (content_of_buffer(buffer).size() < codec::kOutOfBand) {
        out_.bytes(content_of_buffer(buffer));
    } else {
        out_of_band(buffer, kKindBytes);
        scratch_.keep(std::move(view));
    }
}

void Encoder::dataclass(nb::handle value, const Dataclass& entry) {
    const Level level(*this, value);
    const std::size_t mark = out_.begin_extension(Extension::Dataclass);
    out_.array(2);
    out_.text(entry.name);
    out_.map(entry.fields.size());
    for (std::size_t i = 0; i < entry.fields.size(); ++i) {
        out_.text(entry.wire_fields[i]);
        const nb::object field = checked(PyObject_GetAttr(value.ptr(), entry.fields[i].ptr()));
        try {
            this->value(field);
        } catch (Refusal& refusal) {
            refusal.came_through(value, "." + entry.wire_fields[i]);
            throw;
        }
    }
    out_.end_extension(mark);
}

}  // namespace penstock::py
