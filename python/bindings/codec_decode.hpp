// From the structure of a message to a Python value.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>

#include "codec/references.hpp"
#include "codec_hashes.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Builds one value, depth first. The structure must be private memory, because CPython reads text
// twice; tensors may lie in shared memory. Raises Corrupt, Incompatible.
class Decoder {
public:
    // Owner: see decode() in codec.hpp. `bytes`: size of the whole message.
    Decoder(const codec::MessageReader& message, std::size_t bytes, nb::handle owner)
        : message_(message), references_(message, bytes), owner_(owner) {}

    // The one value in `structure`.
    nb::object whole(std::span<const std::byte> structure, unsigned depth = 0);

private:
    nb::object value(codec::Reader& in, unsigned depth);
    nb::object list(codec::Reader& in, std::size_t count, unsigned depth);
    nb::object dict(codec::Reader& in, std::size_t count, unsigned depth);
    nb::object key(codec::Reader& in, unsigned depth, bool& is_watched);
    void enter(unsigned depth) const;
    KeyHashes& hashes();
    nb::object extension(const codec::Token& token, unsigned depth);
    nb::object tuple(std::span<const std::byte> body, unsigned depth);
    nb::object out_of_band(std::span<const std::byte> body);
    nb::object tensor(std::span<const std::byte> body);
    nb::object dataclass(std::span<const std::byte> body, unsigned depth);
    codec::TensorView view(std::uint64_t index);

    const codec::MessageReader& message_;
    codec::References references_;
    nb::handle owner_;
    std::unique_ptr<KeyHashes> hashes_;  // made for the first dict that needs them
};

}  // namespace penstock::py
