// The options of a second tier as Python gives them, and what Python has to say of its values.
// Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>

#include "codec.hpp"
#include "penstock/second_tier.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Of a penstock.SecondTier; none of None.
std::optional<SecondTierOptions> parse_second_tier(nb::handle given);
// Whether a Python value can be made of it, before others see it. Throws nb::python_error, of what
// is no Exception but ends the call, as KeyboardInterrupt does.
FetchResult check_fetched(const FetchedValue& value, Codec codec);

void bind_second_tier(nb::module_& module);

}  // namespace penstock::py
