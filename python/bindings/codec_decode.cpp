// The decoder: one C++ call for each level of the value. Errors of CPython or NumPy about the
// content become Corrupt.
#include "codec_decode.hpp"

#include <bit>
#include <string>

#include "codec/big_endian.hpp"
#include "codec_dataclass.hpp"
#include "codec_fault.hpp"
#include "codec_keys.hpp"
#include "codec_memory.hpp"
#include "codec_numpy.hpp"
#include "codec_stack.hpp"
#include "codec_torch.hpp"

namespace penstock::py {

using codec::Extension;
using codec::Fault;
using codec::Kind;
using codec::Reader;
using codec::Token;

namespace {

constexpr std::int64_t kKindByteArray = 1;
constexpr std::size_t kWatchedKeys = 64;  // smaller dicts may have one hash throughout

void expect(Reader& in, Token& token, Kind kind) {
    if (!in.next(token) || token.kind != kind) {
        raise_fault(in.fault() == Fault::None ? Fault::BadExtension : in.fault());
    }
}

// A count and an index: the start of an ext array of two.
std::uint64_t expect_index(Reader& in) {
    Token token;
    expect(in, token, Kind::Integer);
    if (token.integer < 0) {
        raise_fault(Fault::BadExtension);
    }
    return static_cast<std::uint64_t>(token.integer);
}

void expect_pair(Reader& in) {
    Token token;
    expect(in, token, Kind::Array);
    if (token.count != 2) {
        raise_fault(Fault::BadExtension);
    }
}

nb::object text(std::string_view utf8, const char* errors) {
    return made_of_bytes(
        PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), errors));
}

nb::object bytes(std::span<const std::byte> data) {
    return made_of_bytes(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data.data()),
                                                   static_cast<Py_ssize_t>(data.size())));
}

nb::object byte_array(std::span<const std::byte> data) {
    return made_of_bytes(PyByteArray_FromStringAndSize(reinterpret_cast<const char*>(data.data()),
                                                       static_cast<Py_ssize_t>(data.size())));
}

nb::object big_integer(std::span<const std::byte> body) {
    const nb::handle type(reinterpret_cast<PyObject*>(&PyLong_Type));
    return type.attr("from_bytes")(bytes(body), "big", nb::arg("signed") = true);
}

nb::object complex_number(std::span<const std::byte> body) {
    if (body.size() != 2 * sizeof(double)) {
        raise_fault(Fault::BadExtension);
    }
    const auto real = codec::load_big<std::uint64_t>(body.data());
    const auto imaginary = codec::load_big<std::uint64_t>(body.data() + sizeof(double));
    return made_of_bytes(
        PyComplex_FromDoubles(std::bit_cast<double>(real), std::bit_cast<double>(imaginary)));
}

nb::object described_scalar(std::span<const std::byte> body) {
    Reader in(body);
    Token token;
    expect_pair(in);
    const std::size_t before = in.remaining();
    if (!in.skip()) {
        raise_fault(Fault::BadExtension);
    }
    const std::span<const std::byte> descr =
        body.subspan(body.size() - before, before - in.remaining());
    expect(in, token, Kind::Bytes);
    if (!in.at_end()) {
        raise_fault(Fault::BadExtension);
    }
    return decode_described_scalar(descr, token.bytes);
}

}  // namespace

nb::object Decoder::whole(std::span<const std::byte> structure, unsigned depth) {
    Reader in(structure);
    nb::object result = value(in, depth);
    if (!in.at_end()) {
        raise_fault(Fault::Trailing);
    }
    return result;
}

nb::object Decoder::value(Reader& in, unsigned depth) {
    Token token;
    if (!in.next(token)) {
        raise_fault(in.fault() == Fault::None ? Fault::Truncated : in.fault());
    }
    switch (token.kind) {
        case Kind::Nil:
            return nb::none();
        case Kind::Boolean:
            return nb::borrow(token.boolean ? Py_True : Py_False);
        case Kind::Integer:
            return made_of_bytes(PyLong_FromLongLong(token.integer));
        case Kind::Natural:
            return made_of_bytes(PyLong_FromUnsignedLongLong(token.natural));
        case Kind::Real:
            return made_of_bytes(PyFloat_FromDouble(token.real));
        case Kind::Text:
            return text(token.text(), nullptr);
        case Kind::Bytes:
            return bytes(token.bytes);
        case Kind::Array:
            return list(in, token.count, depth);
        case Kind::Map:
            return dict(in, token.count, depth);
        case Kind::Extension:
            return extension(token, depth);
    }
    raise_fault(Fault::BadMarker);
}

nb::object Decoder::list(Reader& in, std::size_t count, unsigned depth) {
    enter(depth);
    nb::object result = made_of_bytes(PyList_New(static_cast<Py_ssize_t>(count)));
    for (std::size_t i = 0; i < count; ++i) {
        PyList_SET_ITEM(result.ptr(), static_cast<Py_ssize_t>(i),
                        value(in, depth + 1).release().ptr());
    }
    return result;
}

nb::object Decoder::tuple(std::span<const std::byte> body, unsigned depth) {
    Reader in(body);
    Token token;
    expect(in, token, Kind::Array);
    enter(depth);
    nb::object result = made_of_bytes(PyTuple_New(static_cast<Py_ssize_t>(token.count)));
    for (std::size_t i = 0; i < token.count; ++i) {
        PyTuple_SET_ITEM(result.ptr(), static_cast<Py_ssize_t>(i),
                         value(in, depth + 1).release().ptr());
    }
    if (!in.at_end()) {
        raise_fault(Fault::Trailing);
    }
    return result;
}

