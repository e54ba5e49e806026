// Entry points of the codec: choose typed or pickle for a message, and bind both.
#include "codec.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "codec/references.hpp"
#include "codec_dataclass.hpp"
#include "codec_decode.hpp"
#include "codec_encode.hpp"
#include "codec_fault.hpp"
#include "codec_pickle.hpp"
#include "codec_refusal.hpp"
#include "codec_scratch.hpp"
#include "errors.hpp"

namespace penstock::py {
namespace {

// A private copy of a structure; short ones need no allocation.
class Snapshot {
public:
    explicit Snapshot(std::span<const std::byte> shared) : size_(shared.size()) {
        std::byte* to = short_;
        if (size_ > sizeof(short_)) {
            long_.reset(new std::byte[size_]);
            to = long_.get();
        }
        if (size_ > 0) {
            std::memcpy(to, shared.data(), size_);
        }
        bytes_ = to;
    }
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

    [[nodiscard]] std::span<const std::byte> bytes() const { return {bytes_, size_}; }

private:
    std::size_t size_;
    const std::byte* bytes_ = nullptr;
    std::unique_ptr<std::byte[]> long_;
    std::byte short_[1024];
};

[[noreturn]] void raise_unsupported(const Refusal& refusal) {
    raise_error("UnsupportedType",
                refusal.sentence() + "; codec=\"pickle\" on both sides admits every value",
                refusal.cause());
}

void check_alignment(const std::byte* data) {
    if (reinterpret_cast<std::uintptr_t>(data) % codec::kAlignment != 0) {
        raise_error(ErrorCode::InvalidArgument,
                    "cannot view the arrays of a message that is not 64-byte aligned");
    }
}

codec::MessageReader opened(std::span<const std::byte> data) {
    codec::MessageReader message;
    if (const codec::Fault fault = codec::open(data, message); fault != codec::Fault::None) {
        raise_fault(fault);
    }
    return message;
}

void require_pickle(Codec codec) {
    if (codec != Codec::Pickle) {
        raise_incompatible(
            "it is a pickle, which is only read where that was asked for: "
            "attach with codec=\"pickle\" if you trust the sender");
    }
}

Codec codec_named(std::optional<std::string_view> name) {
    if (!name || *name == "typed") {
        return Codec::Typed;
    }
    if (*name == "pickle") {
        return Codec::Pickle;
    }
    raise_error(ErrorCode::InvalidArgument,
                "codec must be 'typed' or 'pickle', not '" + std::string(*name) + "'");
}

nb::object decode_opened(const codec::MessageReader& message, std::size_t size, nb::handle owner,
                         Codec codec) {
    if (!message.is_pickle()) {
        const Snapshot structure(message.structure_bytes());
        return Decoder(message, size, owner).whole(structure.bytes());
    }
    require_pickle(codec);
    return decode_pickle(message, size, owner);
}

nb::bytes encode_to_bytes(nb::handle value, std::optional<std::string_view> codec) {
    const Encoded encoded = encode(value, codec_named(codec));
    nb::object bytes =
        nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(encoded.nbytes())));
    if (!bytes.is_valid()) {
        nb::raise_python_error();
    }
    encoded.write(reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes.ptr())));
    return nb::borrow<nb::bytes>(bytes);
}

nb::object decode_buffer(nb::handle buffer, bool copy, std::optional<std::string_view> codec) {
    const nb::object view = nb::steal(PyMemoryView_FromObject(buffer.ptr()));
    if (!view.is_valid()) {
        nb::raise_python_error();
    }
    const Py_buffer& bytes = *PyMemoryView_GET_BUFFER(view.ptr());
    return decode(static_cast<const std::byte*>(bytes.buf), static_cast<std::size_t>(bytes.len),
                  copy ? nb::object(nb::none()) : view, codec_named(codec));
}

}  // namespace

Encoded::Encoded(std::unique_ptr<Scratch, Release> scratch, Codec codec) noexcept
    : scratch_(std::move(scratch)), nbytes_(scratch_->message.nbytes()),
      wants_alignment_(scratch_->message.has_tensors()), codec_(codec) {}

Encoded::Encoded(Encoded&& other) noexcept = default;
Encoded& Encoded::operator=(Encoded&& other) noexcept = default;
Encoded::~Encoded() = default;

void Encoded::Release::operator()(Scratch* scratch) const noexcept {
    give_back_scratch(scratch);
}

void Encoded::write(std::byte* out) const noexcept {
    scratch_->message.write(out, codec_ == Codec::Pickle);
}

Encoded encode(nb::handle value, Codec codec) {
    std::unique_ptr<Scratch, Encoded::Release> scratch(take_scratch());
    Codec used = Codec::Typed;
    try {
        Encoder(*scratch).value(value);
    } catch (const Refusal& refusal) {
        if (codec == Codec::Typed) {
            raise_unsupported(refusal);
        }
        used = Codec::Pickle;
    }
    if (used == Codec::Pickle) {
        scratch->clear();
        encode_pickle(value, *scratch);
    }
    if (const codec::Fault fault = scratch->message.structure().fault();
        fault != codec::Fault::None) {
        raise_error(codec::error_code(fault),
                    "cannot encode the value: " + std::string(codec::sentence(fault)));
    }
    return {std::move(scratch), used};
}

nb::object decode(const std::byte* data, std::size_t size, nb::handle owner, Codec codec) {
    const codec::MessageReader message = opened({data, size});
    if (!owner.is_none() && message.tensors() > 0) {
        check_alignment(data);
    }
    return decode_opened(message, size, owner, codec);
}

nb::object decode_plain(std::span<const std::byte> message, Codec codec) {
    const codec::MessageReader reader = opened(message);
    if (reader.tensors() > 0) {
        return {};
    }
    return decode_opened(reader, message.size(), nb::none(), codec);
}

void check_message(std::span<const std::byte> message, Codec codec) {
    const codec::MessageReader opened_message = opened(message);
    if (!opened_message.is_pickle()) {
        // Any object serves as owner: nothing that is made here outlives this call.
        decode(message.data(), message.size(), nb::handle(Py_Ellipsis), codec);
        return;
    }
    require_pickle(codec);
    codec::TensorView buffer;
    codec::References references(opened_message, message.size());
    for (std::uint32_t i = 0; i < opened_message.tensors(); ++i) {
        codec::Fault fault = opened_message.tensor(i, buffer);
        if (fault == codec::Fault::None) {
            fault = references.add(buffer);
        }
        if (fault != codec::Fault::None) {
            raise_fault(fault);
        }
    }
}

void bind_codec(nb::module_& module) {
    module.def("codec_encode", &encode_to_bytes, nb::arg("value").none(),
               nb::arg("codec") = nb::none(),
               "The message that send(value) would put into shared memory.");
    module.def(
        "codec_decode", &decode_buffer, nb::arg("buffer"), nb::arg("copy") = true,
        nb::arg("codec") = nb::none(),
        "The value of a message. Without copy its arrays are views of the buffer, which must "
        "be 64-byte aligned.");
    module.def("register_dataclass", &register_dataclass, nb::arg("cls").none(),
               nb::arg("name") = nb::none(),
               "Lets instances of a dataclass be sent and received under its qualified name.");
    module.def("tensor_over_buffer", &tensor_over_buffer, nb::arg("buffer"), nb::arg("dtype"),
               nb::arg("shape"), "A PyTorch tensor over a buffer, without a copy.");
}

}  // namespace penstock::py
