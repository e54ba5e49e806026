// Statistics as Python objects: frozen dataclasses that follow from the tables of
// penstock/statistics.hpp, each field with its docstring. Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <type_traits>

#include "penstock/statistics.hpp"
#include "penstock/store.hpp"
#include "text.hpp"

namespace penstock::py {

// The class of a struct; the module owns it.
template <typename Stats>
inline nb::handle statistics_class;

// A number, text, choice, optional, vector, struct of statistics, or what is Python's already.
template <typename Value>
nb::object to_python(const Value& value) {
    if constexpr (std::is_base_of_v<Statistics, Value>) {
        nb::list values;
        Value::for_each([&](const auto& row) { values.append(to_python(value.*row.member)); });
        return statistics_class<Value>(*values);
    } else if constexpr (std::is_base_of_v<nb::handle, Value>) {
        return nb::borrow(value);
    } else if constexpr (std::is_same_v<Value, std::string>) {
        return to_text(value);
    } else if constexpr (std::is_enum_v<Value>) {
        return to_text(to_string(value));
    } else if constexpr (requires { value.has_value(); }) {
        return value ? to_python(*value) : nb::none();
    } else if constexpr (requires { value.size(); }) {
        nb::list list;
        for (const auto& item : value) {
            list.append(to_python(item));
        }
        return list;
    } else {
        return nb::cast(value);
    }
}

void bind_statistics(nb::module_& module);

}  // namespace penstock::py
