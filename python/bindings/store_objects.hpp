// Objects of a store by key, in Python: encode and put, reserve, look up and decode.
// Everything here needs the GIL.
#pragma once

#include <string_view>

#include "store.hpp"

namespace penstock::py {

// A str, as its UTF-8 bytes, or bytes. TypeError for anything else. Lives as long as the object.
std::string_view parse_key(nb::handle key);
// True, or False for a miss; anything else is raised.
bool is_done(const Status& status);

void bind_store_objects(nb::module_& module, nb::class_<PyStore>& store);

}  // namespace penstock::py
