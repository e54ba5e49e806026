// Files that processes share memory through: created in private, published under a name in one
// step, reserved before memory is promised, and locked byte by byte as evidence of life.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include "os/descriptor.hpp"
#include "os/pages.hpp"

namespace penstock::os {

class Mapping;

// Owns a descriptor opened with O_CLOEXEC that carries locks; closed in every forked child. Not
// thread-safe. If the program has closed the descriptor and uses its number for a file of its own,
// that file is left alone: changes fail with std::errc::bad_file_descriptor or do nothing, and no
// participant is found dead.
class SharedFile {
public:
    SharedFile() noexcept = default;
    SharedFile(SharedFile&& other) noexcept;
    SharedFile& operator=(SharedFile&& other) noexcept;
    ~SharedFile();

    // A new file in `directory` that no other process can see yet; mode 0600 whatever the umask.
    static SharedFile create_private(const std::string& directory, std::error_code& error);
    // A new file without a name (memfd); `label` shows in /proc.
    static SharedFile create_anonymous(const std::string& label, std::error_code& error);
    enum class Access { Read, ReadWrite };
    // An existing file. Refuses anything but a regular file without opening it: opening a fifo
    // would wait, and a device might act. Does not wait for another process's lease on the file.
    static SharedFile open(const std::string& path, std::error_code& error,
                           Access access = Access::ReadWrite);
    // A new description of the file behind `descriptor` (locks belong to descriptions).
    static SharedFile reopen(int descriptor, std::error_code& error);

    [[nodiscard]] bool is_open() const noexcept { return own_.is_open(); }
    [[nodiscard]] int descriptor() const noexcept { return own_.number; }
    // Whether the descriptor is still the one that was opened; 0.1 us. Any thread.
    [[nodiscard]] bool is_ours() const noexcept { return own_.is_marked(); }
    void close() noexcept;
    // Forgets the descriptor without closing it: in a forked child it is closed already.
    void abandon() noexcept { own_ = {}; }

    // Links a private file to its name; std::errc::file_exists if the name is taken.
    [[nodiscard]] std::error_code publish(const std::string& path);
    // Forbids growing and shrinking an anonymous file, so that no peer can cause a SIGBUS.
    [[nodiscard]] std::error_code seal_size() noexcept;
    // True if no process can ever make it shorter.
    [[nodiscard]] bool is_sealed_against_shrinking() const noexcept;

    // std::errc::file_too_large beyond this process's limit (RLIMIT_FSIZE), without its signal.
    [[nodiscard]] std::error_code set_size(std::uint64_t bytes) noexcept;
    // std::errc::no_space_on_device if the file system or the machine surely lacks the memory by
    // which the file would grow to `bytes`.
    [[nodiscard]] std::error_code check_room(std::uint64_t bytes) const noexcept;
    // Reserves memory for those parts of a range within the size that have none, all or nothing;
    // std::errc::no_space_on_device if there is too little. `goes_on`, if given, is called after
    // every 16 MiB; false ends it with std::errc::operation_canceled.
    [[nodiscard]] std::error_code reserve(std::uint64_t offset, std::uint64_t bytes,
                                          const std::function<bool()>& goes_on = {}) noexcept;
    // The writable mapping of the file from `offset` on. Must outlive the calls of punch().
    void note_mapping(const Mapping& mapping, std::uint64_t offset) noexcept;
    // Gives the memory of a range back; it reads as zeros until reserved again. Inside the noted
    // mapping this needs no descriptor, which another thread could be closing: only this file can
    // lose memory.
    [[nodiscard]] std::error_code punch(std::uint64_t offset, std::uint64_t bytes) noexcept;

    struct Facts {
        std::uint64_t size = 0;
        std::uint64_t reserved = 0;  // memory it takes now
        std::uint64_t links = 0;     // 0: unlinked (always 0 for anonymous files)
        std::uint64_t inode = 0;
        std::uint64_t device = 0;
        std::uint32_t owner = 0;  // user id
    };
    [[nodiscard]] Facts facts(std::error_code& error) const noexcept;

    // Copies bytes of the file without mapping it; false if the file is too short.
    [[nodiscard]] bool read(std::uint64_t offset, void* out, std::size_t bytes) const noexcept;
    // Writes bytes within the size without mapping the file, in one step; false on failure.
    [[nodiscard]] bool write(std::uint64_t offset, const void* from, std::size_t bytes) noexcept;
    // As read(), into zeroed memory, for a range that is mostly holes, which cost nothing.
    // std::errc::file_too_large: the range has more than `most` bytes of data; std::errc::io_error:
    // the file ends before the range does.
    [[nodiscard]] std::error_code read_sparse(std::uint64_t offset, std::byte* out,
                                              std::uint64_t bytes,
                                              std::uint64_t most) const noexcept;

