// Turns of contenders: one driver and its readers, told by the harness which contender is on and
// for how many messages. All wait in semaphores between turns, so a contender that is not on costs
// nothing.
#pragma once

#include <semaphore.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench/cpp/common/clock.hpp"
#include "bench/cpp/common/process.hpp"
#include "bench/cpp/common/shared.hpp"

namespace penstock::bench {

inline constexpr unsigned kMaxReaders = 8;

struct Turn {
    unsigned contender = 0;
    std::uint32_t count = 0;
};

inline void wait_for(sem_t& semaphore) {
    while (sem_wait(&semaphore) != 0) {
        require(errno == EINTR, "sem_wait failed");
    }
}

class Stage {
public:
    using Part = std::function<void(unsigned rank, Turn turn)>;

    // Forks and pins the readers; each calls `open` once, then `part` for every turn.
    Stage(unsigned readers, const std::function<void(unsigned rank)>& open, const Part& part,
          const std::function<void()>& close) {
        for (unsigned rank = 0; rank < readers; ++rank) {
            sem_init(&board_->readers[rank].start, 1, 0);
        }
        sem_init(&board_->ended, 1, 0);
        for (unsigned rank = 0; rank < readers; ++rank) {
            children_.emplace_back([&, rank] {
                open(rank);  // first, so that a contender's threads are not pinned with the reader
                pin_reader(rank);
                play(rank, part);
                close();
            });
        }
    }

    // Starts a turn and returns once every reader is about to receive.
    void begin(Turn turn) {
        board_->turn = turn;
        board_->ready.store(0, std::memory_order_relaxed);
        for (unsigned rank = 0; rank < readers(); ++rank) {
            sem_post(&board_->readers[rank].start);
        }
        while (board_->ready.load(std::memory_order_acquire) != readers()) {
        }
    }

    // Returns when every reader has finished the turn: the time of the last one.
    Ticks end() {
        for (unsigned rank = 0; rank < readers(); ++rank) {
            wait_for(board_->ended);
        }
        Ticks last = 0;
        for (unsigned rank = 0; rank < readers(); ++rank) {
            last = std::max(last, board_->readers[rank].ended_at);
        }
        return last;
    }

    // Processor time that a reader spent on the last turn.
    [[nodiscard]] double used_nanoseconds(unsigned rank) const {
        return board_->readers[rank].used_nanoseconds;
    }

    // Ends the readers.
    void leave() {
        board_->turn = {};
        for (unsigned rank = 0; rank < readers(); ++rank) {
            sem_post(&board_->readers[rank].start);
        }
        for (Child& child : children_) {
            child.join();
        }
    }

    [[nodiscard]] unsigned readers() const noexcept {
        return static_cast<unsigned>(children_.size());
    }
    [[nodiscard]] const Child& reader(unsigned rank) const { return children_[rank]; }

private:
    struct Board {
        Turn turn;
        sem_t ended;
        alignas(kLine) std::atomic<unsigned> ready = 0;
        struct alignas(kLine) Reader {
            sem_t start;
            Ticks ended_at = 0;
            double used_nanoseconds = 0;
        } readers[kMaxReaders];
    };

    void play(unsigned rank, const Part& part) {
        for (;;) {
            wait_for(board_->readers[rank].start);
            const Turn turn = board_->turn;
            if (turn.count == 0) {
                return;
            }
            board_->ready.fetch_add(1, std::memory_order_acq_rel);
            const double used_before = processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
            part(rank, turn);
            board_->readers[rank].ended_at = ticks();
            board_->readers[rank].used_nanoseconds =
                processor_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - used_before;
            sem_post(&board_->ended);
        }
    }

    Shared<Board> board_;
    std::vector<Child> children_;
};

}  // namespace penstock::bench
