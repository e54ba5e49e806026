// The same errno means different things at different steps: ENOENT at attaching is a missing
// segment, at publication a missing /proc. So each step has its own rows.
#include "segment/life/refusal.hpp"

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
        case Step::Copy:
            return "can't examine " + title + ": ";
        default:
            return "can't create " + title + ": ";
    }
}

// The step's system call, for an errno that no row below explains.
const char* call_of(Step step) {
    switch (step) {
        case Step::Create:
            return "opening a new file (open, memfd_create)";
        case Step::Identify:
            return "drawing random numbers (getrandom, /dev/urandom)";
        case Step::Size:
            return "giving the file its size (ftruncate)";
        case Step::Seal:
            return "sealing the file (fcntl)";
        case Step::Reserve:
            return "reserving memory (fallocate)";
        case Step::Map:
            return "mapping the file (mmap)";
        case Step::Publish:
            return "giving the file its name (linkat)";
        case Step::Reopen:
            return "opening the file again (open of /proc/self/fd)";
        case Step::Attach:
        case Step::Examine:
            return "opening the file (open)";
        case Step::Copy:
            return "reading the file (pread)";
    }
    return "a system call";
}

bool is_forbidden(const Refused& refused) {
    return refused.is(std::errc::permission_denied) ||
           refused.is(std::errc::operation_not_permitted);
}

// The step and the system's error text, where no cause could be found.
Explanation explain_as_it_is(const Refused& refused) {
    const std::string failed = std::string(call_of(refused.step)) + " failed with errno " +
                               std::to_string(refused.error.value()) + " (" +
                               refused.error.message() + ")";
    if (!is_forbidden(refused) && !refused.is(std::errc::function_not_supported)) {
        return {ErrorCode::System, failed};
    }
    return {refused.is(std::errc::function_not_supported) ? ErrorCode::System
                                                          : ErrorCode::PermissionDenied,
            failed +
                "; neither owner nor mode forbid it, but a seccomp filter, a security module "
                "(SELinux, AppArmor) or an immutable file may"};
}

std::string mount_remedy(const std::string& directory) {
    return directory == kSharedMemoryDirectory
               ? "mount it (mount -t tmpfs -o mode=1777 tmpfs /dev/shm), " +
                     std::string(kOtherPlace)
               : "make it first";
}

// The process or machine has run out of descriptors, memory or names: the same at every step.
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

// The directory is missing, or no directory.
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

// The directory may not be written.
Explained explain_no_entry(const Refused& refused) {
    const std::string& directory = refused.location.directory;
    if (refused.is(std::errc::read_only_file_system)) {
        return Explanation{ErrorCode::PermissionDenied,
                           directory + " is mounted read-only; mount it writable, " + kOtherPlace};
    }
    if (is_forbidden(refused) && !os::may_write_in(directory)) {
        const bool is_shm = directory == kSharedMemoryDirectory;
        return Explanation{ErrorCode::PermissionDenied,
                           os::describe_user(os::current_user()) + " may not write in " +
                               directory + (is_shm ? "; chmod 1777 /dev/shm, " : "; allow it, ") +
                               kOtherPlace};
    }
    return std::nullopt;
}

// Memory, or a limit on file sizes.
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

// The file system lacks a feature that segments need.
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
    if (refused.is(std::errc::operation_not_permitted) && refused.location.path.empty()) {
        return Explanation{ErrorCode::Incompatible,
                           "it is sealed against writing (F_SEAL_WRITE), and who attaches writes"};
    }
    return explain_file_system(refused, "can't be mapped as shared memory");
}

// Owner and mode do not allow to open the file under the name.
Explained explain_mode(const Refused& refused) {
    const Location& location = refused.location;
    const auto facts = os::facts_at(location.path);
    if (!facts) {
        return Explanation{ErrorCode::PermissionDenied,
                           "this user may not look into " + location.directory};
    }
    if (facts->allow_this_process()) return std::nullopt;
    if (facts->owner != os::current_user()) {
        return Explanation{ErrorCode::PermissionDenied, "it belongs to another user, " +
                                                            os::describe_user(facts->owner) +
                                                            "; run as the user who made it"};
    }
    std::array<char, 8> mode{};
    std::snprintf(mode.data(), mode.size(), "%04o", facts->mode);
    return Explanation{ErrorCode::PermissionDenied,
                       "its mode is " + std::string(mode.data()) + "; chmod 600 " + location.path};
}

// The file under the name, or the descriptor, can't be opened.
Explained explain_opening(const Refused& refused) {
    const Location& location = refused.location;
    if (location.path.empty()) {
        if (auto found = explain_missing_proc(refused)) return found;
    }
    if (refused.is(std::errc::no_such_file_or_directory)) {
        return Explanation{ErrorCode::NotFound,
                           "there is no such segment; is its creator running, in the same "
                           "/dev/shm? (penstock ls)"};
    }
    if (is_forbidden(refused) && !location.path.empty()) return explain_mode(refused);
    if (refused.is(std::errc::operation_would_block)) {
        return Explanation{ErrorCode::Busy,
                           "a process has a lease on the file (fcntl F_SETLEASE) and would have to "
                           "give it up first; end that process, or choose another name"};
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

Explained explain_copy(const Refused& refused) {
    if (refused.is(std::errc::file_too_large)) {
        return Explanation{ErrorCode::TooLarge,
                           "its accounts have " + kib(refused.bytes) +
                               ", and of another user's not that much is copied; run as the user "
                               "who made it"};
    }
    return std::nullopt;
}

Explained explain_step(const Refused& refused) {
    switch (refused.step) {
        case Step::Copy:
            return explain_copy(refused);
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
        case Step::Identify:
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

void throw_refused(Step step, const Location& location, const std::error_code& error,
                   std::uint64_t bytes) {
    const Refused refused{step, location, error, bytes};
    Explained found = explain_scarcity(refused);
    if (!found) found = explain_directory(refused);
    if (!found) found = explain_step(refused);
    if (!found) found = explain_as_it_is(refused);
    // "could not reserve 48 KiB for 'x'" names the segment by itself.
    const bool is_whole = found->sentence.starts_with("could not");
    throw Error(found->code, is_whole ? found->sentence : what_failed(refused) + found->sentence);
}

}  // namespace penstock::detail
