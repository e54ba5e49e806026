// The writer's side of a Broadcast: its position, the limit that readers set, and its blocks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "broadcast/blocks.hpp"
#include "broadcast/control.hpp"
#include "segment/life/attachment.hpp"
#include "segment/life/death.hpp"
#include "segment/life/membership.hpp"

namespace penstock::detail {

// One thread at a time, except where BroadcastWriter says otherwise.
struct WriterCore final : Attachment {
    explicit WriterCore(std::unique_ptr<Segment> made);
    WriterCore(const WriterCore&) = delete;
    WriterCore& operator=(const WriterCore&) = delete;
    ~WriterCore() { withdraw(); }

    void end_stream() noexcept override;
    [[nodiscard]] bool is_stream_over() const noexcept override;
    void depart() noexcept override { leave(); }

    // What the ring has to hold.
    struct Record {
        std::uint64_t length = 0;
        std::uint64_t alignment = 8;  // of the payload
    };
    // Room in the ring for the next record, found but not published.
    struct Room {
        std::uint64_t padding = 0;  // bytes to skip before the record
        std::uint64_t skip = 0;     // 8-byte steps between header and payload
        std::uint64_t bytes = 0;    // the record, without the padding
    };

    // Behind BroadcastWriter's and BroadcastLoan's functions of these names.
    Status send(std::span<const std::byte> message, const Wait& wait, Format format) noexcept;
    Result<std::span<std::byte>> loan(std::size_t size, const Wait& wait) noexcept;
    // Sends the open loan's bytes and ends the loan.
    Status commit(std::size_t size, Format format) noexcept;
    bool has_room(std::size_t size) noexcept;
    Status wait_ready(const Wait& wait) noexcept;
    [[nodiscard]] std::vector<BroadcastReaderState> readers() const;
    [[nodiscard]] BroadcastStats stats() const;

    Status send_large(std::span<const std::byte> message, const Wait& wait, Format format) noexcept;
    [[nodiscard]] bool has_all_readers() const noexcept;
    [[nodiscard]] Status explain_missing() const noexcept;
    [[nodiscard]] bool is_usable(std::uint64_t length) const noexcept;
    void set_usable() noexcept;
    [[nodiscard]] Status why_unusable(std::uint64_t length) const noexcept;
    [[nodiscard]] Status check_readable() const noexcept;
    [[nodiscard]] Room measure(const Record& record) const noexcept;
    [[nodiscard]] Record record_of_loan(std::uint64_t size) const noexcept;
    // Looks at the readers, measures again, and waits until the room is free.
    Status make_room(Room& room, const Record& record, const Wait& wait) noexcept;
    std::byte* payload_at(const Room& room) const noexcept;
    void publish(const Room& room, const layout::RecordHeader& header,
                 std::uint64_t payload_bytes) noexcept;
    void publish_inline(const Room& room, std::uint64_t length, Format format) noexcept;
    void measure_pace() noexcept;
    // Copies a small record to WriterLine, beside the position that is about to publish it.
    void copy_newest(const Room& room, const layout::RecordHeader& header) noexcept;

    Result<Block> allocate(std::uint64_t length, const Wait& wait) noexcept;
    void publish_block(Block block, const Room& room, std::uint64_t length, Format format) noexcept;
    // Frees blocks that every gating reader has passed and none holds. False: none.
    bool recycle(std::size_t looks = ~std::size_t{0}) noexcept {
        return blocks.recycle(find_slowest(), looks);
    }
    void trim_when_idle() noexcept;
    void end_loan() noexcept;
    // Starts the time after which the memory of large messages may be trimmed.
    void note_large() noexcept;

    [[nodiscard]] std::uint64_t offset_of(std::uint64_t at) const noexcept {
        return (at + origin) & mask;
    }
    [[nodiscard]] std::uint64_t end_of(const Room& room) const noexcept {
        return position + room.padding + room.bytes;
    }
    // The position of the slowest gating reader; the own one if no reader gates.
    std::uint64_t find_slowest() noexcept;
    void raise_limit(std::uint64_t slowest) noexcept;
    // Goes back to the memory used last if all readers have caught up.
    void rewind_if_idle(std::uint64_t slowest) noexcept;
    // Waits until ready(). `needed` is the reader position that makes it true, `comfortable` the
    // one at which readers wake the writer.
    template <typename Ready>
    Status wait_for_readers(std::uint64_t needed, std::uint64_t comfortable, const Wait& wait,
                            Ready&& ready) noexcept;
    [[nodiscard]] bool is_to_end_wait() noexcept;
    [[nodiscard]] Peers peers() const noexcept;  // the readers
    Status explain_wait(WaitEnd end, const Wait& wait) noexcept;
    void clear_blocked() noexcept;
    // Reaps dead readers. True: there is a death to report.
    bool reap_readers() noexcept;
    // Looks for deaths that any process has found. True: there is one to report.
    bool find_untold() noexcept;
    // `who` and `where` go before and after the words for how the reader died.
    void note_death(unsigned rank, std::uint64_t death, std::string_view who,
                    std::string_view where) noexcept;
    Status death_notice() noexcept;
    // Gives memory and descriptors back, at once or when the open loan ends.
    void close() noexcept;
    void leave() noexcept;

    std::unique_ptr<Segment> segment;
    Membership membership;
    BroadcastView view;
    WriterBlocks blocks;
    Signal data;
    Signal space;
    SpinBudget spin;
    std::byte* ring = nullptr;
    std::uint64_t mask = 0;
    std::uint64_t longest_inline = 0;
    std::uint64_t longest = 0;   // of any message
    std::uint64_t too_long = 0;  // the least length that can't be sent now; see set_usable()

    std::uint64_t position = 0;  // published
    std::uint64_t limit = 0;     // the furthest end that a record may have
    std::uint64_t origin = 0;    // as in RingLine
    // The furthest end of a record before the next look at the readers; at most `limit`.
    std::uint64_t unlooked = 0;
    std::uint64_t stretch = 0;  // bytes between two looks
    std::uint64_t messages = 0;
    std::uint64_t bytes = 0;
    std::uint64_t sleeps = 0;
    bool is_streaming = false;  // too fast for readers to wait for single messages
    std::int64_t pace_since = 0;

    bool loan_open = false;
    Room loan_room;
    std::optional<Block> loan_block;

    bool may_trim = false;  // free granules have memory, or will have when blocks are freed
    std::int64_t last_large = 0;

    std::vector<std::uint64_t> told;  // by rank: the last found_dead() that was handled
    std::string deaths_to_tell;
    int first_dead = -1;  // rank of the first of these
    Death first_death;
    bool blocked = false;  // a wait for readers is going on, or the last one failed
    Cancel closing;
    bool closed = false;
};

}  // namespace penstock::detail
