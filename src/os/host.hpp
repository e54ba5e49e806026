// Facts about machine and process that explain a refusal of the operating system. For error
// sentences only: each is queried anew, on cold paths, and may have changed since the refusal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace penstock::os {

bool is_directory(const std::string& path) noexcept;
// True if this process's user may create files there.
bool may_write_in(const std::string& directory) noexcept;
// True if descriptors can be reopened by path, which needs /proc.
bool has_descriptor_paths() noexcept;

struct FileFacts {
    std::uint32_t owner = 0;  // user id
    unsigned mode = 0;        // permission bits

    // Whether owner and mode let this process read and write the file; an ACL may allow more.
    [[nodiscard]] bool allow_this_process() const noexcept;
};
// Facts about `path` itself, not the target of a link; nothing if it can't be seen.
std::optional<FileFacts> facts_at(const std::string& path) noexcept;

std::uint32_t current_user() noexcept;
// The number of the user of that name; none if there is no such user.
std::optional<std::uint32_t> find_user(const std::string& name);
// "uid 1000 (alice)", or "uid 1000" if the user has no name.
std::string describe_user(std::uint32_t user);

// "tmpfs", "nfs", "type 0x1234"; empty if unknown.
std::string file_system_at(const std::string& path);

enum class Limit : std::uint8_t { AddressSpace, FileSize, OpenFiles, LockedMemory };
// This process's limit in bytes or files; none if it is unlimited.
std::optional<std::uint64_t> limit_of(Limit limit) noexcept;

}  // namespace penstock::os
