// A participant of a Store as a Python object; penstock/store.py is its face.
// Everything here needs the GIL.
#pragma once

#include <memory>
#include <string_view>

#include "os/fork.hpp"
#include "penstock/store.hpp"
#include "store_objects.hpp"

namespace penstock::py {

// The library's handle may be used by any thread, except while it is closed: each call keeps it
// alive for itself.
class PyStore final : public StoreObjects {
public:
    PyStore(Store attached, Codec values, const Trust& trust);

    Result<StoreRoom> reserve(std::string_view key, std::uint64_t nbytes,
                              const ReserveOptions& options) override;
    Result<StoreObject> find(std::string_view key) override;

    // In a forked child the store is attached to anew at the first use. Raises Closed.
    std::shared_ptr<Store> live();
    void close();  // nothing, while it is lent
    [[nodiscard]] bool is_closed() const noexcept { return store_ == nullptr && !is_lent_; }
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }

    // To a tiered store, which has the handle for itself from then on, and lets this object use it.
    // Raises Busy where others use it, or it is lent already.
    std::shared_ptr<Store> lend();
    void use(std::shared_ptr<Store> lent) { store_ = std::move(lent); }
    void give_back(std::shared_ptr<Store> own);
    void leave();  // close(), for the borrower

private:
    std::shared_ptr<Store> store_;
    Trust trust_;
    bool is_lent_ = false;
    std::uint64_t generation_ = os::fork_generation();
};

void bind_store(nb::module_& module);

}  // namespace penstock::py
