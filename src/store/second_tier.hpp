// Interface between a Store and its second tier. The only implementation, on Redis, is in
// src/remote.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/store.hpp"

namespace penstock::detail {

// Any thread. In a forked child only flush(), close() and cancel(), which do nothing there.
class SecondTier {
public:
    // Tries the servers once; an unreachable server is an outage. `wait` may end the trial: its
    // deadline as an outage, its cancellation by throwing Cancelled. Throws InvalidArgument and
    // PermissionDenied, too. The last reference in a forked child does not destroy the tier.
    static std::shared_ptr<SecondTier> open(const SecondTierOptions& options, const Wait& wait);

    SecondTier() = default;
    SecondTier(const SecondTier&) = delete;
    SecondTier& operator=(const SecondTier&) = delete;
    virtual ~SecondTier() = default;

    // Called once, before all other calls. `first`: a handle on the first tier alone.
    virtual void stand_behind(Store first) = 0;

    // Commits an object, then writes it. The key is announced before `commit`, which makes the
    // object visible and pins it in `object`: a remove() of the visible object waits for the write.
    virtual Status write(std::string key, const std::function<Status()>& commit,
                         const std::optional<StoreObject>& object, const Wait& wait) noexcept = 0;
    // Fetches a key that the first tier has just missed.
    virtual Result<StoreObject> fetch(std::string_view key, const Wait& wait,
                                      const FetchCheck* check) noexcept = 0;
    virtual bool contains(std::string_view key, const Wait& wait) noexcept = 0;
    virtual StoreLook look(std::string_view key, const Wait& wait) noexcept = 0;
    virtual bool touch(std::string_view key, const Wait& wait) noexcept = 0;
    // Throws the error that made the answer incomplete.
    virtual std::vector<std::string> keys(const Wait& wait) = 0;
    // Removes the object from both tiers.
    virtual Status remove(std::string_view key, const Wait& wait) noexcept = 0;

    virtual Unwritten flush(const Wait& wait) noexcept = 0;
    virtual Unwritten close(const Wait& wait) noexcept = 0;
    virtual void cancel() noexcept = 0;
    [[nodiscard]] virtual TierStats stats() const = 0;
};

}  // namespace penstock::detail
