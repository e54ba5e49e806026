// Dataclasses registered for sending and receiving, by name.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::py {

namespace nb = nanobind;

struct Dataclass {
    nb::object type;
    std::string name;                // on the wire
    std::vector<nb::object> fields;  // interned names
    std::vector<std::string> wire_fields;

    static constexpr std::size_t kUnknown = static_cast<std::size_t>(-1);
    [[nodiscard]] std::size_t index_of(std::string_view field) const noexcept;
    // An object with no fields set; __init__ is not called.
    [[nodiscard]] nb::object blank() const;
};

// None or an empty name means the qualified name. Replaces a class of the same name, as happens
// when a notebook's cell is run again.
void register_dataclass(const nb::object& type, nb::handle name);

// Null if there is none.
const Dataclass* dataclass_of(nb::handle value) noexcept;
const Dataclass* dataclass_named(std::string_view name) noexcept;

}  // namespace penstock::py
