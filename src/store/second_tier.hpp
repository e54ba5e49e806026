// What a Store asks of the tier behind it. The only one, on Redis, is in src/remote.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/store.hpp"

namespace penstock::detail {

// Any thread. Not in a forked child, but for flush(), close() and cancel(), which do nothing there.
class SecondTier {
public:
    // Tries the servers once; a server that is not there is an outage. `wait` may end that: by its
    // deadline as an outage, otherwise Cancelled is thrown. Throws InvalidArgument and
    // PermissionDenied, too. In a forked child what is left of it is not destroyed.
    static std::shared_ptr<SecondTier> open(const SecondTierOptions& options, const Wait& wait);

    SecondTier() = default;
    SecondTier(const SecondTier&) = delete;
    SecondTier& operator=(const SecondTier&) = delete;
    virtual ~SecondTier() = default;

    // Once, before any other call. `first`: a handle on the first tier alone.
    virtual void stand_behind(Store first) = 0;

    // Commits an object, then writes it. The key is announced before `commit`, which makes the
    // object visible and pins it in `object`: a remove() of the visible object waits for the write.
    virtual Status write(std::string key, const std::function<Status()>& commit,
                         const std::optional<StoreObject>& object, const Wait& wait) noexcept = 0;
    // Of a key that the first tier has just missed.
    virtual Result<StoreObject> fetch(std::string_view key, const Wait& wait,
                                      const FetchCheck* check) noexcept = 0;
    virtual bool contains(std::string_view key, const Wait& wait) noexcept = 0;
    virtual StoreLook look(std::string_view key, const Wait& wait) noexcept = 0;
    virtual bool touch(std::string_view key, const Wait& wait) noexcept = 0;
    // Throws what is in the way of a whole answer.
    virtual std::vector<std::string> keys(const Wait& wait) = 0;
    // From both tiers.
    virtual Status remove(std::string_view key, const Wait& wait) noexcept = 0;

    virtual Unwritten flush(const Wait& wait) noexcept = 0;
    virtual Unwritten close(const Wait& wait) noexcept = 0;
    virtual void cancel() noexcept = 0;
    [[nodiscard]] virtual TierStats stats() const = 0;
};

}  // namespace penstock::detail
