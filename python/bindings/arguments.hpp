// Arguments that mean the same in every concept: sizes as people write them, buffers of bytes.
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

// Every argument comes as a handle (nb::arg(...).none(), so that None comes here too) and is read
// by one of these. What has the wrong type raises InvalidArgument that is a TypeError as well, or
// for names InvalidName that is one; the sentence says what to give, and never how it is bound.
[[noreturn]] void raise_wrong_type(const char* what, const char* type, nb::handle given);

// A str; or a path object (os.PathLike), which names the `file:` segment at its absolute path.
std::string parse_name(nb::handle name);
// A str. `what` names the argument.
std::string parse_text(nb::handle text, const char* what);
bool parse_flag(nb::handle flag, const char* what);
// An int or a float, not NaN.
double parse_real(nb::handle number, const char* what);
std::int64_t parse_integer(nb::handle number, const char* what);

// An int from 0 to 2**64-1. `type` says what else the argument may be.
std::uint64_t parse_natural(nb::handle number, const char* what, const char* type = "an int");

// An int of bytes, or a string such as "64MiB". InvalidArgument or TypeError otherwise; `what`
// names the argument in the sentence.
std::uint64_t parse_bytes(nb::handle size, const char* what);

// A count of readers, or a rank. InvalidArgument for what no such number can be, wrong types among
// them.
unsigned parse_small(nb::handle number, const char* what);
// Seconds as an int or a float, of something that can't last for ever. InvalidArgument for negative
// numbers and NaN, TypeError for what is no number; a century, at most.
std::chrono::nanoseconds parse_seconds(nb::handle seconds, const char* what);
// None or "pickle"; InvalidArgument otherwise.
Codec parse_codec(nb::handle codec);
// None, a user's number or a user's name; InvalidArgument for what is no user.
std::optional<std::uint32_t> parse_owner(nb::handle owner);
// Which users' segments may be attached to, by an `owner=` and what the values are read with.
Trust parse_trust(nb::handle owner, Codec codec);

// What a bytes object holds.
std::span<const std::byte> bytes_of(nb::handle bytes) noexcept;

// Memory of another Python object, pinned for as long as this exists. Contiguous.
class Pinned {
public:
    enum class Access { Read, Write };
    // InvalidArgument (and TypeError) for what has no buffer, BufferError for what is read-only or
    // scattered.
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

// Copies, without the GIL where that takes longer than letting it go.
void copy_bytes(std::byte* to, const std::byte* from, std::size_t nbytes);

// From here on a copy takes so long that other threads should run meanwhile.
inline constexpr std::size_t kLongCopy = std::size_t{64} << 10U;

}  // namespace penstock::py
