// From a Status or Error of the library to the Python exception of the same name.
// The classes are those of penstock/errors.py; every function here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <utility>

#include "penstock/error.hpp"

namespace penstock::py {

namespace nb = nanobind;

// The class of penstock.errors that bears this name. Borrowed; it lives as long as the interpreter.
nb::handle error_class(const char* name);

// Raises penstock.errors.<name>(sentence).
// With `cause` as the exception that it came from, if there is one.
[[noreturn]] void raise_error(const char* name, const std::string& sentence, nb::object cause = {});
[[noreturn]] void raise_error(ErrorCode code, const std::string& sentence);
[[noreturn]] void raise_error(const Status& failure);

// Does nothing if the status is ok.
void check(const Status& status);

// Puts the value where it is wanted, and gives back the failure if there is none.
template <typename T>
Status store(Result<T>&& result, std::optional<T>& place) {
    if (result.is_ok()) {
        place.emplace(*std::move(result));
        return Status::ok();
    }
    return result.status();
}

// How objects of a bound class come into being: for users that call the class itself.
// The last overload of each public constructor.
[[noreturn]] void raise_not_by_hand(nb::handle type);
template <typename Class>
void refuse_construction(Class* /*place*/, const nb::args& /*unused*/,
                         const nb::kwargs& /*unused*/) {
    raise_not_by_hand(nb::type<Class>());
}

// Makes every penstock::Error that leaves a binding the Python exception of its code.
void bind_errors(nb::module_& module);

}  // namespace penstock::py
