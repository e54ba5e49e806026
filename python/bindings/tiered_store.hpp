// A Store with a second tier as a Python object; penstock/tiered_store.py is its face.
// Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string_view>

#include "os/fork.hpp"
#include "penstock/tiered_store.hpp"
#include "store.hpp"
#include "store_objects.hpp"

namespace penstock::py {

// Any thread: each call keeps the library's handle alive for itself. The Store that it was made of
// goes on as its first tier, and is closed with it.
class PyTieredStore final : public StoreObjects {
public:
    // `first` is a PyStore, whose handle `tiered` has.
    PyTieredStore(nb::object first, std::shared_ptr<TieredStore> tiered);
    ~PyTieredStore() override;
    PyTieredStore(const PyTieredStore&) = delete;
    PyTieredStore& operator=(const PyTieredStore&) = delete;

    Result<StoreRoom> reserve(std::string_view key, std::uint64_t nbytes,
                              const ReserveOptions& options) override;
    Result<StoreObject> find(std::string_view key) override;
    bool contains(std::string_view key);
    Status remove(std::string_view key);

    // Raises Closed; and WrongProcess in a forked child.
    std::shared_ptr<TieredStore> live() const;
    Unwritten flush(Deadline deadline);
    Unwritten close(Deadline deadline);
    [[nodiscard]] bool is_closed() const noexcept { return tiered_ == nullptr; }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }
    [[nodiscard]] const nb::object& first() const noexcept { return first_; }
    // Counts of a report that never reached a caller: added to the next one.
    void owe(std::uint64_t dropped, std::uint64_t dropped_bytes) noexcept;

private:
    template <typename Ask>
    auto ask(Ask&& ask) const;
    // Adds the owed counts.
    Unwritten complete(Unwritten report) noexcept;

    nb::object first_;
    std::shared_ptr<TieredStore> tiered_;
    Unwritten owed_;
    std::uint64_t generation_ = os::fork_generation();
};

void bind_tiered_store(nb::module_& module);

}  // namespace penstock::py
