// Facts about a Linux host: stat, statfs, passwd, rlimits.
#include "os/host.hpp"

#include <fcntl.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>

namespace penstock::os {

bool is_directory(const std::string& path) noexcept {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool may_write_in(const std::string& directory) noexcept {
    return ::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
}

bool has_descriptor_paths() noexcept {
    return is_directory("/proc/self/fd");
}

std::optional<FileFacts> facts_at(const std::string& path) noexcept {
    constexpr unsigned kPermissions = 07777;
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
    return FileFacts{status.st_uid, status.st_mode & kPermissions};
}

bool FileFacts::allow_this_process() const noexcept {
    constexpr unsigned kOwnerReadsAndWrites = 0600;
    constexpr unsigned kAllReadAndWrite = 0006;
    if (current_user() == 0) return true;
    if (owner == current_user()) return (mode & kOwnerReadsAndWrites) == kOwnerReadsAndWrites;
    return (mode & kAllReadAndWrite) == kAllReadAndWrite;
}

std::uint32_t current_user() noexcept {
    return ::geteuid();
}

std::optional<std::uint32_t> find_user(const std::string& name) {
    std::array<char, 4096> buffer{};
    struct passwd entry{};
    struct passwd* found = nullptr;
    if (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
        found == nullptr) {
        return std::nullopt;
    }
    return found->pw_uid;
}

std::string describe_user(std::uint32_t user) {
    std::string text = "uid " + std::to_string(user);
    std::array<char, 4096> buffer{};
    struct passwd entry{};
    struct passwd* found = nullptr;
    if (::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
        text.append(" (").append(found->pw_name).append(")");
    }
    return text;
}

std::string file_system_at(const std::string& path) {
    struct statfs system{};
    if (::statfs(path.c_str(), &system) != 0) return "";
    // File systems on which shared memory is put, or tried; linux/magic.h lacks some of them.
    constexpr std::array<std::pair<std::uint32_t, const char*>, 14> kNames = {{
        {0x01021994, "tmpfs"},
        {0x858458f6, "ramfs"},
        {0x958458f6, "hugetlbfs"},
        {0x0000ef53, "ext4"},
        {0x58465342, "xfs"},
        {0x9123683e, "btrfs"},
        {0x794c7630, "overlay"},
        {0x00006969, "nfs"},
        {0x01021997, "9p"},
        {0x65735546, "fuse"},
        {0xff534d42, "cifs"},
        {0x00009fa0, "proc"},
        {0x62656572, "sysfs"},
        {0x00004d44, "vfat"},
    }};
    const auto type = static_cast<std::uint32_t>(system.f_type);
    for (const auto& [magic, name] : kNames) {
        if (magic == type) return name;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "type 0x%x", type);
    return text.data();
}

std::optional<std::uint64_t> limit_of(Limit limit) noexcept {
    constexpr std::array kResources = {RLIMIT_AS, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_MEMLOCK};
    struct rlimit found{};
    const auto resource = kResources[static_cast<std::size_t>(limit)];
    if (::getrlimit(resource, &found) != 0 || found.rlim_cur == RLIM_INFINITY) return std::nullopt;
    return found.rlim_cur;
}

}  // namespace penstock::os
