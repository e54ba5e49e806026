// Checks names before they become paths: the only check between a user's string and open(2).
#include "segment/life/name.hpp"

#include <algorithm>
#include <string_view>

#include "penstock/error.hpp"
#include "segment/text.hpp"

namespace penstock::detail {
namespace {

constexpr std::size_t kLongestName = 200;
constexpr std::string_view kPathPrefix = "file:";

bool is_allowed(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

[[noreturn]] void refuse(std::string_view name, const std::string& why) {
    throw Error(ErrorCode::InvalidName,
                "the name '" + printable(cut(name, kLongestName)) + "' can't be used: " + why +
                    "; names are 1 to 200 of the characters A-Z a-z 0-9 . _ -, "
                    "or file:/absolute/path");
}

Location locate_path(const std::string& name) {
    const std::string path = name.substr(kPathPrefix.size());
    if (path.size() < 2 || path[0] != '/' || path.back() == '/') {
        refuse(name, "after file: there must be an absolute path of a file");
    }
    if (path.find('\0') != std::string::npos) refuse(name, "it holds a zero byte");
    if (const std::string found = find_unprintable(path); !found.empty()) {
        refuse(name, "it holds the control or format character '" + found + "'");
    }
    if (name.size() > kLongestName) refuse(name, "it is longer than 200 characters");
    const auto slash = path.rfind('/');
    return {name, path, slash == 0 ? "/" : path.substr(0, slash)};
}

}  // namespace

Location locate(const std::string& name) {
    if (name.starts_with(kPathPrefix)) return locate_path(name);
    if (name.empty()) refuse(name, "it is empty");
    if (name.size() > kLongestName) refuse(name, "it is longer than 200 characters");
    const auto bad = std::find_if_not(name.begin(), name.end(), is_allowed);
    if (bad != name.end()) refuse(name, "it holds '" + printable({&*bad, 1}) + "'");
    return {name, std::string(kSharedMemoryDirectory) + "/" + kFilePrefix + name,
            kSharedMemoryDirectory};
}

std::string quoted(const std::string& name) {
    return name.empty() ? "an anonymous segment" : "'" + name + "'";
}

}  // namespace penstock::detail
