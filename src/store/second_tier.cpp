// Names of the enumerators of a second tier.
#include "penstock/second_tier.hpp"

namespace penstock {

std::string_view to_string(TierPolicy policy) noexcept {
    switch (policy) {
        case TierPolicy::WriteBack:
            return "write_back";
        case TierPolicy::WriteThrough:
            return "write_through";
        case TierPolicy::ReadOnly:
            return "read_only";
    }
    return "unknown";
}

std::string_view to_string(WhenFull when_full) noexcept {
    switch (when_full) {
        case WhenFull::Drop:
            return "drop";
        case WhenFull::Wait:
            return "wait";
    }
    return "unknown";
}

std::string_view to_string(CircuitState state) noexcept {
    switch (state) {
        case CircuitState::Closed:
            return "closed";
        case CircuitState::Partial:
            return "partial";
        case CircuitState::Open:
            return "open";
    }
    return "unknown";
}

}  // namespace penstock
