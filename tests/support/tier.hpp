// The thoroughness of a test: short by default, full with --full or PENSTOCK_TEST_TIER=full. Tests
// that take minutes ask here, and report what they leave out in the short tier.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace penstock::trust {

inline bool is_full_tier(int argc, char** argv) {
    const char* tier = std::getenv("PENSTOCK_TEST_TIER");
    if (tier != nullptr && std::string_view(tier) == "full") return true;
    return std::any_of(argv, argv + argc,
                       [](const char* word) { return std::string_view(word) == "--full"; });
}

// Sanitizers slow everything down several times: bounds in time are for builds without them.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kIsSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kIsSanitized = true;
#else
inline constexpr bool kIsSanitized = false;
#endif
#else
inline constexpr bool kIsSanitized = false;
#endif

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kIsThreadSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kIsThreadSanitized = __has_feature(thread_sanitizer);
#else
inline constexpr bool kIsThreadSanitized = false;
#endif

}  // namespace penstock::trust