    // Locks one byte for this file's description. False: another description holds it. The kernel
    // releases the locks with the description's last descriptor, however the process ended.
    bool try_lock(std::uint64_t byte) noexcept;
    bool try_lock_shared(std::uint64_t byte) noexcept;
    void unlock(std::uint64_t byte) noexcept;
    // True if another description holds a write lock on the byte, or if that is unknown. About 0.3
    // us.
    [[nodiscard]] bool is_locked_by_other(std::uint64_t byte) const noexcept;

private:
    bool lock_own(std::uint64_t byte, short type) noexcept;
    explicit SharedFile(const OwnDescriptor& own) noexcept : own_(own) {}
    static SharedFile with_mode(SharedFile file, std::error_code& error) noexcept;
    OwnDescriptor own_;
    std::byte* mapped_ = nullptr;  // see note_mapping()
    std::uint64_t mapped_offset_ = 0;
    std::uint64_t mapped_bytes_ = 0;
    std::string private_path_;  // of a private file, without O_TMPFILE
};

// A range of a SharedFile in this process's addresses. Not inherited by forked children, not part
// of core dumps.
class Mapping {
public:
    Mapping() noexcept = default;
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    enum class Access { Read, ReadWrite };
    // From 64 KiB on the address is aligned as `offset` is, up to 2 MiB or a huge page.
    static Mapping map(const SharedFile& file, std::uint64_t offset, std::uint64_t bytes,
                       Access access, std::error_code& error);

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    // Forgets the range without unmapping it: in a forked child the addresses may have another use.
    void abandon() noexcept { data_ = nullptr; }

    // Asks for huge pages where pages are made from now on: a file system may give them on request.
    [[nodiscard]] std::error_code use_huge_pages() noexcept;
    // Makes each huge page that lies whole within the range and in which the file has a page: moves
    // the pages there, also those in use, and fills the holes. 0.15 ms for each MiB of holes, 1 to
    // 4 ms for each MiB of pages. Ends at the first that can't be made: not_enough_memory,
    // device_or_resource_busy (the cgroup's limit), invalid_argument (the file has no page there;
    // or not for this file, on this machine or before Linux 6.1). Passes pages that the kernel
    // holds, and then returns resource_unavailable_try_again.
    [[nodiscard]] std::error_code collapse(std::uint64_t offset, std::uint64_t bytes) noexcept;
    // Faults a reserved range in, writable or readable. For the creator, before publication: before
    // Linux 5.14 every page is touched instead, which raises SIGBUS where none is reserved, and
    // overwrites concurrent writes of other processes.
    [[nodiscard]] std::error_code populate(std::uint64_t offset, std::uint64_t bytes) noexcept;
    [[nodiscard]] std::error_code populate_to_read(std::uint64_t offset,
                                                   std::uint64_t bytes) noexcept;
    // For any process: maps only pages that the file has already, so that it takes no more memory.
    // Offsets and sizes in whole pages. std::errc::invalid_argument before Linux 5.14.
    [[nodiscard]] std::error_code populate_present(std::uint64_t offset, std::uint64_t bytes,
                                                   Access access) noexcept;
    [[nodiscard]] std::error_code lock_in_memory(std::uint64_t offset,
                                                 std::uint64_t bytes) noexcept;
    [[nodiscard]] std::error_code bind_to_node(int node) noexcept;

private:
    std::byte* data_ = nullptr;
    std::uint64_t size_ = 0;
};

struct Space {
    std::uint64_t total = 0;
    std::uint64_t available = 0;
};
// Free and total space of the file system that holds `path`.
Space space_at(const std::string& path, std::error_code& error) noexcept;

// Names in a directory that start with `prefix`; returned without it.
std::vector<std::string> list_names(const std::string& directory, const std::string& prefix);

// Removes `path` if it still names the file behind `file`; true if it did. Also removes hard links
// of the file in the same directory, which would keep its memory unnoticed.
bool unlink_if_same(const std::string& path, const SharedFile& file) noexcept;

// Random bytes from the kernel. The error is getrandom(2)'s, if /dev/urandom can't be read either.
[[nodiscard]] std::error_code fill_random(std::byte* out, std::size_t bytes) noexcept;

}  // namespace penstock::os
