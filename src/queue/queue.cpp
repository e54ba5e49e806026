// The public interface of a Queue, its deliveries and its loans.
#include "penstock/queue.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>

#include "queue/dead_letters.hpp"
#include "segment/closed_handle.hpp"
#include "segment/words/atomics.hpp"

namespace penstock {

using detail::QueueCore;

Queue Queue::create(const std::string& name, const QueueOptions& options) {
    return Queue(QueueCore::create(name, options));
}

Queue Queue::attach(const std::string& name, QueueRole role, const Wait& wait,
                    const std::string& instance, std::uint64_t application, const Trust& trust) {
    const auto access =
        role == QueueRole::Consumer ? os::Mapping::Access::Read : os::Mapping::Access::ReadWrite;
    const detail::Wanted wanted{Kind::Queue, access, instance, trust};
    return Queue(
        QueueCore::attach(detail::attach_when_there(name, wanted, wait), role, application));
}

Queue::Queue(std::shared_ptr<QueueCore> core)
    : core_(std::move(core)), name_(core_->segment->name()), instance_(core_->segment->instance()) {
}
Queue::Queue(Queue&& other) noexcept = default;

Queue& Queue::operator=(Queue&& other) noexcept {
    if (this != &other) {
        close();
        core_ = std::move(other.core_);
        name_ = std::move(other.name_);
        instance_ = std::move(other.instance_);
    }
    return *this;
}

Queue::~Queue() {
    close();
}

namespace {

Status closed() noexcept {
    return detail::closed_handle("queue handle");
}

void check_usable(const std::shared_ptr<QueueCore>& core) {
    if (core == nullptr) closed().or_throw();
    if (!core->segment->check_place()) core->segment->why_foreign().or_throw();
}

Delivery delivery_of(const std::shared_ptr<QueueCore>& core, std::uint64_t index,
                     const QueueCore::Content& found) noexcept {
    const layout::QueueSlot& slot = core->view.slot(index);
    const auto word = layout::decode_slot(detail::load_relaxed(slot.word));
    return {core,
            index,
            found.bytes,
            detail::load_relaxed(slot.sequence),
            found.description.producer,
            word.deliveries,
            static_cast<Format>(found.description.format)};
}

Status unsound(QueueCore& core, std::uint64_t index) noexcept {
    const std::uint64_t sequence = detail::load_relaxed(core.view.slot(index).sequence);
    core.ring.dead_letter(index);
    return {ErrorCode::Corrupt, "message " + std::to_string(sequence) + " of " +
                                    detail::quoted(core.segment->name()) +
                                    " contradicts itself; it was set aside as a dead letter"};
}

Result<std::uint64_t> on_usable(const std::shared_ptr<QueueCore>& core,
                                std::uint64_t (*act)(QueueCore&, detail::Chosen),
                                detail::Chosen chosen) noexcept {
    if (core == nullptr) return closed();
    if (core->segment->is_foreign()) return core->segment->why_foreign();
    return act(*core, chosen);
}

// An empty selection; null data would mean all.
detail::Chosen these(std::span<const std::uint64_t> sequences) noexcept {
    static constexpr std::uint64_t kNone = 0;
    return sequences.empty() ? detail::Chosen(&kNone, 0) : sequences;
}

}  // namespace

Result<Delivery> detail::QueueAccess::take_seen(const std::shared_ptr<QueueCore>& core,
                                                std::uint64_t index, std::uint64_t seen) noexcept {
    if (!core->ring.take_seen(index, seen)) {
        return Status(ErrorCode::Timeout, "somebody else was quicker");
    }
    core->note_taken(index);
    if (!core->still_has(index)) return core->segment->why_foreign();
    const QueueCore::Content found = core->content(index);
    if (!found.is_sound) return unsound(*core, index);
    return delivery_of(core, index, found);
}

Status Queue::put(std::span<const std::byte> message, const Wait& wait, Format format,
                  std::uint64_t tag) noexcept {
    if (core_ == nullptr) return closed();
    const QueueCore::Message given{message, 0, format, tag};
    if (!core_->put_at_once(given)) return core_->put_bytes(given, wait, true);
    core_->data.notify();
    return Status::ok();
}

Result<std::size_t> Queue::put_many(std::span<const std::span<const std::byte>> messages,
                                    const Wait& wait, Format format) noexcept {
    if (core_ == nullptr) return closed();
    if (core_->segment->is_foreign()) return core_->why_unable_to_put(0);
    std::size_t accepted = 0;
    while (accepted < messages.size()) {
        const std::size_t run = core_->put_run(messages.subspan(accepted), format);
        accepted += run;
        if (run > 0) continue;
        const auto message = messages[accepted];
        // A long one is worth a notice of its own: copying the next takes as long as a wake-up.
        const bool notifies = message.size() > core_->view.shape().cell_bytes;
        // First without a wait: consumers could already be taking what was put.
        Status put = core_->put_bytes({message, 0, format}, Deadline::now(), notifies);
        if (put.code() == ErrorCode::Timeout) {
            core_->data.notify();
            put = core_->put_bytes({message, 0, format}, wait, notifies);
        }
        if (!put) {
            if (accepted == 0) return put;
            break;
        }
        ++accepted;
    }
    core_->data.notify();
    return accepted;
}

Result<QueueLoan> Queue::loan(std::size_t size, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    if (!core_->is_able_to_put(size)) return core_->why_unable_to_put(size);
    Result<detail::BlockId> block = core_->allocate(size, wait);
    if (!block) return block.status();
    PENSTOCK_CRASH_POINT("queue.loan.made");
    return QueueLoan(core_, detail::encode_block(*block), {core_->arena.data(*block), size});
}

Result<Delivery> Queue::take(const Wait& wait) noexcept {
    Result<Delivery> delivery = take_for_batch(wait);
    if (delivery) delivery->note_alone();
    return delivery;
}

Result<Delivery> Queue::take_for_batch(const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    std::uint64_t index = 0;
    if (Status taken = core_->take(index, wait); !taken) return taken;
    if (!core_->still_has(index)) return core_->segment->why_foreign();
    const QueueCore::Content found = core_->content(index);
    if (!found.is_sound) return unsound(*core_, index);
    return delivery_of(core_, index, found);
}

namespace {

using Look = detail::SlotRing::Look;

// Room for one more. Doubles: reserve() alone would move all elements each time.
void make_room(std::vector<Delivery>& deliveries) {
    constexpr std::size_t kFirst = 16;
    if (deliveries.size() == deliveries.capacity()) {
        deliveries.reserve(std::max(kFirst, 2 * deliveries.capacity()));
    }
}

// A request for `least` to `most` messages that takes all or none.
class WholeRequest {
public:
    WholeRequest(const std::shared_ptr<QueueCore>& core, std::vector<Delivery>& deliveries,
                 std::size_t most, std::size_t least)
        : core_(core), deliveries_(deliveries), before_(deliveries.size()), most_(most),
          least_(least) {}

