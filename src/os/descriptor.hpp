// A descriptor of the library, with the identity of its file. A program may close every descriptor
// that it finds, as daemons do; the next file that it opens gets the freed number, and system calls
// by number would then act on that file.
#pragma once

#include <cstdint>

namespace penstock::os {

// A value; any thread. A number is checked and then used: if a thread closes it in between and
// opens another file, that is not noticed. So operations that must not go wrong use no descriptor
// (see SharedFile::punch()), and queries are checked after the answer.
struct OwnDescriptor {
    int number = -1;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    // Offset of its description, at which nothing is read: distinguishes it from another
    // description of the same file. 0: it has none (a socket, a pipe).
    std::int64_t mark = 0;

    [[nodiscard]] bool is_open() const noexcept { return number >= 0; }
    // Whether the number still refers to the file that was opened. Two system calls, 0.1 to 0.6 us.
    [[nodiscard]] bool is_ours() const noexcept;
    // The same check by the mark alone, for a third of that; is_ours() where there is no mark.
    [[nodiscard]] bool is_marked() const noexcept;
    // To be called after the offset was moved; no effect if the number refers to another file by
    // now.
    void mark_again() const noexcept;
    bool operator==(const OwnDescriptor&) const noexcept = default;
};

// Records the file behind `number`, as it is.
OwnDescriptor remember_descriptor(int number) noexcept;
// The same for a new descriptor that is never read at its offset: also sets its mark.
OwnDescriptor mark_descriptor(int number) noexcept;
// Closes it, unless the number refers to another file by now.
void close_if_ours(const OwnDescriptor& descriptor) noexcept;

}  // namespace penstock::os
