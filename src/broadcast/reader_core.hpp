// One reader's side of a Broadcast: its cursor, the messages it holds, and its slot.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "broadcast/control.hpp"
#include "broadcast/holders.hpp"
#include "segment/life/attachment.hpp"
#include "segment/life/death.hpp"
#include "segment/life/membership.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

// Lives until the handle is closed and the last message is released, then deletes itself.
// recv(), recv_into(), next_size() and close_handle(): one thread at a time. release(), keep(),
// stats() and request_close(): any thread.
class ReaderCore final : public Attachment {
public:
    static ReaderCore* attach(std::unique_ptr<Segment> segment, unsigned rank);

    ReaderCore(const ReaderCore&) = delete;
    ReaderCore& operator=(const ReaderCore&) = delete;

    Result<BroadcastMessage> recv(const Wait& wait) noexcept;
    // Leaves known_ alone: catch_up() measures batches from one look for more to the next.
    [[nodiscard]] bool is_ready() const noexcept {
        if (segment_->is_foreign()) return segment_->is_lost();  // recv() says so at once
        return load_relaxed(view_.writer().position) != position_;
    }
    Result<std::size_t> recv_into(std::span<std::byte> buffer, const Wait& wait) noexcept;
    Result<std::size_t> next_size(const Wait& wait) noexcept;
    // Closes the handle. May delete `this`.
    void close_handle() noexcept;
    void request_close() noexcept { closing_.cancel(); }
    [[nodiscard]] bool is_foreign() const noexcept { return segment_->is_foreign(); }

    [[nodiscard]] bool is_stream_over() const noexcept override;
    [[nodiscard]] bool feeds() const noexcept override { return false; }
    void depart() noexcept override;

    void release(std::uint32_t entry, bool kept, std::uint32_t granule) noexcept;
    bool keep(std::uint32_t entry, std::uint32_t granule) noexcept;

    [[nodiscard]] BroadcastStats stats() const;
    [[nodiscard]] unsigned rank() const noexcept { return rank_; }
    [[nodiscard]] const Segment& segment() const noexcept { return *segment_; }
    [[nodiscard]] Segment& segment() noexcept { return *segment_; }

private:
    static constexpr std::uint32_t kMaxHeld = 4096;
    static constexpr std::uint32_t kNoBlock = ~std::uint32_t{0};

    // A message handed out whose room is not given back yet.
    struct Held {
        std::atomic<bool> released{false};
        std::uint64_t end = 0;       // reader position once it and all before it are released
        std::uint64_t messages = 0;  // message count then
    };
    // A record that was checked and is not consumed yet.
    struct Found {
        const std::byte* data = nullptr;
        std::uint64_t size = 0;
        std::uint64_t end = 0;  // position after the record
        std::uint32_t granule = kNoBlock;
        Format format = Format::Bytes;
    };

    // Takes `segment` once nothing can fail any more; if it throws, the caller still has it.
    ReaderCore(std::unique_ptr<Segment>& segment, unsigned rank);
    ~ReaderCore();

    void claim_rank();
    void refuse_if_nothing_can_come();
    void take_gate() noexcept;
    [[nodiscard]] bool is_writer_gone() const noexcept;

    // Finds the next record and checks it. False: `failure` says why.
    bool find(const Wait& wait, Found& found, Status& failure) noexcept;
    // find() for a handle that is not foreign.
    bool search(const Wait& wait, Found& found, Status& failure) noexcept;
    Status wait_for_more(const Wait& wait) noexcept;
    // Looks for more than known_, and waits until a record is published beyond the cursor.
    bool catch_up(const Wait& wait, Status& failure) noexcept;
    // Copies the next record from beside the position, if it is the newest and small. To be called
    // right after a look for more: later it would take the writer's lines away for nothing.
    bool copy_newest(std::span<std::byte> buffer, Found& found) noexcept;
    // Consumes the record that recv_into() has copied.
    Result<std::size_t> pass(const Found& found) noexcept;
    Status end_of_stream(WaitEnd end) noexcept;
    [[nodiscard]] DeathNote writers_death() const noexcept;
    [[nodiscard]] std::string dead_writer() const;
    bool look_for_more() noexcept;
    void back_off_while_streaming() noexcept;
    bool is_time_to_probe() noexcept;
    // Offset of the cursor in the ring.
    [[nodiscard]] std::uint64_t offset() const noexcept { return (position_ + origin_) & mask_; }
    // Null, or what is wrong with the record at the cursor.
    const char* parse(Found& found) noexcept;
    const char* parse_block(Found& found) noexcept;
    Status corrupt(const char* why) noexcept;

    std::uint32_t hand_out(const Found& found) noexcept;
    void announce(std::uint64_t what) noexcept;
    void let_go(std::uint64_t what) noexcept;
    void free_released() noexcept;
    void publish_position(std::uint64_t position, std::uint64_t messages) noexcept;
    void open_gate() noexcept;
    void leave() noexcept;

    std::unique_ptr<Segment> segment_;
    Membership membership_;
    unsigned rank_;
    unsigned slot_;
    BroadcastView view_;
    BlockHolders holders_;
    Signal data_;
    Signal space_;
    SpinBudget spin_;
    const std::byte* ring_ = nullptr;
    std::uint64_t mask_ = 0;
    layout::ReaderLine* line_ = nullptr;

    // The cursor: touched by the receiving thread only.
    std::uint64_t position_ = 0;
    std::uint64_t known_ = 0;   // the writer's position at the last look
    std::uint64_t origin_ = 0;  // as in RingLine, for the records up to known_
    std::uint64_t messages_ = 0;
    std::int64_t streaming_pause_ = 0;  // ns
    static constexpr unsigned kFirstProbe = 64;
    static constexpr unsigned kLastProbe = 4096;
    unsigned singles_ = 0;  // looks that found at most one message, since the last probe
    unsigned probe_after_ = kFirstProbe;  // so many of them
    std::uint64_t batch_position_ = 0;    // at the last look for more
    std::uint64_t batch_messages_ = 0;
    bool tag_is_known_ = true;
    bool takes_newest_ = false;  // the last record could be copied from beside the position
    std::uint64_t sleeps_ = 0;
    std::uint64_t waits_ = 0;
    WaitCosts costs_before_;  // of the rank's readers before this one
    Cancel closing_;

    // Messages handed out: [oldest_, next_) of a ring of entries, in ring order. next_ is moved by
    // recv(), oldest_ by the working thread (see `work_`).
    std::atomic<std::uint32_t> next_{0};
    std::atomic<std::uint32_t> oldest_{0};
    std::unique_ptr<Held[]> held_;

    // Tells which thread gives room back, and which release is the last. Low half: announcements
    // not handled yet; the thread that adds to 0 is the working thread until it has handled all.
    // High half: final releases (of messages, and of the handle), wrapping at 2^32: it is compared
    // with handed_out_ for equality only, and far fewer are outstanding. After the addition of a
    // final release only the working thread touches this object.
    static constexpr std::uint64_t kReleased = 1;
    static constexpr std::uint64_t kLetGo = std::uint64_t{1} << 32U;
    std::atomic<std::uint64_t> work_{0};
    std::uint32_t handed_out_ = 1;  // the handle, and every BroadcastMessage
    std::atomic<bool> handle_closed_{false};
};

}  // namespace penstock::detail
