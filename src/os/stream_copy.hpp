// Copying past the caches, for data that is larger than they are and is next read by another
// process.
//
// A plain store first reads the line that it overwrites. Streaming stores don't, and leave the
// caches to other data: 32 MiB in blocks of 32 KiB took 3.6 ms where memcpy took 5.6 (EPYC, 8 MiB
// L3).
#pragma once

#include <cstddef>

namespace penstock::os {

// Any alignment; the ranges must not overlap. Only stream_fence() orders the copy before later
// stores.
void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) noexcept;

// To be called before the copied bytes are published.
void stream_fence() noexcept;

}  // namespace penstock::os
