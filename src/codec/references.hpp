// Payloads referred to during a walk through a message. A sound message refers to each table entry
// at most once, and payloads do not overlap, so all referenced bytes together are no more than the
// message has. The check keeps a hostile message from having one payload copied a thousand times.
#pragma once

#include <cstddef>
#include <cstdint>

#include "penstock/codec.hpp"

namespace penstock::codec {

// Counts the references of one walk. `bytes`: size of the whole message.
class References {
public:
    References(const MessageReader& message, std::size_t bytes) noexcept
        : references_left_(message.tensors()), bytes_left_(bytes) {}

    // BadTensor if the sum exceeds the message.
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