    // Takes the messages if there are enough. Timeout: there are too few, and nothing was taken.
    Status try_take() {
        const bool has_ended = core_->has_ended_before_look();
        if (!core_->may_have(least_)) return too_few();
        Status outcome = take_up_to(most_);
        if (taken() >= least_ || (is_complete_ && taken() > 0)) return finish();
        // Too few: a try took some out of turn. The request waits on and holds nothing meanwhile.
        if (outcome) outcome = has_ended ? take_the_rest() : too_few();
        if (outcome) return finish();
        untake();
        return outcome;
    }
    // Adds the first message and whatever else is there.
    Status go_on_from(Delivery first) {
        is_complete_ = first.must_come_alone();
        deliveries_.push_back(std::move(first));
        // A failure at a later message is reported by the next call.
        static_cast<void>(take_up_to(most_));
        return finish();
    }
    // Takes further messages that are there. A message that must come alone ends the batch before
    // it, or is the whole batch.
    Status take_up_to(std::size_t most) {
        Status outcome = take_runs(most);
        if (!outcome) return outcome;
        while (taken() < most && !is_complete_) {
            make_room(deliveries_);  // before there is anything to lose
            std::uint64_t index = 0;
            const Look look = core_->take_now(index);
            if (look == Look::Damaged) return detail::damaged(*core_->segment);
            if (look == Look::Nothing) break;
            const QueueCore::Content found = core_->content(index);
            if (!found.is_sound) return unsound(*core_, index);
            Delivery delivery = delivery_of(core_, index, found);
            is_complete_ = delivery.must_come_alone();
            if (is_complete_ && taken() > 0) {
                delivery.untake();
                break;
            }
            deliveries_.push_back(std::move(delivery));
        }
        return Status::ok();
    }
    [[nodiscard]] Status too_few() const noexcept {
        return core_->explain_no_message(detail::WaitEnd::Timeout, least_);
    }

private:
    // The first part of take_up_to(): messages that come for the first time, several at once.
    Status take_runs(std::size_t most) {
        std::array<std::uint64_t, 16> indices;
        Status outcome;
        while (taken() < most && !is_complete_ && outcome) {
            make_room(deliveries_);  // before there is anything to lose
            const std::size_t room = std::min(
                {most - taken(), indices.size(), deliveries_.capacity() - deliveries_.size()});
            const std::size_t count = core_->take_run(std::span(indices).first(room));
            for (const std::uint64_t index : std::span(indices).first(count)) {
                const QueueCore::Content found = core_->content(index);
                if (found.is_sound) {
                    deliveries_.push_back(delivery_of(core_, index, found));
                } else {
                    outcome = unsound(*core_, index);
                }
            }
            if (count < room) break;
        }
        return outcome;
    }
    [[nodiscard]] std::size_t taken() const noexcept { return deliveries_.size() - before_; }
    // After the end a batch may be smaller: no more messages will come.
    Status take_the_rest() {
        if (taken() == 0) {
            core_->reap_and_wait();
            if (Status outcome = take_up_to(most_); !outcome) return outcome;
        }
        if (taken() > 0) return Status::ok();
        return core_->everything_was_taken();
    }
    Status finish() noexcept {
        if (taken() == 1) deliveries_.back().note_alone();
        return Status::ok();
    }
    void untake() noexcept {
        is_complete_ = false;
        while (taken() > 0) {
            deliveries_.back().untake();
            deliveries_.pop_back();
        }
    }

