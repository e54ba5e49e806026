// Facts about this machine and this process that explain a refusal of the operating system. For
// sentences only: each is asked anew, on cold paths, and by then may be another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace penstock::os {

bool is_directory(const std::string& path) noexcept;
// True if this process's user may make files there.
bool may_write_in(const std::string& directory) noexcept;
// True if descriptors can be opened anew by path: without /proc they can't.
bool has_descriptor_paths() noexcept;

struct FileFacts {
    std::uint32_t owner = 0;  // user id
    unsigned mode = 0;        // permission bits

    // Whether the owner and the mode let this process read and write it; an ACL may allow more.
    [[nodiscard]] bool allow_this_process() const noexcept;
};
// Of what lies at `path` itself, a link not followed; nothing if it can't be seen.
std::optional<FileFacts> facts_at(const std::string& path) noexcept;

std::uint32_t current_user() noexcept;
// The number of the user of that name; none where there is no such user.
std::optional<std::uint32_t> find_user(const std::string& name);
// "uid 1000 (alice)", or "uid 1000" where the user has no name.
std::string describe_user(std::uint32_t user);

// "tmpfs", "nfs", "type 0x1234"; empty if unknown.
std::string file_system_at(const std::string& path);

enum class Limit : std::uint8_t { AddressSpace, FileSize, OpenFiles, LockedMemory };
// This process's limit in bytes or files; none where there is no limit.
std::optional<std::uint64_t> limit_of(Limit limit) noexcept;

}  // namespace penstock::os
