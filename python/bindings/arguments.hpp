// Parsing of arguments that every concept has: names, sizes, timeouts, buffers.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "codec.hpp"
#include "penstock/segment.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Every argument arrives as a handle (nb::arg(...).none(), so that None arrives here too) and is
// read by one of these. A wrong type raises InvalidArgument, or for names InvalidName, that is also
// a TypeError; the sentence says what to pass, and nothing about bindings.
[[noreturn]] void raise_wrong_type(const char* what, const char* type, nb::handle given);

// A str, or a path object (os.PathLike), which names the `file:` segment at its absolute path.
std::string parse_name(nb::handle name);
// A str. `what` names the argument.
std::string parse_text(nb::handle text, const char* what);
bool parse_flag(nb::handle flag, const char* what);
// An int or a float, not NaN.
double parse_real(nb::handle number, const char* what);
std::int64_t parse_integer(nb::handle number, const char* what);

// An int from 0 to 2**64-1. `type` names other types that the argument may have.
std::uint64_t parse_natural(nb::handle number, const char* what, const char* type = "an int");

// A number of bytes, or a string such as "64MiB". InvalidArgument or TypeError otherwise; `what`
// names the argument in the sentence.
std::uint64_t parse_bytes(nb::handle size, const char* what);

// A number of readers, or a rank. InvalidArgument for impossible values, wrong types included.
unsigned parse_small(nb::handle number, const char* what);
// Seconds as an int or a float, for a bounded time. InvalidArgument for negative numbers and NaN,
// TypeError for other types; clamped to a century.
std::chrono::nanoseconds parse_seconds(nb::handle seconds, const char* what);
// "latency", "balanced" or "frugal"; InvalidArgument otherwise.
WaitPolicy parse_waiting(nb::handle waiting);
// None or "pickle"; InvalidArgument otherwise.
Codec parse_codec(nb::handle codec);
// None, a user's number or a user's name; InvalidArgument for an unknown user.
std::optional<std::uint32_t> parse_owner(nb::handle owner);
// Users whose segments may be attached to, by `owner=` and the codec that values are read with.
Trust parse_trust(nb::handle owner, Codec codec);

// The contents of a bytes object.
std::span<const std::byte> bytes_of(nb::handle bytes) noexcept;

// Contiguous memory of another Python object, pinned during this object's life.
class Pinned {
public:
    enum class Access { Read, Write };
    // InvalidArgument (also a TypeError) for objects without a buffer, BufferError for read-only or
    // scattered ones.
    Pinned(nb::handle object, Access access);
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    ~Pinned() { PyBuffer_Release(&buffer_); }

    [[nodiscard]] std::span<std::byte> bytes() const noexcept {
        return {static_cast<std::byte*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
    }

private:
    Py_buffer buffer_{};
};

// Copies; releases the GIL for copies that take longer than that costs.
void copy_bytes(std::byte* to, const std::byte* from, std::size_t nbytes);

// Size from which a copy lets other threads run.
inline constexpr std::size_t kLongCopy = std::size_t{64} << 10U;

}  // namespace penstock::py
