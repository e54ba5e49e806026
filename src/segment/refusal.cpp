// The same errno means different things at different steps: ENOENT of an attach is a missing
// segment, of a publication a missing /proc. Each step therefore has its own rows.
#include "segment/refusal.hpp"

#include <array>
#include <optional>

#include "os/host.hpp"
#include "os/shared_file.hpp"
#include "penstock/error.hpp"

namespace penstock::detail {
namespace {

struct Explanation {
    ErrorCode code;
    std::string sentence;
};
using Explained = std::optional<Explanation>;

struct Refused {
    Step step;
    const Location& location;
    const std::error_code& error;
    std::uint64_t bytes;

    [[nodiscard]] bool is(std::errc condition) const { return error == condition; }
    [[nodiscard]] bool is_opening() const { return step == Step::Attach || step == Step::Examine; }
};

constexpr const char* kOtherPlace = "or use a name file:/path on a file system that can be written";

std::string kib(std::uint64_t bytes) {
    return std::to_string((bytes + 1023) >> 10U) + " KiB";
}

std::string what_failed(const Refused& refused) {
    const std::string title = title_of(refused.location);
    switch (refused.step) {
        case Step::Map:
            return "can't map " + title + " into this process: ";
        case Step::Reopen:
            return "can't open " + title + " a second time: ";
        case Step::Attach:
            return "can't attach to " + title + ": ";
        case Step::Examine:
            return "can't examine " + title + ": ";
        default:
            return "can't create " + title + ": ";
    }
}

std::string mount_remedy(const std::string& directory) {
    return directory == kSharedMemoryDirectory
               ? "mount it (mount -t tmpfs -o mode=1777 tmpfs /dev/shm), " +
                     std::string(kOtherPlace)
               : "make it first";
}

// A descriptor, memory or a name that this process or machine has no more of: the same everywhere.
Explained explain_scarcity(const Refused& refused) {
    if (refused.is(std::errc::too_many_files_open)) {
        const auto limit = os::limit_of(os::Limit::OpenFiles);
        const std::string number = limit ? " (" + std::to_string(*limit) + ")" : "";
        return Explanation{ErrorCode::System, "this process has as many files open as it may" +
                                                  number + "; close some, or raise `ulimit -n`"};
    }
    if (refused.is(std::errc::too_many_files_open_in_system)) {
        return Explanation{ErrorCode::System,
                           "this machine has as many files open as it may; raise fs.file-max"};
    }
    if (refused.is(std::errc::filename_too_long)) {
        return Explanation{ErrorCode::InvalidName, "its path is longer than the file system takes"};
    }
    if (refused.is(std::errc::not_enough_memory) && refused.step != Step::Map) {
        return Explanation{ErrorCode::NoSpace, "the kernel has no memory left for it"};
    }
    return std::nullopt;
}

// The directory is not there, or not a directory.
Explained explain_directory(const Refused& refused) {
    const std::string& directory = refused.location.directory;
    const bool is_missing = refused.is(std::errc::no_such_file_or_directory);
    if ((!is_missing && !refused.is(std::errc::not_a_directory)) || directory.empty() ||
        os::is_directory(directory)) {
        return std::nullopt;
    }
    return Explanation{ErrorCode::NotFound, "the directory " + directory +
                                                (is_missing ? " is not there; " : " is none; ") +
                                                mount_remedy(directory)};
}

Explained explain_missing_proc(const Refused& refused) {
    if (!refused.is(std::errc::no_such_file_or_directory) || os::has_descriptor_paths()) {
        return std::nullopt;
    }
    return Explanation{ErrorCode::System,
                       "/proc is not mounted, and a segment gets its name and its second "
                       "descriptor through /proc/self/fd; mount it (mount -t proc proc /proc)"};
}

// Writing into the directory is refused.
Explained explain_no_entry(const Refused& refused) {
    const std::string& directory = refused.location.directory;
    if (refused.is(std::errc::read_only_file_system)) {
        return Explanation{ErrorCode::PermissionDenied,
                           directory + " is mounted read-only; mount it writable, " + kOtherPlace};
    }
    if (refused.is(std::errc::permission_denied) ||
        refused.is(std::errc::operation_not_permitted)) {
        const bool is_shm = directory == kSharedMemoryDirectory;
        return Explanation{ErrorCode::PermissionDenied,
                           os::describe_user(os::current_user()) + " may not write in " +
                               directory + (is_shm ? "; chmod 1777 /dev/shm, " : "; allow it, ") +
                               kOtherPlace};
    }
    return std::nullopt;
}

// Memory, or the size of a file.
Explained explain_no_room(const Refused& refused) {
    if (refused.is(std::errc::no_space_on_device) || refused.error.value() == EDQUOT) {
        return Explanation{ErrorCode::NoSpace, "could not reserve " + kib(refused.bytes) + " for " +
                                                   title_of(refused.location) +
                                                   space_sentence(refused.location)};
    }
    if (refused.is(std::errc::file_too_large)) {
        const auto limit = os::limit_of(os::Limit::FileSize);
        return Explanation{
            ErrorCode::NoSpace,
            kib(refused.bytes) + " are more than a file may have here" +
                (limit ? " (ulimit -f: " + kib(*limit) + "); raise the limit, or " : "; ") +
                "ask for less"};
    }
    return std::nullopt;
}

// The file system lacks something that a segment needs.
Explained explain_file_system(const Refused& refused, const char* lack) {
    const bool is_lacking =
        refused.is(std::errc::not_supported) || refused.is(std::errc::operation_not_supported) ||
        refused.is(std::errc::function_not_supported) || refused.is(std::errc::no_such_device);
    if (!is_lacking || refused.location.directory.empty()) return std::nullopt;
    return Explanation{ErrorCode::Incompatible,
                       "the file system of " + refused.location.directory + " (" +
                           os::file_system_at(refused.location.directory) + ") " + lack +
                           "; a tmpfs does (mount -t tmpfs tmpfs " + refused.location.directory +
                           "), " + kOtherPlace};
}

Explained explain_mapping(const Refused& refused) {
    if (refused.is(std::errc::not_enough_memory)) {
        const auto limit = os::limit_of(os::Limit::AddressSpace);
        const std::string why =
            limit ? "they are limited to " + kib(*limit) +
                        " (ulimit -v), and what can be read and written is mapped twice; raise the "
                        "limit, or create it smaller (capacity=, large=)"
                  : "the kernel gives no more of them (vm.max_map_count, vm.overcommit_memory); "
                    "create it smaller (capacity=, large=), or use fewer";
        return Explanation{
            ErrorCode::NoSpace,
            "this process has no room for " + kib(refused.bytes) + " more of addresses: " + why};
    }
    if (refused.is(std::errc::resource_unavailable_try_again)) {
        return Explanation{ErrorCode::NoSpace,
                           "what this process maps is locked in memory (mlockall), and `ulimit -l` "
                           "does not allow that much"};
    }
    return explain_file_system(refused, "can't be mapped as shared memory");
}

// What lies under the name can't be opened.
Explained explain_opening(const Refused& refused) {
    const Location& location = refused.location;
    if (refused.is(std::errc::no_such_file_or_directory)) {
        return Explanation{ErrorCode::NotFound,
                           "there is no such segment; is its creator running, in the same "
                           "/dev/shm? (penstock ls)"};
    }
    if (refused.is(std::errc::permission_denied) ||
        refused.is(std::errc::operation_not_permitted)) {
        const std::string owner = foreign_owner(location);
        const auto facts = os::facts_at(location.path);
        std::array<char, 8> mode{};
        if (facts) std::snprintf(mode.data(), mode.size(), "%04o", facts->mode);
        const std::string own =
            facts ? "its mode is " + std::string(mode.data()) + "; chmod 600 " + location.path
                  : "this user may not look into " + location.directory;
        return Explanation{ErrorCode::PermissionDenied,
                           owner.empty() ? own : "it " + owner + "; run as the user who made it"};
    }
    if (refused.is(std::errc::read_only_file_system)) {
        return Explanation{ErrorCode::PermissionDenied,
                           location.directory +
                               " is mounted read-only, and who attaches writes (its place, its "
                               "position); mount it writable"};
    }
    if (refused.is(std::errc::not_supported) || refused.is(std::errc::is_a_directory) ||
        refused.is(std::errc::too_many_symbolic_link_levels) ||
        refused.is(std::errc::no_such_device_or_address)) {
        return Explanation{ErrorCode::Incompatible, "it is not a regular file"};
    }
    if (refused.is(std::errc::bad_file_descriptor)) {
        return Explanation{ErrorCode::InvalidArgument, "the descriptor is not open"};
    }
    return std::nullopt;
}

Explained explain_step(const Refused& refused) {
    switch (refused.step) {
        case Step::Create:
            if (auto found = explain_no_room(refused)) return found;
            return explain_no_entry(refused);
        case Step::Publish:
            if (auto found = explain_missing_proc(refused)) return found;
            return explain_no_entry(refused);
        case Step::Size:
        case Step::Reserve:
            if (auto found = explain_no_room(refused)) return found;
            return explain_file_system(refused, "can't reserve memory (no fallocate)");
        case Step::Map:
            return explain_mapping(refused);
        case Step::Reopen:
            return explain_missing_proc(refused);
        case Step::Attach:
        case Step::Examine:
            return explain_opening(refused);
        case Step::Seal:
            break;
    }
    return std::nullopt;
}

}  // namespace

std::string title_of(const Location& location) {
    return location.path.empty() ? "the anonymous segment" : "'" + location.name + "'";
}

std::string space_sentence(const Location& location) {
    if (location.directory.empty()) return "";
    std::error_code error;
    const os::Space space = os::space_at(location.directory, error);
    if (error) return "";
    return "; " + location.directory + " has " + std::to_string(space.available >> 10U) +
           " KiB free of " + std::to_string(space.total >> 10U) +
           " KiB: ask for less, remove what the dead left (penstock gc), or enlarge it (in "
           "containers: docker run --shm-size=1g)";
}

std::string foreign_owner(const Location& location) {
    const auto facts = os::facts_at(location.path);
    if (!facts || facts->owner == os::current_user()) return "";
    return "belongs to another user, " + os::describe_user(facts->owner);
}

void throw_refused(Step step, const Location& location, const std::error_code& error,
                   std::uint64_t bytes) {
    const Refused refused{step, location, error, bytes};
    Explained found = explain_scarcity(refused);
    if (!found) found = explain_directory(refused);
    if (!found) found = explain_step(refused);
    if (!found) found = Explanation{ErrorCode::System, error.message()};
    // "could not reserve 48 KiB for 'x'" names the segment by itself.
    const bool is_whole = found->sentence.starts_with("could not");
    throw Error(found->code, is_whole ? found->sentence : what_failed(refused) + found->sentence);
}

}  // namespace penstock::detail
