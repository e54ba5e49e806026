// The error of a call on a handle that this process has closed or moved from.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "penstock/error.hpp"

namespace penstock::detail {

// `handle`: the kind of handle for the sentence, as in "queue handle".
inline Status closed_handle(std::string_view handle) noexcept {
    std::string sentence = "this ";
    sentence.append(handle).append(" is closed; attach anew");
    return Status::closed_here(std::move(sentence));
}

}  // namespace penstock::detail
