// Values to bytes and back, for the bindings of every concept: encode and write into shared memory;
// or decode, as the receiver's own copy or as views that keep their owner alive.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace penstock::py {

namespace nb = nanobind;

// The codec chosen at create() or attach().
enum class Codec : std::uint8_t { Typed, Pickle };

struct Scratch;

// One encoded value. Keeps what it borrows (arrays, large bytes) alive and unresized. Made and
// destroyed with the GIL held.
class Encoded {
public:
    Encoded(Encoded&& other) noexcept;
    Encoded& operator=(Encoded&& other) noexcept;
    ~Encoded();

    [[nodiscard]] std::size_t nbytes() const noexcept { return nbytes_; }
    // The message carries tensors: `out` must be 64-byte aligned, and so must the message where it
    // is read.
    [[nodiscard]] bool wants_alignment() const noexcept { return wants_alignment_; }
    // The codec used: a Pickle side still sends typed values that the typed codec supports.
    [[nodiscard]] Codec codec() const noexcept { return codec_; }

    // Writes the message: nbytes() bytes. Touches no Python object, so needs no GIL.
    void write(std::byte* out) const noexcept;

private:
    friend Encoded encode(nb::handle value, Codec codec);
    struct Release {
        void operator()(Scratch* scratch) const noexcept;
    };
    Encoded(std::unique_ptr<Scratch, Release> scratch, Codec codec) noexcept;

    std::unique_ptr<Scratch, Release> scratch_;
    std::size_t nbytes_;
    bool wants_alignment_;
    Codec codec_;
};

// Raises UnsupportedType, naming the part of the value that the typed codec does not support.
Encoded encode(nb::handle value, Codec codec);

// Decodes the message at `data`. Without an owner (None) every array is a fresh, writable copy.
// With an owner arrays are read-only views of `data`, which must be 64-byte aligned if the message
// has any, and each keeps a reference to the owner. Raises Corrupt; Incompatible for a pickle if
// codec is Typed, and for a package or registration that is missing here.
nb::object decode(const std::byte* data, std::size_t size, nb::handle owner, Codec codec);

// The same without an owner, for a message without arrays and out-of-band payloads. An invalid
// object for any other message.
nb::object decode_plain(std::span<const std::byte> message, Codec codec);

// Raises what decode() would raise because of the message's bytes, or of a missing package or
// registration. Copies no arrays and loads no pickle.
void check_message(std::span<const std::byte> message, Codec codec);

// codec_encode, codec_decode, register_dataclass.
void bind_codec(nb::module_& module);

}  // namespace penstock::py
