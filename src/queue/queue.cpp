// The public face of a Queue, its deliveries and its loans.
#include "penstock/queue.hpp"

#include <cstring>
#include <new>
#include <utility>

#include "queue/dead_letters.hpp"

namespace penstock {

using detail::QueueCore;

Queue Queue::create(const std::string& name, const QueueOptions& options) {
    return Queue(QueueCore::create(name, options));
}

Queue Queue::attach(const std::string& name, QueueRole role, const Wait& wait,
                    const std::string& instance, std::uint64_t application) {
    const auto access =
        role == QueueRole::Consumer ? os::Mapping::Access::Read : os::Mapping::Access::ReadWrite;
    return Queue(QueueCore::attach(
        detail::attach_when_there(name, {Kind::Queue, access, instance}, wait), role, application));
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

Status closed_handle() noexcept {
    return Status::closed_here("this queue handle is closed; attach anew");
}

Delivery delivery_of(const std::shared_ptr<QueueCore>& core, std::uint64_t index,
                     const QueueCore::Content& found) noexcept {
    const layout::QueueSlot& slot = core->view.slot(index);
    const auto word = layout::decode_slot(slot.word.load(std::memory_order_relaxed));
    return {core,
            index,
            found.bytes,
            slot.sequence.load(std::memory_order_relaxed),
            found.description.producer,
            word.deliveries,
            static_cast<Format>(found.description.format)};
}

Status unsound(QueueCore& core, std::uint64_t index) noexcept {
    const std::uint64_t sequence = core.view.slot(index).sequence.load(std::memory_order_relaxed);
    core.ring.set_aside(index);
    return {ErrorCode::Corrupt, "message " + std::to_string(sequence) + " of " +
                                    detail::quoted(core.segment->name()) +
                                    " contradicts itself; it was set aside as a dead letter"};
}

Result<std::uint64_t> on_usable(const std::shared_ptr<QueueCore>& core,
                                std::uint64_t (*act)(QueueCore&, detail::Chosen),
                                detail::Chosen chosen) noexcept {
    if (core == nullptr) return closed_handle();
    if (core->segment->is_foreign()) return detail::wrong_process();
    return act(*core, chosen);
}

// Not "all", which null data says.
detail::Chosen these(std::span<const std::uint64_t> sequences) noexcept {
    static constexpr std::uint64_t kNone = 0;
    return sequences.empty() ? detail::Chosen(&kNone, 0) : sequences;
}

}  // namespace

Status Queue::put(std::span<const std::byte> message, const Wait& wait, Format format,
                  std::uint64_t tag) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->put_bytes({message, 0, format, tag}, wait, true);
}