    const std::shared_ptr<QueueCore>& core_;
    std::vector<Delivery>& deliveries_;
    std::size_t before_;
    std::size_t most_;
    std::size_t least_;
    bool is_complete_ = false;  // takes no further message
};

Status take_whole(const std::shared_ptr<QueueCore>& core, WholeRequest& request, std::size_t least,
                  const Wait& wait) {
    const auto is_settled = [](const Status& outcome) {
        return outcome.code() != ErrorCode::Timeout;
    };
    core->line.arrive(true);
    const bool is_free = !core->line.is_occupied();
    Status outcome = is_free ? request.try_take() : request.too_few();
    if (is_settled(outcome)) return outcome;
    if (wait.deadline.is_try()) {
        core->reap();
        core->line.watch();
        return core->line.is_occupied() ? std::move(outcome) : request.try_take();
    }
    for (;;) {
        const detail::WaitEnd end =
            core->wait_turn(least, wait, [&] { return core->may_have(least); });
        outcome = end == detail::WaitEnd::Ready ? request.try_take()
                                                : core->explain_no_message(end, least);
        if (end != detail::WaitEnd::Ready || is_settled(outcome)) break;
        const detail::WaitEnd over =
            core->closing.is_cancelled() ? detail::WaitEnd::Cancelled : detail::end_of_wait(wait);
        if (over != detail::WaitEnd::Ready) {
            outcome = core->explain_no_message(over, least);
            break;
        }
    }
    core->leave_line();
    return outcome;
}

}  // namespace

Status Queue::take_many(std::vector<Delivery>& deliveries, std::size_t most, const Wait& wait,
                        std::size_t least) noexcept try {
    if (core_ == nullptr) return closed();
    if (core_->segment->is_foreign()) return core_->segment->why_foreign();
    const std::uint64_t slots = core_->view.shape().slots;
    if (least > most || least > slots) {
        return {ErrorCode::InvalidArgument,
                "a batch of " + std::to_string(least) + " messages, of at most " +
                    std::to_string(most) + ", can never be there: " +
                    detail::quoted(core_->segment->name()) + " holds " + std::to_string(slots)};
    }
    if (most == 0) return Status::ok();
    WholeRequest request(core_, deliveries, most, least);
    if (least > 1) return take_whole(core_, request, least, wait);
    make_room(deliveries);
    Result<Delivery> first = take_for_batch(wait);
    if (!first) return first.status();
    return request.go_on_from(*std::move(first));
} catch (const std::bad_alloc&) {
    if (core_ != nullptr) core_->leave_line();
    return {ErrorCode::System, "no memory for more deliveries"};
}

Result<std::size_t> Queue::get(std::span<std::byte> buffer, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    std::uint64_t index = 0;
    if (Status taken = core_->take(index, wait); !taken) return taken;
    core_->note_alone(index);
    const QueueCore::Content found = core_->content(index);
    if (!found.is_sound) return unsound(*core_, index);
    const std::size_t size = found.bytes.size();
    if (size > buffer.size()) {
        core_->untake(index);
        return Status(ErrorCode::TooLarge, "the next message has " + std::to_string(size) +
                                               " bytes and the buffer " +
                                               std::to_string(buffer.size()) +
                                               "; the message stays: use a larger buffer");
    }
    if (size > 0) std::memcpy(buffer.data(), found.bytes.data(), size);
    PENSTOCK_CRASH_POINT("queue.get.copied");
    if (!core_->still_has(index)) return core_->segment->why_foreign();
    core_->acknowledge_at_once(index);
    return size;
}

bool Queue::is_ready(std::size_t least) const noexcept {
    if (core_ == nullptr) return false;
    // take() reports it at once
    if (core_->segment->is_foreign()) return core_->segment->is_lost();
    if (core_->line.may_be_occupied() && core_->line.is_occupied()) return false;
    return least <= 1 ? core_->ring.is_ready(core_->head) : core_->ring.has(core_->head, least);
}

bool Queue::has_room() const noexcept {
    if (core_ == nullptr) return false;
    if (core_->segment->is_foreign()) return core_->segment->is_lost();
    return core_->ring.has_room(core_->tail);
}

Status Queue::wait_ready(const Wait& wait, std::size_t least) noexcept {
    if (core_ == nullptr) return closed();
    return core_->wait_ready(least, wait);
}

Status Queue::wait_room(std::size_t size, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    return core_->wait_room(size, wait);
}

std::uint64_t Queue::queued() const {
    check_usable(core_);
    return detail::read_queue_stats(core_->view).queued;
}

QueueStats Queue::stats() const {
    check_usable(core_);
    QueueStats stats = detail::read_queue_stats(core_->view);
    const detail::Segment& segment = *core_->segment;
    detail::read_segment_stats(stats, segment.header(), segment.participants(), segment.file());
    stats.held_bytes = core_->arena.allocated_bytes();
    return stats;
}

void Queue::close() noexcept {
    if (core_ == nullptr) return;
    core_->end_on_leaving();
    core_.reset();
}

void Queue::end() noexcept {
    if (core_ != nullptr) core_->end();
}

bool Queue::reopen() noexcept {
    return core_ != nullptr && core_->reopen();
}

std::uint64_t Queue::discard() noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return 0;
    core_->end();
    std::uint64_t dropped = 0;
    for (std::uint64_t index = 0; core_->take(index, Deadline::now()); ++dropped) {
        if (!core_->still_has(index)) return dropped;
        core_->acknowledge_at_once(index);
    }
    if (core_->segment->is_foreign()) return dropped;
    detail::fetch_add_relaxed(core_->own().dropped, dropped);
    return dropped + detail::drop_dead_letters(*core_, {});
}

