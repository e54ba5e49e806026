// What a walk through a message refers to. A sound message refers to each entry of its table once
// at the most, and its payloads do not overlap: so the bytes behind all references are no more than
// the message has, and whoever copies them is not made to copy one payload a thousand times.
#pragma once

#include <cstddef>
#include <cstdint>

#include "penstock/codec.hpp"

namespace penstock::codec {

// One walk's count. `bytes`: of the whole message.
class References {
public:
    References(const MessageReader& message, std::size_t bytes) noexcept
        : references_left_(message.tensors()), bytes_left_(bytes) {}

    // BadTensor for more than the message has.
    Fault add(const TensorView& view) noexcept {
        if (references_left_ == 0 || view.data.size() > bytes_left_) {
            return Fault::BadTensor;
        }
        --references_left_;
        bytes_left_ -= view.data.size();
        return Fault::None;
    }

private:
    std::uint32_t references_left_;
    std::size_t bytes_left_;
};

}  // namespace penstock::codec
