// A descriptor of the library, and how it is told from another file behind the same number. A
// program may close every descriptor that it finds, as daemons do; the next file that it opens gets
// such a number, and what is done by number is done to that file.
#pragma once

#include <cstdint>

namespace penstock::os {

// A value; any thread. A number is checked and then used: a thread that closes it in between, and
// opens another file, is not noticed. So what must not go wrong is done without a descriptor (see
// SharedFile::punch()), and what is asked is checked after the answer.
struct OwnDescriptor {
    int number = -1;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    // Offset of its description, at which nothing is read: tells it from another description of the
    // same file. 0: it has none (a socket, a pipe).
    std::int64_t mark = 0;

    [[nodiscard]] bool is_open() const noexcept { return number >= 0; }
    // What stands behind the number now is what was opened. Two system calls, 0.1 to 0.6 us.
    [[nodiscard]] bool is_ours() const noexcept;
    // The same by the mark alone, for a third of that; all of it where there is no mark.
    [[nodiscard]] bool is_marked() const noexcept;
    // After what has moved the offset; nothing where the number is another file's by now.
    void mark_again() const noexcept;
    bool operator==(const OwnDescriptor&) const noexcept = default;
};

// Remembers what stands behind `number`, as it is.
OwnDescriptor remember_descriptor(int number) noexcept;
// The same for one that was just opened and that nothing is read from at its offset: marks it.
OwnDescriptor mark_descriptor(int number) noexcept;
// Closes it, unless the number is another file's by now.
void close_if_ours(const OwnDescriptor& descriptor) noexcept;

}  // namespace penstock::os
