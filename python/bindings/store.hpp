// A participant of a Store as a Python object; penstock/store.py is its face.
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

// The library's handle may be used by any thread, except while it is closed: each call keeps it
// alive for itself.
class PyStore {
public:
    PyStore(Store attached, Codec values, const Trust& trust,
            std::optional<SecondTierOptions> second_tier);
    PyStore(const PyStore&) = delete;
    PyStore& operator=(const PyStore&) = delete;

    // Both may let the GIL go, and raise what Python has to say meanwhile.
    Result<StoreReservation> reserve(std::string_view key, std::uint64_t nbytes,
                                     const ReserveOptions& options);
    Result<StoreObject> find(std::string_view key, Deadline deadline);
    // As soon as it is there.
    Result<StoreObject> wait_for(std::string_view key, Deadline deadline, const Cancel* cancel);

    // In a forked child the store is attached to anew at the first use, and its second tier met
    // anew. Raises Closed.
    std::shared_ptr<Store> live();
    Unwritten flush(Deadline deadline);
    Unwritten close(Deadline deadline);
    [[nodiscard]] bool is_closed() const noexcept { return store_ == nullptr; }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }
    // Counts of a report that never reached a caller: added to the next one.
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