Result<std::vector<DeadLetter>> Queue::dead_letters(std::size_t limit) const {
    if (core_ == nullptr) return closed();
    if (core_->segment->is_foreign()) return core_->segment->why_foreign();
    return detail::list_dead_letters(core_->view, limit);
}

Result<std::vector<std::byte>> Queue::copy_dead_letter(std::uint64_t sequence) const {
    if (core_ == nullptr) return closed();
    if (core_->segment->is_foreign()) return core_->segment->why_foreign();
    return detail::copy_dead_letter(*core_, sequence);
}

Result<std::uint64_t> Queue::requeue_dead_letters() noexcept {
    return on_usable(core_, detail::requeue_dead_letters, {});
}

Result<std::uint64_t> Queue::requeue_dead_letters(
    std::span<const std::uint64_t> sequences) noexcept {
    return on_usable(core_, detail::requeue_dead_letters, these(sequences));
}

Result<std::uint64_t> Queue::drop_dead_letters() noexcept {
    return on_usable(core_, detail::drop_dead_letters, {});
}

Result<std::uint64_t> Queue::drop_dead_letters(std::span<const std::uint64_t> sequences) noexcept {
    return on_usable(core_, detail::drop_dead_letters, these(sequences));
}

void Queue::request_close() noexcept {
    if (core_ != nullptr) core_->closing.cancel();
}

