// One reader's side of a Broadcast: its cursor, the messages it holds, and its place in the table.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "broadcast/control.hpp"

namespace penstock::detail {

// Lives until the handle is closed and the last message is released; deletes itself then.
// recv and close belong to one thread at a time; release and keep to any.
class ReaderCore {
public:
    static ReaderCore* attach(std::unique_ptr<Segment> segment, unsigned rank);

    ReaderCore(const ReaderCore&) = delete;
    ReaderCore& operator=(const ReaderCore&) = delete;

    Result<Message> recv(const Wait& wait) noexcept;
    Result<std::size_t> recv_into(std::span<std::byte> buffer, const Wait& wait) noexcept;
    Result<std::size_t> next_size(const Wait& wait) noexcept;
    // The handle goes; `this` may be deleted by it.
    void close_handle() noexcept;
    void request_close() noexcept { closing_.cancel(); }
    // In a forked child: forgets everything without touching shared memory.
    [[nodiscard]] bool is_foreign() const noexcept { return segment_->is_foreign(); }

    void release(std::uint32_t entry, bool kept, std::uint32_t granule) noexcept;
    bool keep(std::uint32_t entry, std::uint32_t granule) noexcept;

    [[nodiscard]] BroadcastStats stats() const;
    [[nodiscard]] unsigned rank() const noexcept { return rank_; }
    [[nodiscard]] const Segment& segment() const noexcept { return *segment_; }
    [[nodiscard]] Segment& segment() noexcept { return *segment_; }

private:
    static constexpr std::uint32_t kMostHeld = 4096;
    static constexpr std::uint32_t kNoBlock = ~std::uint32_t{0};

    // A message handed out and not yet given back, in ring order.
    struct Held {
        std::atomic<bool> released{false};
        std::uint64_t end = 0;       // reader position once it and all before it are released
        std::uint64_t messages = 0;  // message count then
    };
    // A record that has been checked and not yet consumed.
    struct Found {
        const std::byte* data = nullptr;
        std::uint64_t size = 0;
        std::uint64_t end = 0;  // position after the record
        std::uint32_t granule = kNoBlock;
        Format format = Format::Bytes;
    };

    ReaderCore(std::unique_ptr<Segment> segment, unsigned rank);
    ~ReaderCore();

    void claim_rank();
    void take_gate() noexcept;
    [[nodiscard]] bool is_writer_gone() const noexcept;

    Result<Found> find(const Wait& wait) noexcept;
    Status wait_for_more(const Wait& wait) noexcept;
    Status end_of_stream(WaitEnd end) noexcept;
    bool look_for_more() noexcept;
    void back_off_while_streaming() noexcept;
    Result<Found> parse() noexcept;
    Result<Found> parse_block(Found found) noexcept;
    Status corrupt(const char* why) noexcept;

    std::uint32_t hand_out(const Found& found) noexcept;
    void settle() noexcept;
    void let_go(std::uint64_t share) noexcept;
    void publish_position(std::uint64_t position, std::uint64_t messages) noexcept;
    void leave() noexcept;

    std::unique_ptr<Segment> segment_;
    unsigned rank_;
    unsigned slot_;
    BroadcastView view_;
    Arena arena_;
    Signal data_;
    Signal space_;
    SpinBudget spin_;
    const std::byte* ring_ = nullptr;
    std::uint64_t mask_ = 0;
    layout::ReaderLine* line_ = nullptr;

    // The cursor: touched by the receiving thread only.
    std::uint64_t position_ = 0;
    std::uint64_t known_ = 0;  // published by the writer, as far as we have looked
    std::uint64_t messages_ = 0;
    unsigned streaming_pauses_ = 0;
    bool tag_is_known_ = true;
    std::uint64_t sleeps_ = 0;
    std::uint64_t waits_ = 0;
    Cancel closing_;

    // Messages handed out: [oldest_, next_) of a ring of entries. next_ moves with recv, oldest_
    // under settling_ by whoever releases.
    std::atomic<std::uint32_t> next_{0};
    std::atomic<std::uint32_t> oldest_{0};
    std::atomic<bool> settling_{false};
    std::unique_ptr<Held[]> held_;

    // Who is the last to let go: each release adds 1, the handle's close adds kEverybody less the
    // number handed out. The one whose addition makes it kEverybody leaves; nobody else touches
    // this object after his own addition.
    static constexpr std::uint64_t kEverybody = std::uint64_t{1} << 62U;
    std::uint64_t handed_out_ = 0;
    std::atomic<std::uint64_t> let_go_{0};
};

}  // namespace penstock::detail