// Enters one more container level.
void Decoder::enter(unsigned depth) const {
    if (depth == codec::kMaxDepth) {
        raise_fault(Fault::TooDeep);
    }
    check_stack("cannot decode a message", depth);
}

KeyHashes& Decoder::hashes() {
    if (hashes_ == nullptr) {
        hashes_ = std::make_unique<KeyHashes>();
    }
    return *hashes_;
}

nb::object Decoder::dict(Reader& in, std::size_t count, unsigned depth) {
    enter(depth);
    nb::object result = made_of_bytes(PyDict_New());
    std::unique_ptr<KeyHashes::Dict> watch;
    for (std::size_t i = 0; i < count; ++i) {
        bool is_watched = false;
        const std::size_t before = in.remaining();
        const nb::object name = key(in, depth + 1, is_watched);
        const std::size_t bytes = before - in.remaining();
        const nb::object item = value(in, depth + 1);
        if (is_watched && count >= kWatchedKeys) {
            if (watch == nullptr) {
                watch = std::make_unique<KeyHashes::Dict>(hashes());
            }
            watch->add(name, bytes);
        }
        if (PyDict_SetItem(result.ptr(), name.ptr(), item.ptr()) != 0) {
            return made_of_bytes(nullptr);  // the key is not hashable
        }
    }
    if (PyDict_GET_SIZE(result.ptr()) != static_cast<Py_ssize_t>(count)) {
        raise_corrupt("a dict has the same key twice");
    }
    return result;
}

// is_watched: the sender can choose the key's hash.
nb::object Decoder::key(Reader& in, unsigned depth, bool& is_watched) {
    Reader ahead = in;
    Token token;
    if (ahead.next(token) && token.kind == Kind::Text) {
        in = ahead;
        return key_text(token.text());
    }
    is_watched = token.kind == Kind::Extension || token.kind == Kind::Real;
    return value(in, depth);
}

nb::object Decoder::extension(const Token& token, unsigned depth) {
    switch (token.extension) {
        case Extension::Tuple:
            return tuple(token.bytes, depth);
        case Extension::BigInt:
            return big_integer(token.bytes);
        case Extension::Complex:
            return complex_number(token.bytes);
        case Extension::SurrogateText:
            return text(token.text(), "surrogatepass");
        case Extension::ByteArray:
            return byte_array(token.bytes);
        case Extension::OutOfBand:
            return out_of_band(token.bytes);
        case Extension::Tensor:
            return tensor(token.bytes);
        case Extension::NumPyScalar:
            return decode_numpy_scalar(token.bytes);
        case Extension::DescribedScalar:
            return described_scalar(token.bytes);
        case Extension::Dataclass:
            return dataclass(token.bytes, depth);
    }
    raise_fault(Fault::UnknownExtension);
}

codec::TensorView Decoder::view(std::uint64_t index) {
    codec::TensorView found;
    if (const Fault fault = message_.tensor(index, found); fault != Fault::None) {
        raise_fault(fault);
    }
    if (const Fault fault = references_.add(found); fault != Fault::None) {
        raise_fault(fault);
    }
    return found;
}

nb::object Decoder::out_of_band(std::span<const std::byte> body) {
    Reader in(body);
    expect_pair(in);
    const std::uint64_t kind = expect_index(in);
    const codec::TensorView content = view(expect_index(in));
    if (kind > kKindByteArray || !in.at_end()) {
        raise_fault(Fault::BadExtension);
    }
    const std::size_t size = content.data.size();
    std::byte* to = nullptr;
    nb::object result = kind == kKindByteArray ? new_byte_array(size, to) : new_bytes(size, to);
    copy_payload(to, content.data.data(), size);
    return result;
}

nb::object Decoder::tensor(std::span<const std::byte> body) {
    std::uint64_t index = 0;
    std::span<const std::byte> descr;
    if (const Fault fault = codec::tensor_reference(body, index, descr); fault != Fault::None) {
        raise_fault(fault);
    }
    const codec::TensorView found = view(index);
    if (found.source == codec::Source::Torch) {
        if (nb::object tensor = decode_tensor(found, owner_); tensor.is_valid()) {
            return tensor;
        }
    }
    return decode_array(found, descr, owner_);
}

nb::object Decoder::dataclass(std::span<const std::byte> body, unsigned depth) {
    Reader in(body);
    Token token;
    expect_pair(in);
    expect(in, token, Kind::Text);
    const std::string name(token.text());
    const Dataclass* const entry = dataclass_named(name);
    if (entry == nullptr) {
        raise_incompatible("it holds the dataclass " + name +
                           ": register it here too, with penstock.codec.register_dataclass");
    }
    expect(in, token, Kind::Map);
    enter(depth);
    if (token.count != entry->fields.size()) {
        raise_incompatible("its dataclass " + name + " has other fields than the one here");
    }
    nb::object result = entry->blank();
    std::vector<bool> is_set(entry->fields.size());
    for (std::size_t i = 0; i < is_set.size(); ++i) {
        expect(in, token, Kind::Text);
        const std::size_t index = entry->index_of(token.text());
        if (index == Dataclass::kUnknown || is_set[index]) {
            raise_incompatible("its dataclass " + name + " has other fields than the one here");
        }
        is_set[index] = true;
        const nb::object field = value(in, depth + 1);
        // Not setattr: a frozen dataclass refuses it, and no code of the class may run.
        if (PyObject_GenericSetAttr(result.ptr(), entry->fields[index].ptr(), field.ptr()) != 0) {
            nb::raise_python_error();
        }
    }
    if (!in.at_end()) {
        raise_fault(Fault::Trailing);
    }
    return result;
}

}  // namespace penstock::py
