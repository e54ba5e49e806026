// Shared files on Linux: O_TMPFILE and linkat, memfd, fallocate, open-file-description locks.
#include "os/shared_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>

#include "os/addresses.hpp"
#include "os/fork.hpp"
#include "os/host.hpp"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; older C libraries lack the name
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // the same
#endif

namespace penstock::os {
namespace {

std::error_code last_error() noexcept {
    return {errno, std::generic_category()};
}

std::error_code outcome(int result) noexcept {
    return result == 0 ? std::error_code{} : last_error();
}

std::string own_descriptor_path(int descriptor) {
    return "/proc/self/fd/" + std::to_string(descriptor);
}

bool set_lock(int descriptor, short type, std::uint64_t byte) noexcept {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(byte);
    lock.l_len = 1;
    return ::fcntl(descriptor, F_OFD_SETLK, &lock) == 0;
}

bool is_regular(int descriptor) noexcept {
    struct stat status{};
    return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

// Closes without touching errno.
void close_quietly(int descriptor) noexcept {
    const int before = errno;
    ::close(descriptor);
    errno = before;
}

int refuse(int error) noexcept {
    errno = error;
    return -1;
}

// Both return a descriptor, or -1 with errno set. O_NONBLOCK: another process's lease on the file
// fails with EWOULDBLOCK instead of a wait of 45 seconds; for regular files it has no other effect.
int reopen_regular(int descriptor, int access) {
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return -1;
    if (!S_ISREG(status.st_mode)) return refuse(EOPNOTSUPP);
    return ::open(own_descriptor_path(descriptor).c_str(), access | O_CLOEXEC | O_NONBLOCK);
}

int open_regular(const char* path, int access) {
    // O_PATH does not open the file itself, and keeps referring to the same file until that is
    // opened.
    const int found = ::open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (found < 0) return -1;
    int own = reopen_regular(found, access);
    close_quietly(found);
    if (own >= 0 || errno != ENOENT || has_descriptor_paths()) return own;
    // Without /proc: a file that is not regular is opened without waiting, and closed again.
    own = ::open(path, access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (own < 0 || is_regular(own)) return own;
    ::close(own);
    return refuse(EOPNOTSUPP);
}

// Making a file longer than RLIMIT_FSIZE raises SIGXFSZ, which kills. During this object's life the
// signal is blocked in this thread, and one raised meanwhile is discarded.
class FileSizeSignal {
public:
    FileSizeSignal() noexcept {
        sigset_t pending;
        was_pending_ = ::sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 1;
        sigemptyset(&own_);
        sigaddset(&own_, SIGXFSZ);
        ::pthread_sigmask(SIG_BLOCK, &own_, &before_);
    }
    FileSizeSignal(const FileSizeSignal&) = delete;
    FileSizeSignal& operator=(const FileSizeSignal&) = delete;
    ~FileSizeSignal() {
        const int error = errno;
        constexpr struct timespec kNow{};
        while (!was_pending_ && ::sigtimedwait(&own_, nullptr, &kNow) < 0 && errno == EINTR) {
        }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        errno = error;
    }

private:
    sigset_t own_{};
    sigset_t before_{};
    bool was_pending_ = false;
};

// Searching for data moves the offset, which is the descriptor's mark.
struct MarkAgain {
    explicit MarkAgain(const OwnDescriptor& descriptor) noexcept : own(descriptor) {}
    MarkAgain(const MarkAgain&) = delete;
    MarkAgain& operator=(const MarkAgain&) = delete;
    ~MarkAgain() { own.mark_again(); }
    const OwnDescriptor& own;
};

// False, with errno set, for bytes that getrandom(2) can't give now.
bool get_random(std::byte*& out, std::size_t& bytes) noexcept {
    while (bytes > 0) {
        const ssize_t got = ::getrandom(out, bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return false;
        out += got;
        bytes -= static_cast<std::size_t>(got);
    }
    return true;
}

bool read_whole(int descriptor, std::byte* out, std::size_t bytes) noexcept {
    while (bytes > 0) {
        const ssize_t got = ::read(descriptor, out, bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        out += got;
        bytes -= static_cast<std::size_t>(got);
    }
    return true;
}

constexpr mode_t kMode = 0600;  // of every segment
constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

// The kernel's estimate of memory available without killing a process.
std::uint64_t available_memory() {
    std::ifstream file("/proc/meminfo");
    std::uint64_t kilobytes = 0;
    std::uint64_t sum = 0;
    for (std::string key, unit; file >> key >> kilobytes; std::getline(file, unit)) {
        if (key == "MemAvailable:" || key == "SwapFree:") sum += kilobytes;
    }
    return sum == 0 ? kNoLimit : sum << 10U;
}

// Upper bound for the growth of a file: free space of its file system and, if that is in memory,
// the machine's available memory. A tmpfs may promise more than there is.
std::uint64_t most_available(int descriptor) noexcept {
    struct statfs system{};
    if (::fstatfs(descriptor, &system) != 0) return kNoLimit;
    const std::uint64_t room = system.f_blocks == 0
                                   ? kNoLimit
                                   : static_cast<std::uint64_t>(system.f_bavail) *
                                         static_cast<std::uint64_t>(system.f_bsize);
    if (system.f_type != TMPFS_MAGIC) return room;
    try {
        return std::min(room, available_memory());
    } catch (...) {
        return room;
    }
}

// Whether the file may grow from `reserved` to `bytes` of memory.
std::error_code check_growth(int descriptor, std::uint64_t reserved, std::uint64_t bytes) noexcept {
    constexpr std::uint64_t kWorthAsking = std::uint64_t{1} << 20U;
    const bool is_too_much =
        bytes > reserved + kWorthAsking && bytes - reserved > most_available(descriptor);
    return is_too_much ? std::make_error_code(std::errc::no_space_on_device) : std::error_code{};
}

std::string random_suffix(std::error_code& error) {
    std::byte bytes[8]{};
    error = fill_random(bytes, sizeof bytes);
    std::string text;
    for (const std::byte byte : bytes) {
        constexpr char kDigits[] = "0123456789abcdef";
        text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
        text += kDigits[std::to_integer<unsigned>(byte) & 15U];
    }
    return text;
}

}  // namespace

SharedFile::SharedFile(SharedFile&& other) noexcept
    : own_(std::exchange(other.own_, {})), mapped_(std::exchange(other.mapped_, nullptr)),
      mapped_offset_(other.mapped_offset_), mapped_bytes_(other.mapped_bytes_),
      private_path_(std::exchange(other.private_path_, {})) {}

SharedFile& SharedFile::operator=(SharedFile&& other) noexcept {
    if (this != &other) {
        close();
        own_ = std::exchange(other.own_, {});
        mapped_ = std::exchange(other.mapped_, nullptr);
        mapped_offset_ = other.mapped_offset_;
        mapped_bytes_ = other.mapped_bytes_;
        private_path_ = std::exchange(other.private_path_, {});
    }
    return *this;
}

SharedFile::~SharedFile() {
    close();
}

void SharedFile::close() noexcept {
    if (!own_.is_open()) return;
    if (!private_path_.empty()) ::unlink(private_path_.c_str());
    private_path_.clear();
    mapped_ = nullptr;
    close_descriptor(std::exchange(own_, {}));
}

SharedFile SharedFile::create_private(const std::string& directory, std::error_code& error) {
    error.clear();
    const OwnDescriptor unnamed = open_closed_in_children(
        [&] { return ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode); });
    if (unnamed.is_open()) return with_mode(SharedFile(unnamed), error);
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
        error = last_error();
        return {};
    }
    // File systems without O_TMPFILE (some overlay and network ones): a private name.
    const std::string path = directory + "/.penstock-new-" + random_suffix(error);
    if (error) return {};
    const OwnDescriptor named = open_closed_in_children(
        [&] { return ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, kMode); });
    if (!named.is_open()) {
        error = last_error();
        return {};
    }
    SharedFile file(named);
    file.private_path_ = path;
    return with_mode(std::move(file), error);
}

// Independent of the umask: with 0777 the creator itself could not open the file again.
SharedFile SharedFile::with_mode(SharedFile file, std::error_code& error) noexcept {
    struct stat status{};
    if (::fstat(file.own_.number, &status) == 0 && (status.st_mode & kMode) == kMode) return file;
    error = outcome(::fchmod(file.own_.number, kMode));
    return error ? SharedFile() : std::move(file);
}

SharedFile SharedFile::create_anonymous(const std::string& label, std::error_code& error) {
    error.clear();
    const OwnDescriptor descriptor = open_closed_in_children(
        [&] { return ::memfd_create(label.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING); });
    if (descriptor.is_open()) return SharedFile(descriptor);
    error = last_error();
    return {};
}

SharedFile SharedFile::open(const std::string& path, std::error_code& error, Access access) {
    error.clear();
    const int flags = access == Access::Read ? O_RDONLY : O_RDWR;
    const OwnDescriptor own =
        open_closed_in_children([&] { return open_regular(path.c_str(), flags); });
    if (own.is_open()) return SharedFile(own);
    error = last_error();
    return {};
}

SharedFile SharedFile::reopen(int descriptor, std::error_code& error) {
    error.clear();
    const OwnDescriptor own =
        open_closed_in_children([&] { return reopen_regular(descriptor, O_RDWR); });
    if (own.is_open()) return SharedFile(own);
    error = last_error();
    return {};
}

std::error_code SharedFile::publish(const std::string& path) {
    if (private_path_.empty()) {
        return outcome(::linkat(AT_FDCWD, own_descriptor_path(own_.number).c_str(), AT_FDCWD,
                                path.c_str(), AT_SYMLINK_FOLLOW));
    }
    // In one step: a second link would make it look alive after its removal.
    if (::renameat2(AT_FDCWD, private_path_.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) !=
        0) {
        return last_error();
    }
    private_path_.clear();
    return {};
}

std::error_code SharedFile::seal_size() noexcept {
    return outcome(::fcntl(own_.number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
}

bool SharedFile::is_sealed_against_shrinking() const noexcept {
    const int seals = ::fcntl(own_.number, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

std::error_code SharedFile::set_size(std::uint64_t bytes) noexcept {
    const auto limit = limit_of(Limit::FileSize);
    if (limit && bytes > *limit) return std::make_error_code(std::errc::file_too_large);
    const FileSizeSignal held_back;  // another thread may lower the limit
    return outcome(::ftruncate(own_.number, static_cast<off_t>(bytes)));
}

std::error_code SharedFile::check_room(std::uint64_t bytes) const noexcept {
    std::error_code error;
    const Facts own = facts(error);
    return error ? error : check_growth(own_.number, own.reserved, bytes);
}

std::error_code SharedFile::reserve(std::uint64_t offset, std::uint64_t bytes,
                                    const std::function<bool()>& goes_on) noexcept {
    std::error_code error;
    const Facts own = facts(error);
    if (error) return error;
    // Checked before the calls, not atomically with them: in the worst case another file gets
    // blocks behind its end, and loses nothing. MADV_POPULATE_WRITE needs no descriptor, but takes
    // 6 to 12 % longer including the first write (64 KiB to 16 MiB), and does not report the reason
    // of a failure.
    if (own.inode != own_.inode || own.device != own_.device || !own_.is_marked()) {
        return std::make_error_code(std::errc::bad_file_descriptor);
    }
    // Within the file's size RLIMIT_FSIZE does not apply, unless another process has truncated the
    // file.
    std::optional<FileSizeSignal> held_back;
    if (offset + bytes > own.size) held_back.emplace();
    // Too large a request is refused in advance: in steps it would fill the machine first.
    error = check_growth(own_.number, own.reserved, bytes);
    if (error) return error;
    // In steps: tmpfs undoes a whole call when a signal comes, and a profiler's signals may never
    // stop.
    constexpr std::uint64_t kStep = std::uint64_t{16} << 20U;
    for (std::uint64_t done = 0; done < bytes;) {
        const std::uint64_t step = std::min(kStep, bytes - done);
        if (::fallocate(own_.number, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset + done),
                        static_cast<off_t>(step)) == 0) {
            done += step;
        } else if (errno != EINTR) {
            error = last_error();
        }
        // Also after EINTR, if a timer's signals interrupt every try.
        if (!error && goes_on && !goes_on()) {
            error = std::make_error_code(std::errc::operation_canceled);
        }
        if (error) {
            // Memory that can't be given back now goes with the file.
            [[maybe_unused]] const std::error_code kept = punch(offset, done);
            return error;
        }
    }
    return {};
}

void SharedFile::note_mapping(const Mapping& mapping, std::uint64_t offset) noexcept {
    mapped_ = mapping.data();
    mapped_offset_ = offset;
    mapped_bytes_ = mapping.size();
}

std::error_code SharedFile::punch(std::uint64_t offset, std::uint64_t bytes) noexcept {
    if (bytes == 0) return {};
    const bool is_mapped = mapped_ != nullptr && offset >= mapped_offset_ &&
                           offset - mapped_offset_ < mapped_bytes_ &&
                           bytes <= mapped_bytes_ - (offset - mapped_offset_);
    if (is_mapped) {
        const std::error_code error =
            outcome(::madvise(mapped_ + (offset - mapped_offset_), bytes, MADV_REMOVE));
        if (error != std::errc::invalid_argument) return error;  // else it is locked memory
    }
    if (!own_.is_ours()) return std::make_error_code(std::errc::bad_file_descriptor);
    return outcome(::fallocate(own_.number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               static_cast<off_t>(offset), static_cast<off_t>(bytes)));
}

SharedFile::Facts SharedFile::facts(std::error_code& error) const noexcept {
    struct stat status{};
    error = outcome(::fstat(own_.number, &status));
    if (error) return {};
    constexpr std::uint64_t kBlock = 512;  // unit of st_blocks, whatever st_blksize says
    return {static_cast<std::uint64_t>(status.st_size),
            static_cast<std::uint64_t>(status.st_blocks) * kBlock,
            static_cast<std::uint64_t>(status.st_nlink),
            static_cast<std::uint64_t>(status.st_ino),
            static_cast<std::uint64_t>(status.st_dev),
            status.st_uid};
}

bool SharedFile::read(std::uint64_t offset, void* out, std::size_t bytes) const noexcept {
    auto* at = static_cast<std::byte*>(out);
    while (bytes > 0) {
        const ssize_t got = ::pread(own_.number, at, bytes, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        offset += static_cast<std::uint64_t>(got);
        bytes -= static_cast<std::size_t>(got);
    }
    return true;
}

bool SharedFile::write(std::uint64_t offset, const void* from, std::size_t bytes) noexcept {
    if (!own_.is_ours()) return false;
    const FileSizeSignal held_back;  // the limit may lie below the offset, whatever the size
    for (;;) {
        const ssize_t done = ::pwrite(own_.number, from, bytes, static_cast<off_t>(offset));
        if (done >= 0 || errno != EINTR) return done == static_cast<ssize_t>(bytes);
    }
}

std::error_code SharedFile::read_sparse(std::uint64_t offset, std::byte* out, std::uint64_t bytes,
                                        std::uint64_t most) const noexcept {
    const MarkAgain when_done{own_};
    const std::uint64_t end = offset + bytes;
    for (std::uint64_t at = offset; at < end;) {
        const off_t data = ::lseek(own_.number, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;  // holes up to the end of the file
        const off_t hole = data < 0 ? -1 : ::lseek(own_.number, data, SEEK_HOLE);
        // Some file systems do not report holes: then all of it is data.
        const std::uint64_t from = data < 0 ? at : static_cast<std::uint64_t>(data);
        const std::uint64_t to = hole < 0 ? end : std::min(end, static_cast<std::uint64_t>(hole));
        if (from >= end) break;
        if (to - from > most) return std::make_error_code(std::errc::file_too_large);
        most -= to - from;
        if (!read(from, out + (from - offset), to - from)) {
            return std::make_error_code(std::errc::io_error);
        }
        at = to;
    }
    std::error_code error;
    const std::uint64_t size = facts(error).size;
    return error || size >= end ? error : std::make_error_code(std::errc::io_error);
}

bool SharedFile::try_lock(std::uint64_t byte) noexcept {
    return lock_own(byte, F_WRLCK);
}

bool SharedFile::try_lock_shared(std::uint64_t byte) noexcept {
    return lock_own(byte, F_RDLCK);
}

// The check before keeps another file from being locked; the check after proves that the lock is on
// this file.
bool SharedFile::lock_own(std::uint64_t byte, short type) noexcept {
    if (!own_.is_ours() || !set_lock(own_.number, type, byte)) return false;
    if (own_.is_ours()) return true;
    set_lock(own_.number, F_UNLCK, byte);
    return false;
}

void SharedFile::unlock(std::uint64_t byte) noexcept {
    if (own_.is_ours()) set_lock(own_.number, F_UNLCK, byte);
}

bool SharedFile::is_locked_by_other(std::uint64_t byte) const noexcept {
    struct flock lock{};
    lock.l_type = F_RDLCK;  // conflicts with write locks only
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(byte);
    lock.l_len = 1;
    // A failed query is no evidence of death, nor is an answer about another file: if the number is
    // still this file's after the answer, it was at the answer.
    if (::fcntl(own_.number, F_OFD_GETLK, &lock) != 0) return true;
    return lock.l_type != F_UNLCK || !own_.is_ours();
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        if (data_ != nullptr) ::munmap(data_, size_);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
    }
    return *this;
}

Mapping::~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
}

Mapping Mapping::map(const SharedFile& file, std::uint64_t offset, std::uint64_t bytes,
                     Access access, std::error_code& error) {
    error.clear();
    const int protection = access == Access::Read ? PROT_READ : PROT_READ | PROT_WRITE;
    constexpr std::uint64_t kMinAligned = std::uint64_t{64} << 10U;
    void* const place = bytes < kMinAligned ? nullptr : reserve_addresses(offset, bytes);
    void* const address =
        ::mmap(place, bytes, protection, MAP_SHARED | (place != nullptr ? MAP_FIXED : 0),
               file.descriptor(), static_cast<off_t>(offset));
    if (address == MAP_FAILED) {
        error = last_error();
        if (place != nullptr) ::munmap(place, bytes);
        return {};
    }
    // A child must not share memory that it does not own, and a core dump must not contain
    // gigabytes of it.
    ::madvise(address, bytes, MADV_DONTFORK);
    ::madvise(address, bytes, MADV_DONTDUMP);
    Mapping mapping;
    mapping.data_ = static_cast<std::byte*>(address);
    mapping.size_ = bytes;
    return mapping;
}

std::error_code Mapping::use_huge_pages() noexcept {
    return outcome(::madvise(data_, size_, MADV_HUGEPAGE));
}

std::error_code Mapping::collapse(std::uint64_t offset, std::uint64_t bytes) noexcept {
    return outcome(::madvise(data_ + offset, bytes, MADV_COLLAPSE));
}

std::error_code Mapping::populate(std::uint64_t offset, std::uint64_t bytes) noexcept {
    const std::error_code error = outcome(::madvise(data_ + offset, bytes, MADV_POPULATE_WRITE));
    if (error != std::errc::invalid_argument) return error;
    for (std::uint64_t at = 0; at < bytes; at += page_size()) {
        volatile std::byte* const page = data_ + offset + at;
        const std::byte value = *page;
        *page = value;
    }
    return {};
}

std::error_code Mapping::populate_to_read(std::uint64_t offset, std::uint64_t bytes) noexcept {
    const std::error_code error = outcome(::madvise(data_ + offset, bytes, MADV_POPULATE_READ));
    if (error != std::errc::invalid_argument) return error;
    for (std::uint64_t at = 0; at < bytes; at += page_size()) {
        const volatile std::byte* const page = data_ + offset + at;
        [[maybe_unused]] const std::byte value = *page;
    }
    return {};
}

std::error_code Mapping::populate_present(std::uint64_t offset, std::uint64_t bytes,
                                          Access access) noexcept {
    const std::uint64_t page = page_size();
    std::array<unsigned char, 2048> present{};
    const std::uint64_t step = present.size() * page;
    const auto fault_in = [access](std::byte* at, std::uint64_t size) {
        // Reading faults map 16 pages each, writable ones on tmpfs, so the second advice finds them
        // mapped: 23 ms for 256 MiB, where writing faults alone took 38.
        if (::madvise(at, size, MADV_POPULATE_READ) != 0) return false;
        return access == Access::Read || ::madvise(at, size, MADV_POPULATE_WRITE) == 0;
    };
    for (std::uint64_t done = 0; done < bytes; done += step) {
        std::byte* const start = data_ + offset + done;
        const std::uint64_t pages = std::min(step, bytes - done) / page;
        if (::mincore(start, pages * page, present.data()) != 0) return last_error();
        for (std::uint64_t at = 0; at < pages;) {
            std::uint64_t end = at;
            while (end < pages && (present[end] & 1U) != 0) ++end;
            if (end > at && !fault_in(start + at * page, (end - at) * page)) return last_error();
            at = std::max(end, at + 1);
        }
    }
    return {};
}

std::error_code Mapping::lock_in_memory(std::uint64_t offset, std::uint64_t bytes) noexcept {
    return outcome(::mlock(data_ + offset, bytes));
}

std::error_code Mapping::bind_to_node(int node) noexcept {
    constexpr int kBind = 2;  // MPOL_BIND; the header that names it comes with libnuma
    constexpr unsigned kBits = sizeof(unsigned long) * 8;
    if (node < 0 || static_cast<unsigned>(node) >= kBits) {
        return std::make_error_code(std::errc::invalid_argument);
    }
    const unsigned long mask = 1UL << static_cast<unsigned>(node);
    const long result = ::syscall(SYS_mbind, data_, size_, kBind, &mask, kBits, 0);
    return result == 0 ? std::error_code{} : last_error();
}

Space space_at(const std::string& path, std::error_code& error) noexcept {
    struct statvfs status{};
    error = outcome(::statvfs(path.c_str(), &status));
    if (error) return {};
    return {std::uint64_t{status.f_blocks} * status.f_frsize,
            std::uint64_t{status.f_bavail} * status.f_frsize};
}

std::vector<std::string> list_names(const std::string& directory, const std::string& prefix) {
    std::vector<std::string> names;
    DIR* stream = ::opendir(directory.c_str());
    if (stream == nullptr) return names;
    while (const dirent* entry = ::readdir(stream)) {
        const std::string name = entry->d_name;
        if (name.starts_with(prefix)) names.push_back(name.substr(prefix.size()));
    }
    ::closedir(stream);
    return names;
}

namespace {

bool is_same(const struct stat& one, const struct stat& other) noexcept {
    return one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

// Removes all other names that the file has in the directory of `path`.
void unlink_other_names(const std::string& path, const struct stat& file) noexcept {
    const std::size_t begin = path.rfind('/') + 1;
    DIR* const stream = ::opendir(begin == 0 ? "." : path.substr(0, begin).c_str());
    if (stream == nullptr) return;
    const int directory = ::dirfd(stream);
    while (const dirent* entry = ::readdir(stream)) {
        struct stat found{};
        const bool is_other = path.compare(begin, std::string::npos, entry->d_name) != 0;
        if (is_other && ::fstatat(directory, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
            is_same(found, file)) {
            ::unlinkat(directory, entry->d_name, 0);
        }
    }
    ::closedir(stream);
}

}  // namespace

bool unlink_if_same(const std::string& path, const SharedFile& file) noexcept {
    struct stat named{};
    struct stat own{};
    if (::lstat(path.c_str(), &named) != 0 || ::fstat(file.descriptor(), &own) != 0) return false;
    if (!is_same(named, own)) return false;
    // Before the main name: if this process dies in between, the file can still be found.
    if (own.st_nlink > 1) unlink_other_names(path, own);
    return ::unlink(path.c_str()) == 0;
}

std::error_code fill_random(std::byte* out, std::size_t bytes) noexcept {
    if (get_random(out, bytes)) return {};
    const std::error_code refused = last_error();
    const int source = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (source < 0) return refused;
    // Only a character device: a planted regular file gives no random bytes.
    struct stat status{};
    const bool is_device = ::fstat(source, &status) == 0 && S_ISCHR(status.st_mode);
    const bool is_filled = is_device && read_whole(source, out, bytes);
    ::close(source);
    return is_filled ? std::error_code{} : refused;
}

}  // namespace penstock::os