Result<std::size_t> Queue::put_many(std::span<const std::span<const std::byte>> messages,
                                    const Wait& wait, Format format) noexcept {
    if (core_ == nullptr) return closed_handle();
    if (core_->segment->is_foreign()) return core_->why_unable_to_put(0);
    std::size_t accepted = 0;
    for (const auto message : messages) {
        // Without a wait first: nobody sleeps here while others could be taking what is in.
        Status put = core_->put_bytes({message, 0, format}, Deadline::now(), false);
        if (put.code() == ErrorCode::Timeout) {
            core_->data.notify();
            put = core_->put_bytes({message, 0, format}, wait, false);
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
    if (core_ == nullptr) return closed_handle();
    if (!core_->is_able_to_put(size)) return core_->why_unable_to_put(size);
    Result<detail::BlockId> block = core_->allocate(size, wait);
    if (!block) return block.status().copy();
    PENSTOCK_CRASH_POINT("queue.loan.made");
    return QueueLoan(core_, detail::encode_block(*block), {core_->arena.data(*block), size});
}

Result<Delivery> Queue::take(const Wait& wait) noexcept {
    Result<Delivery> delivery = take_for_batch(wait);
    if (delivery) delivery->note_alone();
    return delivery;
}

Result<Delivery> Queue::take_for_batch(const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    std::uint64_t index = 0;
    if (Status taken = core_->take(index, wait); !taken) return taken;
    const QueueCore::Content found = core_->content(index);
    if (!found.is_sound) return unsound(*core_, index);
    return delivery_of(core_, index, found);
}

Status Queue::take_many(std::vector<Delivery>& deliveries, std::size_t most,
                        const Wait& wait) noexcept try {
    if (core_ == nullptr) return closed_handle();
    std::size_t taken = 0;
    bool is_complete = false;
    while (taken < most && !is_complete) {
        deliveries.reserve(deliveries.size() + 1);  // before there is anything to lose
        Result<Delivery> delivery = take_for_batch(taken == 0 ? wait : Wait(Deadline::now()));
        if (!delivery && taken == 0) return delivery.status().copy();
        if (!delivery) break;
        is_complete = delivery->must_come_alone();
        if (is_complete && taken > 0) {
            delivery->untake();
            break;
        }
        deliveries.push_back(*std::move(delivery));
        ++taken;
    }
    if (taken == 1) deliveries.back().note_alone();
    return Status::ok();
} catch (const std::bad_alloc&) {
    return {ErrorCode::System, "no memory for more deliveries"};
}

Result<std::size_t> Queue::get(std::span<std::byte> buffer, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
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
    core_->acknowledge_at_once(index);
    return size;
}

bool Queue::is_ready() const noexcept {
    return core_ != nullptr && !core_->segment->is_foreign() && core_->ring.is_ready(core_->head);
}

bool Queue::has_room() const noexcept {
    return core_ != nullptr && !core_->segment->is_foreign() && core_->ring.has_room(core_->tail);
}

Status Queue::wait_ready(const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->wait_ready(wait);
}

Status Queue::wait_room(std::size_t size, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->wait_room(size, wait);
}

std::uint64_t Queue::queued() const {
    return stats().queued;
}

QueueStats Queue::stats() const {
    if (core_ == nullptr) closed_handle().or_throw();
    if (core_->segment->is_foreign()) detail::wrong_process().or_throw();
    QueueStats stats = detail::read_queue_stats(core_->view);
    stats.held_bytes = core_->arena.allocated_bytes();
    stats.reserved_bytes = core_->segment->reserved_bytes();
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

std::uint64_t Queue::discard() noexcept {
    if (core_ == nullptr || core_->segment->is_foreign()) return 0;
    core_->end();
    std::uint64_t dropped = 0;
    for (std::uint64_t index = 0; core_->take(index, Deadline::now()); ++dropped) {
        core_->acknowledge_at_once(index);
    }
    core_->own().dropped.fetch_add(dropped, std::memory_order_relaxed);
    return dropped + detail::drop_dead_letters(*core_, {});
}

Result<std::vector<DeadLetter>> Queue::dead_letters(std::size_t limit) const {
    if (core_ == nullptr) return closed_handle();
    if (core_->segment->is_foreign()) return detail::wrong_process();
    return detail::list_dead_letters(core_->view, limit);
}

Result<std::vector<std::byte>> Queue::copy_dead_letter(std::uint64_t sequence) const {
    if (core_ == nullptr) return closed_handle();
    if (core_->segment->is_foreign()) return detail::wrong_process();
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

void Delivery::release() noexcept {
    if (settled_) {
        ack();
    } else {
        give_back();
    }
}

void Delivery::ack() noexcept {
    if (core_ == nullptr) return;
    const auto core = std::exchange(core_, nullptr);
    bytes_ = {};  // another's soon
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

void Delivery::give_back() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    bytes_ = {};
    std::exchange(core_, nullptr)->give_back(index_);
}

void Delivery::untake() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    bytes_ = {};
    std::exchange(core_, nullptr)->untake(index_);
}

void Delivery::set_aside() noexcept {
    if (core_ == nullptr) return;
    if (settled_) return ack();
    const auto core = std::exchange(core_, nullptr);
    bytes_ = {};
    if (!core->segment->is_foreign()) core->ring.set_aside(index_);
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

Status QueueLoan::commit(Format format, const Wait& wait, std::uint64_t tag) noexcept {
    if (core_ == nullptr) {
        return Status::closed_here("this loan is over: committed, dropped or moved from before");
    }
    if (!core_->is_able_to_put(bytes_.size())) {
        Status why = core_->why_unable_to_put(bytes_.size());
        drop();
        return why;
    }
    Status accepted = core_->put({bytes_, block_, format, tag}, wait, true);
    if (accepted) {
        core_.reset();
        bytes_ = {};
    } else if (accepted.code() != ErrorCode::Timeout && accepted.code() != ErrorCode::Cancelled) {
        drop();
    }
    return accepted;
}

}  // namespace penstock
