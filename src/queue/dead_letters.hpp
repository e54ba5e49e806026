// The dead letters of a Queue (its DeadLetter slots): listing, requeuing, dropping. Any thread;
// nothing here waits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "queue/core.hpp"

namespace penstock::detail {

// The dead letters of these sequences; null data: all.
using Chosen = std::span<const std::uint64_t>;

// Oldest first, at most `limit`. Looks at every slot, unless there never was a dead letter.
std::vector<DeadLetter> list_dead_letters(const QueueView& view, std::size_t limit);
// A copy of the content. NotFound, Corrupt.
Result<std::vector<std::byte>> copy_dead_letter(const QueueCore& core, std::uint64_t sequence);
// Both return how many were moved.
std::uint64_t requeue_dead_letters(QueueCore& core, Chosen chosen) noexcept;
std::uint64_t drop_dead_letters(QueueCore& core, Chosen chosen) noexcept;

// The reason why a put finds no slot: "all 8 slots are queued or taken", or the number of dead
// letters and the remedy.
std::string slots_in_use(const QueueView& view);
// The same as part of another sentence; empty without dead letters.
std::string slots_of_dead_letters(const QueueView& view);
// The same for the bytes of blocks, to follow "so many of so many".
std::string bytes_in_use(const QueueView& view);
// To follow "everything was taken": mentions the dead letters that are left; empty without any.
std::string dead_letters_left(const QueueView& view);

}  // namespace penstock::detail