bool Queue::is_open() const noexcept {
    return core_ != nullptr && !core_->segment->is_foreign();
}

const std::string& Queue::name() const noexcept {
    return name_;
}

KeptData Queue::replaced() const {
    return core_ == nullptr ? KeptData{} : core_->segment->replaced();
}

std::string Queue::instance() const {
    return instance_;
}

Delivery::Delivery(Delivery&& other) noexcept
    : core_(std::move(other.core_)), index_(other.index_), bytes_(std::exchange(other.bytes_, {})),
      sequence_(other.sequence_), producer_(other.producer_), deliveries_(other.deliveries_),
      format_(other.format_), settled_(other.settled_) {}

Delivery& Delivery::operator=(Delivery&& other) noexcept {
    if (this != &other) {
        release();
        core_ = std::move(other.core_);
        settled_ = other.settled_;
        index_ = other.index_;
        bytes_ = std::exchange(other.bytes_, {});
        sequence_ = other.sequence_;
        producer_ = other.producer_;
        deliveries_ = other.deliveries_;
        format_ = other.format_;
    }
    return *this;
}

Delivery::~Delivery() {
    release();
}

Status Delivery::check_held() const noexcept {
    if (core_ == nullptr || !core_->segment->is_foreign_after_reading()) return Status::ok();
    return core_->segment->why_foreign();
}

void Delivery::release() noexcept {
    if (settled_) {
        ack();
    } else {
        nack();
    }
}

void Delivery::ack() noexcept {
    if (core_ == nullptr) return;
    const auto core = std::exchange(core_, nullptr);
    bytes_ = {};  // reused soon
    if (settled_) {
        core->free(index_);
    } else {
        core->acknowledge(index_);
    }
}

void Delivery::settle() noexcept {
    if (core_ == nullptr || settled_) return;
    settled_ = true;
    core_->settle(index_);
}

void Delivery::nack() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    bytes_ = {};
    std::exchange(core_, nullptr)->nack(index_);
}

void Delivery::untake() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    bytes_ = {};
    std::exchange(core_, nullptr)->untake(index_);
}

void Delivery::dead_letter() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    const auto core = std::exchange(core_, nullptr);
    bytes_ = {};
    if (!core->segment->is_foreign()) core->ring.dead_letter(index_);
}

void Delivery::refuse() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    const auto core = std::exchange(core_, nullptr);
    if (core->view.shape().max_deliveries == 0) return core->untake(index_);
    core->note_alone(index_);
    core->nack(index_);
}

void Delivery::note_alone() noexcept {
    if (core_ != nullptr) core_->note_alone(index_);
}

bool Delivery::must_come_alone() const noexcept {
    return core_ != nullptr && core_->ring.must_come_alone(deliveries_);
}

QueueLoan::QueueLoan(QueueLoan&& other) noexcept
    : core_(std::move(other.core_)), block_(other.block_), bytes_(std::exchange(other.bytes_, {})) {
}

QueueLoan& QueueLoan::operator=(QueueLoan&& other) noexcept {
    if (this != &other) {
        drop();
        core_ = std::move(other.core_);
        block_ = other.block_;
        bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
}

QueueLoan::~QueueLoan() {
    drop();
}

void QueueLoan::drop() noexcept {
    bytes_ = {};
    if (core_ == nullptr) return;
    std::exchange(core_, nullptr)->drop_block(block_);
}

Status QueueLoan::commit(Format format, const Wait& wait, std::uint64_t tag,
                         std::uint64_t order) noexcept {
    if (core_ == nullptr) {
        return Status::closed_here("this loan is over: committed, dropped or moved from before");
    }
    if (!core_->is_able_to_put(bytes_.size())) {
        Status why = core_->why_unable_to_put(bytes_.size());
        drop();
        return why;
    }
    Status accepted = core_->put({bytes_, block_, format, tag, order}, wait, true);
    if (accepted) {
        core_.reset();
        bytes_ = {};
    } else if (accepted.code() != ErrorCode::Timeout && accepted.code() != ErrorCode::Cancelled) {
        drop();
    }
    return accepted;
}

}  // namespace penstock
