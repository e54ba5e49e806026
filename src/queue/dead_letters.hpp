// The dead letters of a Queue, which are its DeadLetter slots: a look at them, and their two ways
// out. Any thread; nothing here waits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "queue/core.hpp"

namespace penstock::detail {

// Those of these sequences; null data: all.
using Chosen = std::span<const std::uint64_t>;

// Oldest first, at most `limit`. Looks at every slot, unless none was ever set aside.
std::vector<DeadLetter> list_dead_letters(const QueueView& view, std::size_t limit);
// A copy of the content. NotFound, Corrupt.
Result<std::vector<std::byte>> copy_dead_letter(const QueueCore& core, std::uint64_t sequence);
// How many were moved.
std::uint64_t requeue_dead_letters(QueueCore& core, Chosen chosen) noexcept;
std::uint64_t drop_dead_letters(QueueCore& core, Chosen chosen) noexcept;

// What stands in the way of a put: "all 8 slots are queued or taken", or how many dead letters
// there are and what to do about them.
std::string slots_in_use(const QueueView& view);
// The same as a part of another sentence, or nothing where there are no dead letters.
std::string slots_of_dead_letters(const QueueView& view);
// The same of the bytes of blocks, behind "so many of so many".
std::string bytes_in_use(const QueueView& view);
// Behind "everything was taken": that dead letters are left, or nothing.
std::string dead_letters_left(const QueueView& view);

}  // namespace penstock::detail
