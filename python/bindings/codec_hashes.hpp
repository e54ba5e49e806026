// A defence against crafted hash collisions. A dict compares a new key with each one of the same
// hash: 40,000 of them are 800 million comparisons in one recv(), with the GIL held.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace penstock::py {

namespace nb = nanobind;

// Of one message. The hash of every sixteenth key, chosen at random, is kept and compared with
// those of its dict: what these few pairs say of all is bounded, by 2 million comparisons and 128
// for each key, where one of a long key counts as many. So a message is refused only if it has
// thousands of keys of one hash.
//
// Only for keys whose hash a sender can choose: str and bytes have a secret in theirs, and of the
// ints of 64 bits no more than a dozen have the same.
class KeyHashes {
public:
    KeyHashes() noexcept;

    // The hashes of one dict: made when it begins, before its first key.
    class Dict {
    public:
        explicit Dict(KeyHashes& all) noexcept : all_(all) {}

        // Before the key, which took so many bytes of the message, is inserted. Raises Corrupt.
        void add(nb::handle key, std::size_t bytes) {
            if (--all_.passed_over_ == 0) {
                all_.choose();
                look(key, bytes);
            }
        }

    private:
        struct Place {
            std::uint64_t hash = 0;
            std::uint64_t keys = 0;  // 0: free
        };

        void look(nb::handle key, std::size_t bytes);
        std::uint64_t count(std::uint64_t hash);
        Place& place_of(std::uint64_t hash);
        void grow();

        KeyHashes& all_;
        std::vector<Place> places_;  // a power of two, half full at the most
        std::size_t used_ = 0;
    };

private:
    // Which is the next: a sender that knew it would send the others.
    void choose() noexcept;
    void note(std::uint64_t same, std::uint64_t cost);

    std::uint64_t random_;
    std::uint64_t secret_;
    unsigned passed_over_ = 1;  // keys until the next that is looked at
    // Of looked-at keys, and of pairs of them with the same hash in the same dict: what their
    // comparison costs, where that of short ones is 1.
    std::uint64_t keys_ = 0;
    std::uint64_t pairs_ = 0;
};

}  // namespace penstock::py
