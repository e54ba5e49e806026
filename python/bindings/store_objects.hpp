// What every store does in Python, whatever is behind it: encode and put, reserve, look up and
// decode, by key. Everything here needs the GIL.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "codec.hpp"
#include "penstock/store.hpp"
#include "store_room.hpp"

namespace penstock::py {

// The base of the classes that Python sees. What it asks of them may let the GIL go, and raises
// what Python has to say meanwhile.
class StoreObjects {
public:
    StoreObjects(Codec values, std::string title, std::string instance_of_it)
        : codec(values), name(std::move(title)), instance(std::move(instance_of_it)) {}
    StoreObjects(const StoreObjects&) = delete;
    StoreObjects& operator=(const StoreObjects&) = delete;
    virtual ~StoreObjects() = default;

    virtual Result<StoreRoom> reserve(std::string_view key, std::uint64_t nbytes,
                                      const ReserveOptions& options) = 0;
    virtual Result<StoreObject> find(std::string_view key) = 0;

    const Codec codec;
    const std::string name;
    const std::string instance;
};

// A str, as its UTF-8 bytes, or bytes. TypeError for anything else. Lives as long as the object.
std::string_view parse_key(nb::handle key);
// True, or False for a miss; anything else is raised.
bool is_done(const Status& status);

void bind_store_objects(nb::module_& module);

}  // namespace penstock::py
