// A participant of a Store as a Python object; penstock/store.py is its public interface.
// Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "codec.hpp"
#include "os/fork.hpp"
#include "penstock/store.hpp"
#include "wait.hpp"

namespace penstock::py {

// The library's handle must not be used while it is closed: each call holds a reference to it.
class PyStore {
public:
    PyStore(Store attached, Codec values, const Trust& trust,
            std::optional<SecondTierOptions> second_tier);
    PyStore(const PyStore&) = delete;
    PyStore& operator=(const PyStore&) = delete;

    // These may release the GIL, and raise the exceptions of signal handlers that ran meanwhile.
    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options);
    Result<StoreObject> find(std::string_view key, Deadline deadline);
    // Waits until the key is resident.
    Result<StoreObject> wait_for(std::string_view key, Deadline deadline, const Cancel* cancel);

    // The handle; at the first use in a forked child a new one, with new connections to a second
    // tier. Raises Closed.
    std::shared_ptr<Store> live();
    Unwritten flush(Deadline deadline);
    Unwritten close(Deadline deadline);
    [[nodiscard]] bool is_closed() const noexcept { return store_ == nullptr; }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }
    // Adds counts of a report that reached no caller to the next report.
    void owe(std::uint64_t dropped, std::uint64_t dropped_bytes) noexcept;

    const Codec codec;
    const std::string name;
    const std::string instance;

private:
    static std::shared_ptr<Store> share(Store attached);
    template <typename Call>
    Result<StoreObject> await_object(Waiting& waiting, Call&& call);
    // Adds the owed counts.
    Unwritten complete(Unwritten report) noexcept;

    std::shared_ptr<Store> store_;
    Trust trust_;
    std::optional<SecondTierOptions> second_tier_;
    Unwritten owed_;
    std::uint64_t generation_ = os::fork_generation();
};

void bind_store(nb::module_& module);

}  // namespace penstock::py
