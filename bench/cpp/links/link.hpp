// The interface of every contender's link, and the place in which it is built.
//
// A link joins one driver with a number of readers, both ways:
//     kName, kCarriesMessages        false: only turns, nothing to check
//     kRingBytes                     memory that messages go around in, if any
//     Link(const Place&)             before the readers are forked
//     open_driver(), open_reader(r)  each in its own process
//     send(bytes)                    driver: to every reader
//     receive(use)                   reader: use(bytes) with the next message, in place if possible
//     answer(bytes)                  reader: to the driver
//     collect(use)                   driver: use(bytes) with one answer of each reader
//     close()                        both
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace penstock::bench {

using Bytes = std::span<const std::byte>;

struct Place {
    std::string name;
    std::size_t message_size = 0;
    unsigned readers = 1;
};

// The queue length for peers: as many messages as the 4 MiB of a default Broadcast hold, at least
// two.
inline std::size_t queue_length(std::size_t message_size) {
    return std::clamp<std::size_t>((std::size_t{4} << 20U) / message_size, 2, 1024);
}

}  // namespace penstock::bench
