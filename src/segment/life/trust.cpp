// The check of a file's owner, and the parsing of users' names and numbers.
#include "segment/life/trust.hpp"

#include <charconv>

#include "os/host.hpp"

namespace penstock {
namespace detail {

void check_trust(const os::SharedFile& file, const Trust& trust, const std::string& start) {
    std::error_code error;
    const std::uint32_t owner = file.facts(error).owner;
    if (error) throw Error(ErrorCode::System, start + "can't be examined: " + error.message());
    if (owner == os::current_user()) return;
    const std::string foreign = "it belongs to another user, " + os::describe_user(owner);
    if (owner != trust.owner) {
        throw Error(ErrorCode::PermissionDenied,
                    start + foreign +
                        ", who could put anything into it; run as the user who made it, or, if "
                        "that user is to be trusted, name it as the owner (owner=" +
                        std::to_string(owner) + ")");
    }
    if (trust.runs_code) {
        throw Error(ErrorCode::PermissionDenied,
                    start + foreign +
                        ", and reading pickles would run that user's code; attach without "
                        "codec='pickle', or run as the user who made it");
    }
}

}  // namespace detail

std::uint32_t parse_user(const std::string& text) {
    if (const auto found = os::find_user(text)) return *found;
    std::uint32_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data(), end, number);
    constexpr std::uint32_t kNoUser = ~std::uint32_t{0};  // (uid_t) -1
    if (!text.empty() && stop == end && problem == std::errc() && number != kNoUser) {
        return number;
    }
    throw Error(ErrorCode::InvalidArgument,
                "there is no user '" + text + "' on this machine; give a user's name or number");
}

}  // namespace penstock
