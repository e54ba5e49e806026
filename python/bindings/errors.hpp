// Maps the library's Status and Error to the Python exception of the same name in
// penstock/errors.py. Every function here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <utility>

#include "penstock/error.hpp"

namespace penstock::py {

namespace nb = nanobind;

// The class of penstock.errors with this name. Borrowed; lives as long as the interpreter.
nb::handle error_class(const char* name);

// Raises penstock.errors.<name>(sentence), with `cause` as its __cause__ if given.
[[noreturn]] void raise_error(const char* name, const std::string& sentence, nb::object cause = {});
[[noreturn]] void raise_error(ErrorCode code, const std::string& sentence);
[[noreturn]] void raise_error(const Status& failure);

// Raises unless the status is ok.
void check(const Status& status);

// Stores the value in its target, and returns the failure if there is none.
template <typename T>
Status store(Result<T>&& result, std::optional<T>& place) {
    if (result.is_ok()) {
        place.emplace(*std::move(result));
        return Status::ok();
    }
    return result.status();
}

// The error for calling a bound class itself: says how its objects are made. The last overload of
// each public constructor.
[[noreturn]] void raise_not_by_hand(nb::handle type);
template <typename Class>
void refuse_construction(Class* /*place*/, const nb::args& /*unused*/,
                         const nb::kwargs& /*unused*/) {
    raise_not_by_hand(nb::type<Class>());
}

// Translates every penstock::Error that leaves a binding into the exception of its code.
void bind_errors(nb::module_& module);

}  // namespace penstock::py
