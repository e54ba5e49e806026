// The public face of a Store with a second tier.
#include "penstock/tiered_store.hpp"

#include <cstring>
#include <optional>
#include <utility>

#include "remote/tier_core.hpp"
#include "segment/closed_handle.hpp"

namespace penstock {

namespace {

Status closed() noexcept {
    return detail::closed_handle("tiered store handle", "make a new one");
}

}  // namespace

std::string_view to_string(TierPolicy policy) noexcept {
    switch (policy) {
        case TierPolicy::WriteBack:
            return "write_back";
        case TierPolicy::WriteThrough:
            return "write_through";
        case TierPolicy::ReadOnly:
            return "read_only";
    }
    return "unknown";
}

std::string_view to_string(WhenFull when_full) noexcept {
    switch (when_full) {
        case WhenFull::Drop:
            return "drop";
        case WhenFull::Wait:
            return "wait";
    }
    return "unknown";
}

std::string_view to_string(CircuitState state) noexcept {
    switch (state) {
        case CircuitState::Closed:
            return "closed";
        case CircuitState::Partial:
            return "partial";
        case CircuitState::Open:
            return "open";
    }
    return "unknown";
}

// ---- reservations

TieredReservation::TieredReservation(std::shared_ptr<detail::TierCore> core, std::string key,
                                     StoreReservation first) noexcept
    : core_(std::move(core)), key_(std::move(key)), first_(std::move(first)) {}
TieredReservation::TieredReservation(TieredReservation&& other) noexcept = default;
TieredReservation& TieredReservation::operator=(TieredReservation&& other) noexcept = default;
TieredReservation::~TieredReservation() = default;

Status TieredReservation::commit(const Wait& wait) noexcept {
    std::optional<StoreObject> pinned;
    return commit(pinned, wait);
}

Status TieredReservation::commit(std::optional<StoreObject>& pinned, const Wait& wait) noexcept {
    if (!first_.is_open()) return first_.commit();  // which says why not
    return core_->commit(key_, first_, pinned, wait);
}

// ---- the handle

TieredStore::TieredStore(Store&& first, const TieredOptions& options)
    : core_(detail::TierCore::create(first, options)), none_(std::move(first)) {}

TieredStore::TieredStore(TieredStore&& other) noexcept = default;

TieredStore& TieredStore::operator=(TieredStore&& other) noexcept {
    if (this != &other) {
        close(Deadline::now());
        core_ = std::move(other.core_);
    }
    return *this;
}

TieredStore::~TieredStore() {
    close(Deadline::now());
}

Result<TieredReservation> TieredStore::reserve(std::string_view key, std::uint64_t nbytes,
                                               const ReserveOptions& options) noexcept {
    if (core_ == nullptr) return closed();
    Result<StoreReservation> first = core_->reserve(key, nbytes, options);
    if (!first) return first.status();
    return Result<TieredReservation>(std::in_place, core_, std::string(key), std::move(*first));
}

Status TieredStore::put(std::string_view key, std::span<const std::byte> value,
                        const ReserveOptions& options, const Wait& wait) noexcept {
    Result<TieredReservation> reservation = reserve(key, value.size(), options);
    if (!reservation) return reservation.status();
    if (!value.empty()) std::memcpy(reservation->bytes().data(), value.data(), value.size());
    return reservation->commit(wait);
}

Result<StoreObject> TieredStore::get(std::string_view key, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    return core_->get(key, wait);
}

Result<StoreObject> TieredStore::fetch(std::string_view key, const Wait& wait,
                                       const FetchCheck& check) noexcept {
    if (core_ == nullptr) return closed();
    return core_->fetch(key, wait, check);
}

bool TieredStore::contains(std::string_view key, const Wait& wait) noexcept {
    return core_ != nullptr && core_->contains(key, wait);
}

Status TieredStore::remove(std::string_view key, const Wait& wait) noexcept {
    if (core_ == nullptr) return closed();
    return core_->remove(key, wait);
}

Unwritten TieredStore::flush(const Wait& wait) noexcept {
    return core_ == nullptr ? Unwritten{} : core_->flush(wait);
}

Unwritten TieredStore::finish(const Wait& wait) noexcept {
    return core_ == nullptr ? Unwritten{} : core_->close(wait);
}

Unwritten TieredStore::close(const Wait& wait) noexcept {
    if (core_ == nullptr) return {};
    return std::exchange(core_, nullptr)->close(wait);
}

void TieredStore::request_close() noexcept {
    if (core_ != nullptr) core_->cancel();
}

TierStats TieredStore::stats() const {
    if (core_ == nullptr) closed().or_throw();
    return core_->stats();
}

Store& TieredStore::first() noexcept {
    return core_ == nullptr ? none_ : core_->first;
}

}  // namespace penstock
