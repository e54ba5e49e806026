// Identity of descriptors on Linux: device and inode by fstat(), the description by its offset.
#include "os/descriptor.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "os/clock.hpp"
#include "os/found_once.hpp"

namespace penstock::os {
namespace {

constinit FoundOnce first_mark;
constinit std::atomic<std::int64_t> marks_given{0};

// An offset far behind every file's end, different for each description of each process. File
// systems with smaller offsets refuse it; there a descriptor has no mark.
std::int64_t next_mark() noexcept {
    constexpr std::int64_t kBeyond = std::int64_t{1} << 40U;
    constexpr std::int64_t kStarts = std::int64_t{1} << 31U;
    const std::uint64_t first = first_mark.get(
        [] { return static_cast<std::uint64_t>(kBeyond + (wall_ns() & (kStarts - 1))); });
    return static_cast<std::int64_t>(first) + marks_given.fetch_add(1, std::memory_order_relaxed);
}

bool is_of_file(const OwnDescriptor& own) noexcept {
    struct stat status{};
    return own.number >= 0 && ::fstat(own.number, &status) == 0 &&
           static_cast<std::uint64_t>(status.st_ino) == own.inode &&
           static_cast<std::uint64_t>(status.st_dev) == own.device;
}

}  // namespace

bool OwnDescriptor::is_ours() const noexcept {
    return is_of_file(*this) && (mark == 0 || ::lseek(number, 0, SEEK_CUR) == mark);
}

bool OwnDescriptor::is_marked() const noexcept {
    return mark == 0 ? is_ours() : ::lseek(number, 0, SEEK_CUR) == mark;
}

void OwnDescriptor::mark_again() const noexcept {
    if (mark != 0 && is_of_file(*this)) ::lseek(number, mark, SEEK_SET);
}

OwnDescriptor remember_descriptor(int number) noexcept {
    OwnDescriptor own;
    struct stat status{};
    if (number < 0 || ::fstat(number, &status) != 0) return own;
    own.number = number;
    own.device = static_cast<std::uint64_t>(status.st_dev);
    own.inode = static_cast<std::uint64_t>(status.st_ino);
    return own;
}

OwnDescriptor mark_descriptor(int number) noexcept {
    OwnDescriptor own = remember_descriptor(number);
    if (!own.is_open()) return own;
    const std::int64_t mark = next_mark();
    if (::lseek(number, mark, SEEK_SET) == mark) own.mark = mark;
    return own;
}

void close_if_ours(const OwnDescriptor& descriptor) noexcept {
    if (descriptor.is_ours()) ::close(descriptor.number);
}

}  // namespace penstock::os
