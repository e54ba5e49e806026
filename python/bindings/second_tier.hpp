// Options of a second tier from Python, and the check of fetched values by Python's codecs.
// Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>

#include "codec.hpp"
#include "penstock/second_tier.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Options of a penstock.SecondTier; nullopt for None.
std::optional<SecondTierOptions> parse_second_tier(nb::handle given);
// Checks, before other readers see the value, that it can be decoded. Throws nb::python_error for
// exceptions that are no Exception, such as KeyboardInterrupt, which end the call.
FetchResult check_fetched(const FetchedValue& value, Codec codec);

void bind_second_tier(nb::module_& module);

}  // namespace penstock::py
