// The control block of a small store without its segment, for tests of index, order and holder
// bits.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "store/control.hpp"
#include "tests/unit/support/control_block.hpp"

namespace penstock::test {

using layout::EntryState;

inline detail::StoreShape stage_shape(Eviction eviction, unsigned participants) {
    detail::StoreShape shape;
    shape.buckets = 8;
    shape.participants = participants;
    shape.eviction = eviction;
    return shape;
}

struct StoreStage {
    static constexpr unsigned kSelf = 1;
    static constexpr unsigned kOther = 2;

    explicit StoreStage(Eviction eviction = Eviction::Sieve, unsigned participants = 4)
        : control(stage_shape(eviction, participants).control_bytes()),
          view(stage_shape(eviction, participants), control.data()) {
        words.attach(control.data(), view.shape().control_bytes() / sizeof(layout::Word),
                     view.operations(), participants, kSelf);
    }

    [[nodiscard]] layout::EntryWord entry(std::uint32_t number) const {
        return layout::decode_entry(words.read(view.entry(number).word));
    }
    void set(std::uint32_t number, EntryState state, unsigned participant = 0) {
        layout::Word& word = view.entry(number).word;
        ASSERT_TRUE(detail::MultiWord::change(word, words.read(word),
                                              layout::encode_entry(state, participant)));
    }

    ControlBlock control;
    detail::StoreView view;
    detail::MultiWord words;
};

}  // namespace penstock::test
