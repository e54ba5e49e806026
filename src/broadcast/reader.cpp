// BroadcastReader and BroadcastMessage: calls are forwarded to ReaderCore.
#include "broadcast/reader_core.hpp"

#include <utility>

#include "segment/closed_handle.hpp"

namespace penstock {

BroadcastMessage::BroadcastMessage(BroadcastMessage&& other) noexcept
    : core_(std::exchange(other.core_, nullptr)), bytes_(std::exchange(other.bytes_, {})),
      sequence_(other.sequence_), entry_(other.entry_), block_(other.block_),
      format_(other.format_), kept_(other.kept_) {}

BroadcastMessage& BroadcastMessage::operator=(BroadcastMessage&& other) noexcept {
    if (this != &other) {
        release();
        core_ = std::exchange(other.core_, nullptr);
        bytes_ = std::exchange(other.bytes_, {});
        sequence_ = other.sequence_;
        entry_ = other.entry_;
        block_ = other.block_;
        format_ = other.format_;
        kept_ = other.kept_;
    }
    return *this;
}

BroadcastMessage::~BroadcastMessage() {
    release();
}

Status BroadcastMessage::check_held() const noexcept {
    if (core_ == nullptr || !core_->is_foreign()) return Status::ok();
    return core_->segment().why_foreign();
}

void BroadcastMessage::release() noexcept {
    bytes_ = {};  // may be reused once released
    if (core_ != nullptr) std::exchange(core_, nullptr)->release(entry_, kept_, block_);
}

void BroadcastMessage::keep() noexcept {
    if (core_ != nullptr && !kept_) kept_ = core_->keep(entry_, block_);
}

BroadcastReader BroadcastReader::attach(const std::string& name, unsigned rank, const Wait& wait,
                                        const std::string& instance, const Trust& trust) {
    const detail::Wanted wanted{Kind::Broadcast, os::Mapping::Access::Read, instance, trust};
    return BroadcastReader(
        detail::ReaderCore::attach(detail::attach_when_there(name, wanted, wait), rank));
}

BroadcastReader BroadcastReader::attach(int descriptor, unsigned rank, const Trust& trust) {
    const detail::Wanted wanted{Kind::Broadcast, os::Mapping::Access::Read, {}, trust};
    return BroadcastReader(
        detail::ReaderCore::attach(detail::Segment::attach(descriptor, wanted), rank));
}

BroadcastReader::BroadcastReader(detail::ReaderCore* core)
    : core_(core), rank_(core->rank()), name_(core->segment().name()),
      instance_(core->segment().instance()) {}

BroadcastReader::BroadcastReader(BroadcastReader&& other) noexcept
    : core_(std::exchange(other.core_, nullptr)), rank_(other.rank_), name_(std::move(other.name_)),
      instance_(std::move(other.instance_)) {}

BroadcastReader& BroadcastReader::operator=(BroadcastReader&& other) noexcept {
    if (this != &other) {
        close();
        core_ = std::exchange(other.core_, nullptr);
        rank_ = other.rank_;
        name_ = std::move(other.name_);
        instance_ = std::move(other.instance_);
    }
    return *this;
}

BroadcastReader::~BroadcastReader() {
    close();
}

Result<BroadcastMessage> BroadcastReader::recv(const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->recv(wait);
}

Result<std::size_t> BroadcastReader::recv_into(std::span<std::byte> buffer,
                                               const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->recv_into(buffer, wait);
}

Result<std::size_t> BroadcastReader::next_size(const Wait& wait) noexcept {
    if (core_ == nullptr) return closed_handle();
    return core_->next_size(wait);
}

Status BroadcastReader::closed_handle() noexcept {
    return detail::closed_handle("reader");
}

BroadcastStats BroadcastReader::stats() const {
    if (core_ == nullptr) closed_handle().or_throw();
    return core_->stats();
}

unsigned BroadcastReader::rank() const noexcept {
    return rank_;
}

void BroadcastReader::close() noexcept {
    if (core_ != nullptr) std::exchange(core_, nullptr)->close_handle();
}

void BroadcastReader::request_close() noexcept {
    if (core_ != nullptr) core_->request_close();
}

bool BroadcastReader::is_ready() const noexcept {
    return core_ != nullptr && core_->is_ready();
}

bool BroadcastReader::is_open() const noexcept {
    return core_ != nullptr && !core_->is_foreign();
}

const std::string& BroadcastReader::name() const noexcept {
    return name_;
}

std::string BroadcastReader::instance() const {
    return instance_;
}

int BroadcastReader::descriptor() const noexcept {
    return is_open() ? core_->segment().lending_descriptor() : -1;
}

}  // namespace penstock
