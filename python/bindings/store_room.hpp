// A reservation of a store of either kind, until it is committed.
// Everything here needs the GIL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <variant>

#include "penstock/store.hpp"
#include "penstock/tiered_store.hpp"

namespace penstock::py {

class StoreRoom {
public:
    explicit StoreRoom(StoreReservation staged) noexcept : staged_(std::move(staged)) {}
    explicit StoreRoom(TieredReservation staged) noexcept : staged_(std::move(staged)) {}

    [[nodiscard]] std::span<std::byte> bytes() const noexcept {
        return std::visit([](const auto& staged) { return staged.bytes(); }, staged_);
    }
    [[nodiscard]] StoreRef ref() const noexcept {
        return std::visit([](const auto& staged) { return staged.ref(); }, staged_);
    }
    [[nodiscard]] bool is_open() const noexcept {
        return std::visit([](const auto& staged) { return staged.is_open(); }, staged_);
    }
    [[nodiscard]] std::uint64_t offset() const noexcept {
        return std::visit([](const auto& staged) { return staged.offset(); }, staged_);
    }
    [[nodiscard]] StorePlace place() const noexcept {
        return std::visit([](const auto& staged) { return staged.place(); }, staged_);
    }
    [[nodiscard]] bool is_usable() const noexcept {
        return std::visit([](const auto& staged) { return staged.is_usable(); }, staged_);
    }
    [[nodiscard]] bool is_fixed() const noexcept {
        return std::visit([](const auto& staged) { return staged.is_fixed(); }, staged_);
    }
    Status resize(std::uint64_t nbytes) noexcept {
        return std::visit([&](auto& staged) { return staged.resize(nbytes); }, staged_);
    }

    // Raises why not. With a second tier it waits for that, without the GIL, where the policy says
    // so.
    void commit();
    // The same, and keeps the object pinned; also where it raises because the second tier has not
    // got it.
    void commit(std::optional<StoreObject>& pinned);

private:
    std::variant<StoreReservation, TieredReservation> staged_;
};

}  // namespace penstock::py
