// One handle of the library with two sides, which two threads may use at once: put() does not wait
// for get(), and a wait for credit does not delay put().
// Everything here needs the GIL.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "handle.hpp"

namespace penstock::py {

// The library's handle, closed when both sides are.
template <typename Target>
struct Shared {
    explicit Shared(Target attached) : target(std::move(attached)) {}
    Target target;
    std::atomic<int> open_sides{2};
};

template <typename Target>
struct Side final : Handle {
    Side(const std::string& title, std::shared_ptr<Shared<Target>> both, detail::Awaited what)
        : Handle(title), shared(std::move(both)) {
        awaits(shared->target.instance(), what);
    }

    [[nodiscard]] Target& target() const noexcept { return shared->target; }
    [[nodiscard]] Target& usable() const {
        check_usable();
        return target();
    }
    std::shared_ptr<Shared<Target>> shared;

private:
    void end_waits() noexcept override { shared->target.request_close(); }
    void shut() noexcept override {
        if (shared->open_sides.fetch_sub(1) == 1) {
            shared->target.close();
        }
    }
};

}  // namespace penstock::py
