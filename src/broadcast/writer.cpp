// BroadcastWriter and BroadcastLoan: calls are forwarded to WriterCore.
#include "broadcast/writer_core.hpp"

#include <utility>

namespace penstock {

using detail::WriterCore;

namespace {

const std::string no_name;

Status moved_from() noexcept {
    return Status::closed_here("this writer is closed: it was moved from");
}

}  // namespace

BroadcastWriter BroadcastWriter::create(const std::string& name, const BroadcastOptions& options) {
    auto plan = detail::plan_of(detail::broadcast_shape_of(options));
    plan.waiting = options.waiting;
    plan.replaces_owner = options.replaces_owner;
    auto segment = detail::Segment::create(name, plan, options.memory, [](detail::Segment& fresh) {
        // All other words of a fresh Broadcast are zero, as they should be.
        detail::Membership::found(fresh, layout::kWriterSlot);
    });
    return BroadcastWriter(std::make_unique<WriterCore>(std::move(segment)));
}

BroadcastWriter::BroadcastWriter(std::unique_ptr<WriterCore> core) noexcept
    : core_(std::move(core)) {}
BroadcastWriter::BroadcastWriter(BroadcastWriter&& other) noexcept = default;

BroadcastWriter& BroadcastWriter::operator=(BroadcastWriter&& other) noexcept {
    if (this != &other) {
        close();
        core_ = std::move(other.core_);
    }
    return *this;
}

BroadcastWriter::~BroadcastWriter() {
    close();
}

Status BroadcastWriter::send(std::span<const std::byte> message, const Wait& wait,
                             Format format) noexcept {
    if (core_ == nullptr) [[unlikely]]
        return moved_from();
    return core_->send(message, wait, format);
}

Result<BroadcastLoan> BroadcastWriter::loan(std::size_t size, const Wait& wait) noexcept {
    if (core_ == nullptr) return moved_from();
    const Result<std::span<std::byte>> bytes = core_->loan(size, wait);
    if (!bytes) return bytes.status();
    return BroadcastLoan(core_.get(), *bytes);
}

bool BroadcastWriter::has_room(std::size_t size) noexcept {
    return core_ == nullptr || core_->has_room(size);
}

Status BroadcastWriter::wait_ready(const Wait& wait) noexcept {
    return core_ == nullptr ? moved_from() : core_->wait_ready(wait);
}

WriterCore& BroadcastWriter::core_or_throw() const {
    if (core_ == nullptr) moved_from().or_throw();
    static_cast<void>(core_->closed || core_->segment->check_place());
    core_->check_readable().or_throw();
    return *core_;
}

std::vector<BroadcastReaderState> BroadcastWriter::blocked_by() const {
    const WriterCore& core = core_or_throw();
    return detail::find_blockers(core.view, core.segment->participants());
}

std::vector<BroadcastReaderState> BroadcastWriter::readers() const {
    return core_or_throw().readers();
}

BroadcastStats BroadcastWriter::stats() const {
    return core_or_throw().stats();
}

void BroadcastWriter::close() noexcept {
    if (core_) core_->close();
}

void BroadcastWriter::request_close() noexcept {
    if (core_) core_->closing.cancel();
}

bool BroadcastWriter::is_open() const noexcept {
    return core_ && !core_->closed && !core_->segment->is_foreign();
}

const std::string& BroadcastWriter::name() const noexcept {
    return core_ == nullptr ? no_name : core_->segment->name();
}

std::string BroadcastWriter::instance() const {
    return core_ == nullptr ? std::string() : core_->segment->instance();
}

int BroadcastWriter::descriptor() const noexcept {
    return is_open() ? core_->segment->lending_descriptor() : -1;
}

BroadcastLoan::BroadcastLoan(BroadcastLoan&& other) noexcept
    : core_(std::exchange(other.core_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}

BroadcastLoan& BroadcastLoan::operator=(BroadcastLoan&& other) noexcept {
    if (this != &other) {
        drop();
        core_ = std::exchange(other.core_, nullptr);
        bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
}

BroadcastLoan::~BroadcastLoan() {
    drop();
}

// Nothing was published: only the block is given back.
void BroadcastLoan::drop() noexcept {
    if (core_ == nullptr) return;
    auto& core = *std::exchange(core_, nullptr);
    if (core.segment->is_foreign() && !core.segment->is_lost()) return;
    core.end_loan();
}

std::uint64_t BroadcastLoan::file_offset() const noexcept {
    if (core_ == nullptr) return 0;
    const auto& segment = *core_->segment;
    return segment.payload_offset() + static_cast<std::uint64_t>(bytes_.data() - segment.payload());
}

Status BroadcastLoan::commit(Format format) noexcept {
    if (core_ == nullptr) return Status::closed_here("this loan was committed already");
    return std::exchange(core_, nullptr)->commit(std::exchange(bytes_, {}).size(), format);
}

}  // namespace penstock
