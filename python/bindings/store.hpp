// A participant of a Store as a Python object; penstock/store.py is its face.
// Everything here needs the GIL.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "codec.hpp"
#include "os/fork.hpp"
#include "penstock/store.hpp"

namespace penstock::py {

// The library's handle may be used by any thread, except while it is closed: each call keeps it
// alive for itself.
class PyStore {
public:
    PyStore(Store attached, Codec values);

    // In a forked child the store is attached to anew at the first use. Raises Closed.
    std::shared_ptr<Store> live();
    void close();
    [[nodiscard]] bool is_closed() const noexcept { return store_ == nullptr; }

    const Codec codec;
    const std::string name;
    const std::string instance;

private:
    std::shared_ptr<Store> store_;
    std::uint64_t generation_ = os::fork_generation();
};

// A str, as its UTF-8 bytes, or bytes. TypeError for anything else. Lives as long as the object.
std::string_view parse_key(nb::handle key);
// "'key' of store 'kv'", for sentences.
std::string title_of(std::string_view key, const PyStore& store);

// The values and metadata of pinned objects, and the `with` block that reads one.
void bind_store_view(nb::module_& module);
nb::object make_store_view(PyStore& store, StoreObject object);
nb::object copy_of(const StoreObject& object, Codec codec);
nb::object meta_of(const StoreObject& object);

// Reservations that Python fills in.
void bind_store_staged(nb::module_& module);

void bind_store(nb::module_& module);

}  // namespace penstock::py
